"""Bad and odd events: which indices hold one, its bytes, and what a correct crawl makes of it.

Owns the register of kinds. An event is built from the truth of its index, never from rendered
bytes. Must not know how the crawler words a reason: `kind` is the mock's own word.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Literal

from datasync_crawler.mockapi import dataset
from datasync_crawler.mockapi.faults import Fault, When, fault
from datasync_crawler.mockapi.source import GeneratedEvents
from faults.truth import event_json, truth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faults.truth import Truth

Outcome = Literal["rejected", "stored", "duplicate", "changed"]


@dataclass(frozen=True, slots=True)
class BadEvent:
    """An event as it is served, and its fate.

    `truth` is what must be stored: of the event itself when `stored`, of the earlier event with
    that id when `duplicate` or `changed` (first wins), None when `rejected`.
    """

    kind: str
    raw: bytes
    outcome: Outcome
    truth: Truth | None


Fields = dict[str, bytes]
"""An event's fields in recorded order, each value as its JSON text."""

KINDS: dict[str, tuple[Outcome, str]] = {}
"""Outcome and description of each kind."""
_CHANGES: dict[str, tuple[Fields, Callable[[Truth], Truth]] | Callable[[Truth], BadEvent]] = {}


def _same(truth: Truth) -> Truth:
    return truth


def _reject(kind: str, description: str, **changes: bytes) -> None:
    """Enter a kind that must be rejected: the changed fields; an empty value leaves one out."""
    KINDS[kind] = ("rejected", description)
    _CHANGES[kind] = (changes, _same)


def _store(kind: str, description: str, stored: Callable[[Truth], Truth], **changes: bytes) -> None:
    """Enter a kind that must be stored as `stored` says."""
    KINDS[kind] = ("stored", description)
    _CHANGES[kind] = (changes, stored)


def _special(
    kind: str, outcome: Outcome, description: str
) -> Callable[[Callable[[Truth], BadEvent]], Callable[[Truth], BadEvent]]:
    """Enter a kind whose bytes depend on the event."""

    def enter(make: Callable[[Truth], BadEvent]) -> Callable[[Truth], BadEvent]:
        KINDS[kind] = (outcome, description)
        _CHANGES[kind] = make
        return make

    return enter


def _fields(truth: Truth) -> Fields:
    values: dict[str, object] = {
        "id": truth.id,
        "sessionId": truth.session_id,
        "userId": truth.user_id,
        "type": truth.type,
        "name": truth.name,
        "properties": truth.properties,
        "timestamp": truth.instant_us // 1000,
        "session": truth.session,
    }
    return {
        name: json.dumps(value, separators=(",", ":")).encode() for name, value in values.items()
    }


def _join(fields: Fields) -> bytes:
    return b"{" + b",".join(b'"%s":%s' % (n.encode(), v) for n, v in fields.items() if v) + b"}"


_reject("no-id", "no id", id=b"")
_reject("null-id", "id null", id=b"null")
_reject("empty-id", "id an empty string", id=b'""')
_reject("object-id", "id an object", id=b'{"a":1}')
_reject("timestamp-missing", "no timestamp", timestamp=b"")
_reject("timestamp-null", "timestamp null", timestamp=b"null")
_reject("timestamp-bool", "timestamp true", timestamp=b"true")
_reject("timestamp-words", "a word for a timestamp", timestamp=b'"yesterday"')
_reject("timestamp-second-60", "second 60", timestamp=b'"2026-01-27T19:20:60Z"')
_reject("timestamp-ambiguous", "day or month first?", timestamp=b'"01/02/2026"')
_reject("timestamp-time-only", "a time without its date", timestamp=b'"10:30"')
_reject("timestamp-zone-name", "a zone by name", timestamp=b'"2026-01-27 19:20:12 CET"')
_reject("timestamp-far", "an epoch outside 2000-2100", timestamp=b"5")
_reject("nul-in-properties", "NUL in properties", properties=b'{"page":"a\\u0000b"}')
_reject("nul-in-name", "NUL in name", name=b'"a\\u0000b"')
_reject("surrogate-in-properties", "a lone surrogate in properties", properties=b'{"p":"\\ud800"}')
_reject("surrogate-in-name", "a lone surrogate in name", name=b'"a\\udfffb"')
_reject("utf8-in-properties", "invalid UTF-8 in properties", properties=b'{"page":"a\xff\xfeb"}')
_reject("utf8-in-name", "invalid UTF-8 in name", name=b'"a\xc3\x28b"')
_reject("huge-number", "1e200000, out of numeric's range", properties=b'{"value":1e200000}')
_reject("nan", "NaN in properties", properties=b'{"value":NaN}')

