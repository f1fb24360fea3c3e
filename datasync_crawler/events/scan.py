"""
A scanner that cuts a page's list into events by strings and brackets.

The last way of decoding.py, for bodies that a JSON parser fails on because of one event. It takes
one pass without recursion, so that depth and length don't matter. It checks the JSON between
events, not inside them.
"""

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from datasync_crawler.events.paths import dig, document

# Possessive: a 50 MB string of escapes takes 0.3 s, and without it 10 s and 3 GB.
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


# A value nested no deeper than this is one match, in a third of the time of counting brackets. A
# page has two or three levels above its events, and events seldom more than three.
_SHALLOW = _shallow(8)
_ITEM = re.compile(
    rb"[ \t\n\r]*+(?:" + _SHALLOW.pattern + rb"|" + _SCALAR.pattern + rb")[ \t\n\r]*+(?:,|(\]))",
    re.DOTALL,
)
#: Most names beside the list of events, on each level above it.
_MOST_MEMBERS = 10_000


class NotAPage(Exception):
    """Raised by `cut`: `reason` why the body holds no list of events, `facts` that it holds."""

    def __init__(self, reason: str, facts: object = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.facts = facts


def cut(body: bytes, events_path: tuple[str, ...], most: int) -> tuple[list[bytes], Any]:
    """
    Each event's own bytes, and the facts around the list as a node for paths.dig.

    Raises NotAPage for a body without such a list, one cut short or malformed outside its events,
    and one with more than *most* of them.
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
        return _items(body, start, most), {}
    found = _descend(body, start, events_path)
    if found is None or body[found : found + 1] != b"[":
        _refuse(body, events_path)
    facts = _facts(body[:found] + b"[]" + body[_value_end(body, found) :])
    return _items(body, found, most), facts


def count(body: bytes, events_path: tuple[str, ...], most: int) -> int | None:
    """
    The number of events, or most + 1 for more; None when only `cut` can tell.

    Builds nothing. Takes 4 µs per event, and ends after *most*.
    """
    start = _after_space(body, 0)
    try:
        return _count(body, start, () if body[start : start + 1] == b"[" else events_path, most)
    except NotAPage:
        return None


def _count(body: bytes, start: int, path: tuple[str, ...], most: int) -> int | None:
    """The number of values in the list at the path (the last of equal keys), or most + 1."""
    sign = body[start : start + 1]
    if not path:
        return _count_items(body, start, most) if sign == b"[" else None
    counted = None
    if sign == b"{":
        for number, (name, value) in enumerate(_members(body, start)):
            if number == _MOST_MEMBERS:
                return None
            if _facts(name) == path[0]:
                counted = _count(body, value, path[1:], most)
            if counted is not None and counted > most:
                break
    return counted


def _count_items(body: bytes, start: int, most: int) -> int | None:
    position = _after_space(body, start + 1)
    if body[position : position + 1] == b"]":
        return 0
    for number in range(1, most + 2):
        item = _ITEM.match(body, position)
        if item is None:
            return None
        if item[1]:
            return number
        position = item.end()
    return most + 1


def has_at_most(served: bytes, most: int) -> bool:
    """Whether an object has at most *most* fields. Other values have none."""
    if served[:1] != b"{":
        return True
    try:
        return all(number < most for number, _ in enumerate(_members(served, 0)))
    except NotAPage:
        return True


def too_many(most: int) -> str:
    """The clause for a page that is far longer than its limit."""
    return f"the body holds more than {most:,} events, far more than were asked for"


def printable(said: str) -> str:
    """Text of the API for the log, without line breaks and control sequences."""
    return "".join(sign if sign.isprintable() else " " for sign in said)


def _refuse(body: bytes, events_path: tuple[str, ...]) -> NoReturn:
    """Raises NotAPage with what the body holds instead of a list of events."""
    facts = _facts(body)
    where = f'no list at "{".".join(events_path)}"' if events_path else "no list"
    if body[_after_space(body, 0) :][:1] != b"{":
        raise NotAPage(f"the body is {'null' if facts is None else 'a single value'}, {where}")
    words = [dig(facts, (key,)) for key in ("error", "code")]
    said = [printable(word[:60]) for word in words if isinstance(word, str)]
    if said:
        raise NotAPage(f"the body is an error object ({', '.join(said)}), {where}", facts)
    raise NotAPage(f"the body has {where}", facts)


def _facts(served: bytes) -> Any:
    try:
        return document(served)
    except ValueError:
        raise NotAPage("the body is not JSON outside its events") from None


def _descend(body: bytes, start: int, path: tuple[str, ...]) -> int | None:
    """Where the value at the path starts, or None. The last of equal keys wins."""
    for key in path:
        if body[start : start + 1] != b"{":
            return None
        found = None
        for number, (name, value) in enumerate(_members(body, start)):
            if number == _MOST_MEMBERS:
                raise NotAPage(f"the body has more than {_MOST_MEMBERS:,} names beside its events")
            found = value if _facts(name) == key else found
        if found is None:
            return None
        start = found
    return start


def _members(body: bytes, start: int) -> Iterator[tuple[bytes, int]]:
    """An object's keys, as they were served, and where their values start."""
    position = _after_space(body, start + 1)
    while body[position : position + 1] != b"}":
        end = _value_end(body, position)
        value = _after_space(body, _expect(body, _after_space(body, end), b":"))
        yield body[position:end], value
        position = _after_space(body, _value_end(body, value))
        if body[position : position + 1] != b"}":
            position = _after_space(body, _expect(body, position, b","))


def _items(body: bytes, start: int, most: int) -> list[bytes]:
    """The values of a list, each as its own bytes."""
    items: list[bytes] = []
    position = _after_space(body, start + 1)
    if body[position : position + 1] == b"]":
        return items
    while len(items) < most:
        end = _value_end(body, position)
        items.append(body[position:end])
        position = _after_space(body, end)
        if body[position : position + 1] == b"]":
            return items
        position = _after_space(body, _expect(body, position, b","))
    raise NotAPage(too_many(most))


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
            break  # a string without an end
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
