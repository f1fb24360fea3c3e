"""
A page's list cut into its events without understanding them.

The last road of wire.py, for bodies that a JSON parser refuses whole because of one event. Knows
strings and brackets, nothing else: no recursion, so any depth; one pass, so any length. What is
inside an event is not its business, what is between them is.
"""

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

# Possessive throughout: without it a 50 MB string of escapes takes 10 s and 3 GB, with it 0.3 s.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN = re.compile(_STRING + rb'|["\[\]{}]', re.DOTALL)
_SCALAR = re.compile(_STRING + rb'|[^\s,:"\[\]{}]++', re.DOTALL)
_PLAIN = _STRING + rb'|[^"\[\]{}]++'
_SPACE = re.compile(rb"[ \t\n\r]*+")


def _shallow(levels: int) -> re.Pattern[bytes]:
    inside = _PLAIN
    for _ in range(levels - 1):
        inside = _PLAIN + rb"|[\[{](?:" + inside + rb")*+[\]}]"
    return re.compile(rb"[\[{](?:" + inside + rb")*+[\]}]", re.DOTALL)


# What nests no deeper than this is one match: a third of the time of counting its brackets. A page
# has two or three levels above its events, and those seldom more than three.
_SHALLOW = _shallow(8)


class NotAPage(Exception):
    """Raised by `cut`: why the body holds no list of events, and what facts it holds instead."""

    def __init__(self, reason: str, facts: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.facts = facts or {}


def cut(body: bytes, events_path: tuple[str, ...]) -> tuple[list[bytes], dict[str, Any]]:
    """
    Each event's own bytes, and the facts around the list as nested dicts.

    Raises NotAPage for a body without such a list, cut short, or malformed outside its events.
    """
    start = _after_space(body, 0)
    if start == len(body):
        raise NotAPage("the body is empty")
    if body[start : start + 1] == b"<":
        raise NotAPage("the body is HTML or XML, not JSON")
    end = _value_end(body, start)
    if _after_space(body, end) != len(body):
        raise NotAPage("the body is not JSON: something follows its end")
    if body[start : start + 1] == b"[":
        return _items(body, start), {}
    if body[start : start + 1] != b"{" or not events_path:
        _refuse(body[start:end], events_path)
    found = _descend(body, start, events_path)
    if found is None or body[found : found + 1] != b"[":
        _refuse(body, events_path)
    facts = _facts(body[:found] + b"[]" + body[_value_end(body, found) :])
    return _items(body, found), facts


def printable(said: str) -> str:
    """What the API says, for the log: it must not write lines or control sequences of its own."""
    return "".join(sign if sign.isprintable() else " " for sign in said)


def _refuse(body: bytes, events_path: tuple[str, ...]) -> NoReturn:
    """Say what stands there instead of a list of events."""
    facts = _facts(body)
    where = f'no list at "{".".join(events_path)}"' if events_path else "no list"
    if not isinstance(facts, dict):
        raise NotAPage(f"the body is {'null' if facts is None else 'a single value'}, {where}")
    words = [facts[key][:60] for key in ("error", "code") if isinstance(facts.get(key), str)]
    said = [printable(word) for word in words]
    if said:
        raise NotAPage(f"the body is an error object ({', '.join(said)}), {where}", facts)
    raise NotAPage(f"the body has {where}", facts)


def _facts(document: bytes) -> Any:
    try:
        return json.loads(
            document.decode("utf-8", "replace"), parse_float=Decimal, parse_int=_integer
        )
    except (ValueError, InvalidOperation, RecursionError):
        raise NotAPage("the body is not JSON outside its events") from None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 1_000 else float(digits)


def _descend(body: bytes, start: int, path: tuple[str, ...]) -> int | None:
    """Where the value at the path starts; None when there is none. The last of equal keys wins."""
    for key in path:
        if body[start : start + 1] != b"{":
            return None
        found = None
        for name, value in _members(body, start):
            found = value if name == key else found
        if found is None:
            return None
        start = found
    return start


def _members(body: bytes, start: int) -> list[tuple[str, int]]:
    """An object's keys and where their values start."""
    members = []
    position = _after_space(body, start + 1)
    while body[position : position + 1] != b"}":
        end = _value_end(body, position)
        value = _after_space(body, _expect(body, _after_space(body, end), b":"))
        members.append((_facts(body[position:end]), value))
        position = _after_space(body, _value_end(body, value))
        if body[position : position + 1] != b"}":
            position = _after_space(body, _expect(body, position, b","))
    return members


def _items(body: bytes, start: int) -> list[bytes]:
    """The values of a list, each as its own bytes."""
    items: list[bytes] = []
    position = _after_space(body, start + 1)
    if body[position : position + 1] == b"]":
        return items
    while True:
        end = _value_end(body, position)
        items.append(body[position:end])
        position = _after_space(body, end)
        if body[position : position + 1] == b"]":
            return items
        position = _after_space(body, _expect(body, position, b","))


def _value_end(body: bytes, start: int) -> int:
    """The position after the value that starts here."""
    if body[start : start + 1] not in (b"[", b"{"):
        if scalar := _SCALAR.match(body, start):
            return scalar.end()
        _malformed(body, start)
    if whole := _SHALLOW.match(body, start):
        return whole.end()
    depth = 0
    for token in _TOKEN.finditer(body, start):
        kind = body[token.start() : token.start() + 1]
        if kind in (b"[", b"{"):
            depth += 1
        elif kind in (b"]", b"}"):
            depth -= 1
            if not depth:
                return token.end()
        elif token.end() - token.start() == 1:
            break  # a string that nothing ends
    raise NotAPage("the body is cut short")


def _expect(body: bytes, position: int, sign: bytes) -> int:
    if body[position : position + 1] != sign:
        _malformed(body, position)
    return position + 1


def _malformed(body: bytes, position: int) -> NoReturn:
    if position >= len(body) or body[position : position + 1] == b'"':
        raise NotAPage("the body is cut short")
    raise NotAPage("the body is not JSON: malformed between its events")


def _after_space(body: bytes, position: int) -> int:
    match = _SPACE.match(body, position)
    assert match, "no space at all matches too"
    return match.end()