_ODD_TEXT = "tab\there newline\nreturn\rback\\slash \\N \\. \x08\x0c\x7f \"quoted\" 'single'"
_ODD_PROPERTIES = {"text": _ODD_TEXT, "\\N": "\\."}
_WIDE_TEXT = "naïve – 日本語 😀 \u202eright to left"
_BIG_INTEGER = 123456789012345678901234567890
_EXTRA = {"region": "eu-west", "score": 1.5, "flags": [True, None]}

_store(
    "odd-text", "tabs, newlines, backslashes in text and properties",
    lambda t: replace(t, name=_ODD_TEXT, properties=_ODD_PROPERTIES),
    name=json.dumps(_ODD_TEXT).encode(), properties=json.dumps(_ODD_PROPERTIES).encode(),
)  # fmt: skip
_store("copy-null", r"name \N", lambda t: replace(t, name="\\N"), name=b'"\\\\N"')
_store("copy-end", r"name \.", lambda t: replace(t, name="\\."), name=b'"\\\\."')
_store("empty-name", "name empty, not null", lambda t: replace(t, name=""), name=b'""')
_store(
    "wide-text", "text beyond ASCII, not escaped", lambda t: replace(t, name=_WIDE_TEXT),
    name=json.dumps(_WIDE_TEXT, ensure_ascii=False).encode(),
)  # fmt: skip
_store(
    "big-integer", "a 30-digit integer in properties",
    lambda t: replace(t, properties={"value": _BIG_INTEGER}),
    properties=b'{"value":%d}' % _BIG_INTEGER,
)  # fmt: skip
_store(
    "extra-fields", "fields that the API added", lambda t: replace(t, extra=_EXTRA),
    **{name: json.dumps(value).encode() for name, value in _EXTRA.items()},
)  # fmt: skip
_store(
    "null-columns", "userId, properties and session null",
    lambda t: replace(t, user_id=None, properties=None, session=None),
    userId=b"null", properties=b"null", session=b"null",
)  # fmt: skip
_store(
    "missing-columns", "no name, no type", lambda t: replace(t, name=None, type=None),
    name=b"", type=b"",
)  # fmt: skip
_store("number-name", "name a number", lambda t: replace(t, name="17"), name=b"17")


def _with(truth: Truth, **changes: bytes) -> bytes:
    return _join(_fields(truth) | changes)


@_special("integer-id", "stored", "id an integer")
def _integer_id(truth: Truth) -> BadEvent:
    number = int(truth.id[:8], 16) << 40 | int(truth.id[-10:], 16)
    stored = replace(truth, id=str(number))
    return BadEvent("integer-id", _with(truth, id=b"%d" % number), "stored", stored)


def _iso(instant_us: int) -> str:
    """Give date and time with microseconds, in UTC, without a zone."""
    seconds, micros = divmod(instant_us, 1_000_000)
    moment = dataset.EPOCH + timedelta(
        seconds=seconds - int(dataset.EPOCH.timestamp()), microseconds=micros
    )
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds")


def _timestamp(kind: str, description: str, form: Callable[[int], str]) -> None:
    """Enter a kind with an odd but readable timestamp, 123 µs later than the plain event."""

    def make(truth: Truth) -> BadEvent:
        stored = replace(truth, instant_us=truth.instant_us + 123)
        raw = _with(truth, timestamp=form(stored.instant_us).encode())
        return BadEvent(kind, raw, "stored", stored)

    _special(kind, "stored", description)(make)


_timestamp("timestamp-us", "epoch microseconds", str)
_timestamp("timestamp-ns", "epoch nanoseconds", lambda us: f"{us}999")
_timestamp("timestamp-number-string", "epoch microseconds as a string", lambda us: f'"{us}"')
_timestamp("timestamp-iso-us", "ISO with microseconds", lambda us: f'"{_iso(us)}Z"')
_timestamp("timestamp-iso-ns", "ISO with nanoseconds, cut", lambda us: f'"{_iso(us)}999Z"')
_timestamp("timestamp-no-zone", "ISO without zone: UTC", lambda us: f'"{_iso(us)}"')
_timestamp("timestamp-offset", "ISO with +02:00", lambda us: f'"{_iso(us + 7_200_000_000)}+02:00"')


@_special("not-an-object", "rejected", "a number instead of an object")
def _not_an_object(truth: Truth) -> BadEvent:
    return BadEvent("not-an-object", b"%d" % (truth.instant_us // 1000), "rejected", None)


@_special("null-event", "rejected", "null instead of an object")
def _null_event(truth: Truth) -> BadEvent:
    del truth
    return BadEvent("null-event", b"null", "rejected", None)


@_special("list-event", "rejected", "a list instead of an object")
def _list_event(truth: Truth) -> BadEvent:
    return BadEvent("list-event", b"[" + _join(_fields(truth)) + b"]", "rejected", None)


@_special("oversized-id", "rejected", "an id of 8,000 characters that don't compress")
def _oversized_id(truth: Truth) -> BadEvent:
    noise = hashlib.shake_128(truth.id.encode()).hexdigest(4000)
    return BadEvent("oversized-id", _with(truth, id=b'"%s"' % noise.encode()), "rejected", None)


KINDS["duplicate"] = ("duplicate", "the event before it, once more")
KINDS["changed"] = ("changed", "the id of the event before it, other content")


@dataclass(frozen=True, slots=True)
class BadPlan:
    """Every `each`-th index is bad (the last of each `each`), the kinds in turn."""

    kinds: tuple[str, ...]
    each: int

    def kind_at(self, index: int) -> str | None:
        """Give the kind at `index`, None for a good event."""
        if index % self.each != self.each - 1:
            return None
        return self.kinds[index // self.each % len(self.kinds)]


def make_plan(kind: str = "all", each: int = 100) -> BadPlan:
    """Give the plan of `--fault bad-events:kind=…,each=…`; several kinds are joined by +.

    Raises:
        ValueError: an unknown kind, or `each` below 2.

    """
    kinds = tuple(KINDS) if kind == "all" else tuple(kind.split("+"))
    unknown = [name for name in kinds if name not in KINDS]
    if unknown:
        msg = f"No bad event is called {unknown[0]!r}; --list-faults names them all."
        raise ValueError(msg)
    if each < 2:
        raise ValueError("Fault bad-events: each must be at least 2.")
    return BadPlan(kinds, each)


def bad_event(plan: BadPlan, seed: int, index: int) -> BadEvent | None:
    """Give the bad event at `index` and what becomes of it; None where the event is a good one."""
    kind = plan.kind_at(index)
    if kind is None:
        return None
    if kind == "duplicate":
        before = truth(seed, index - 1)
        raw = event_json(seed, index - 1)
        return BadEvent(kind, raw, "duplicate", before)
    plain = truth(seed, index)
    if kind == "changed":
        before = truth(seed, index - 1)
        return BadEvent(kind, _join(_fields(replace(plain, id=before.id))), "changed", before)
    change = _CHANGES[kind]
    if callable(change):
        return change(plain)
    fields, stored = change
    outcome = KINDS[kind][0]
    raw = _join(_fields(plain) | fields)
    return BadEvent(kind, raw, outcome, stored(plain) if outcome == "stored" else None)


class BadSource(GeneratedEvents):
    """The data set `seed` with the bad events of `plan` laid over it."""

    def __init__(self, seed: int, plan: BadPlan) -> None:
        super().__init__(seed)
        self._plan = plan

    def block(self, number: int) -> list[bytes]:
        """Render one block and put the bad events into it."""
        events = super().block(number)
        first, each = number * self.block_events, self._plan.each
        for position in range(each - 1 - first % each, len(events), each):
            found = bad_event(self._plan, self.seed, first + position)
            if found is not None:
                events[position] = found.raw
        return events


@fault("bad-events", When())
@dataclass(frozen=True)
class BadEvents(Fault):
    """Every `each`-th event of the set is bad or odd: kind=all, or kinds joined by +."""

    needs_generated: ClassVar[bool] = True
    kind: str = "all"
    each: int = 100

    def __post_init__(self) -> None:
        make_plan(self.kind, self.each)

    @classmethod
    def descriptions(cls) -> Iterator[tuple[str, str]]:
        """Give the fault and each kind of bad event."""
        yield from super().descriptions()
        for kind, (outcome, text) in KINDS.items():
            yield f"bad-events:kind={kind}", f"{outcome}: {text}"

    def on_source(self, source: GeneratedEvents) -> GeneratedEvents:
        """Lay the bad events over the data set; of several such faults the last one counts."""
        return BadSource(source.seed, make_plan(self.kind, self.each))
