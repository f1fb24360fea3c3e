"""
The bytes of one response as a page: events, rejections, and what the server says about the rest.

Owns what a page looks like on the wire and the exact bytes of an event that cannot be stored. Must
not look into an event (fields.py) or at its instant (timestamps.py), ask for anything or keep state
between pages.

There are three roads, each slower and harder to stop than the one before:
1. one typed decoding of the whole page, for a page of events that all fit;
2. the list cut into raw events by msgspec and decoded event by event, so that one that doesn't fit
   costs itself alone;
3. the list cut by a scanner of brackets and strings (scan.py), for a page that msgspec refuses
   whole: NaN, a lone surrogate, 1,000 levels of nesting.

Where a key comes twice in an object, the last one wins, on every road.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from datasync_crawler.core import fields, scan
from datasync_crawler.core.copyrows import is_plain
from datasync_crawler.core.events import Event, Rejection

_BOM = b"\xef\xbb\xbf"
_LARGEST_TOTAL = 10**15
_LONGEST_NAME = 200  # characters of a requestId
_FACTS = frozenset(("pagination", "meta", "requestId"))  # of a body's top level
_REFUSALS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class PageFormat:
    """
    Where a server puts things: dotted paths in the body, empty for a body that is the list itself.

    A body that is a list is taken as the list of events whatever the paths say.
    """

    events_key: str = "data"
    total_key: str = "meta.total"


@dataclass(frozen=True, slots=True)
class WirePage:
    """
    What one response holds.

    `indexes` are the events' positions in the page, None for 0, 1, 2 … without a gap. `received`
    counts events and rejections. `total`, `limit`, `has_more`, `next_cursor` and `request_id` are
    the server's words, None when it says nothing usable; `total_problem` says why a total was not.
    `plain`: no value can need escaping in COPY (copyrows.encode).
    """

    events: list[Event]
    indexes: Sequence[int] | None
    rejections: list[Rejection]
    received: int
    total: int | None = None
    total_problem: str | None = None
    limit: int | None = None
    has_more: bool | None = None
    next_cursor: str | None = None
    cursor_expires_in_s: float | None = None
    request_id: str | None = None
    plain: bool = False


class WireError(Exception):
    """
    A body that is no page, raised by PageDecoder.

    `reason` is a sentence for the log, `request_id` the API's own name of the request, if it says
    one.
    """

    def __init__(self, reason: str, request_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.request_id = request_id


class PageDecoder:
    """Reads the bodies of one server. Holds no state between pages; threads may share it."""

    def __init__(self, page_format: PageFormat | None = None) -> None:
        page_format = page_format or PageFormat()
        self._events_path = _path(page_format.events_key)
        self._total_path = _path(page_format.total_key)
        self._strict = self._decoders(Event)
        self._integer_ids = self._decoders(fields.NumberedEvent)
        self._raws = self._decoders(msgspec.Raw)

    def decode(self, body: bytes) -> WirePage:
        """
        The page in a response's body, already decompressed.

        Raises WireError, and nothing else, for a body that is no page. A list without an event is
        a page.
        """
        body = body.removeprefix(_BOM)
        suspicious = _needs_a_look(body)
        if not suspicious:
            try:
                events, facts = self._whole_page(body)
            except _REFUSALS:
                pass  # the slower roads find out which event it is
            else:
                return _page(events, None, [], facts, self._total_path, plain=is_plain(body))
        return self._event_by_event(body, suspicious)

    def raw_events(self, body: bytes, indexes: Iterable[int]) -> list[bytes]:
        """
        The exact bytes of the events at these positions of a page that `decode` has taken.

        For events found wanting later, by their timestamp or by PostgreSQL. Cuts the whole page,
        so ask once for all of them.
        """
        raws, _facts = self._cut(body.removeprefix(_BOM))
        return [bytes(raws[index]) for index in indexes]

    def raw_event(self, body: bytes, index: int) -> bytes:
        """The exact bytes of one event: see raw_events."""
        return self.raw_events(body, [index])[0]

    def _whole_page(self, body: bytes) -> tuple[list[Event], dict[str, Any]]:
        """The first road. Raises one of _REFUSALS for a page that has to take another."""
        try:
            events, facts = _run(self._strict, body)
        except msgspec.ValidationError:
            events, facts = _run(self._integer_ids, body)
            events = [event.with_text_id() for event in events]
        fields.nulls_to_none(events)
        return events, facts

    def _event_by_event(self, body: bytes, suspicious: bool) -> WirePage:  # noqa: FBT001
        raws, facts = self._cut(body)
        events: list[Event] = []
        indexes: list[int] = []
        rejections: list[Rejection] = []
        for index, raw in enumerate(raws):
            served = bytes(raw)
            event = (fields.unstorable(served) if suspicious else None) or fields.read(served)
            if isinstance(event, Event):
                events.append(event)
                indexes.append(index)
            else:
                rejections.append(Rejection(index, event, served))
        fields.nulls_to_none(events)
        gaps = indexes if rejections else None
        return _page(events, gaps, rejections, facts, self._total_path, plain=is_plain(body))

    def _cut(self, body: bytes) -> tuple[Sequence[msgspec.Raw | bytes], dict[str, Any]]:
        """Each event's own bytes, by the second road or else the third."""
        try:
            return _run(self._raws, body)
        except _REFUSALS:
            pass
        try:
            return scan.cut(body, self._events_path)
        except scan.NotAPage as error:
            raise WireError(error.reason, _request_id(error.facts)) from None

    def _decoders(self, element: Any) -> tuple[Any, Any]:
        """A decoder of a bare list, and one of the envelope, or None when there is none."""
        bare = msgspec.json.Decoder(list[element], float_hook=fields.exact)
        if not self._events_path:
            return bare, None
        envelope = _envelope(element, self._events_path, self._total_path)
        return bare, msgspec.json.Decoder(envelope, float_hook=fields.exact)


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(dotted.split(".")) if dotted else ()


def _envelope(
    element: Any,
    events_path: tuple[str, ...],
    total_path: tuple[str, ...],
    beside: frozenset[str] = _FACTS,
) -> Any:
    """
    A Struct type for the way down to the list.

    Only that way is typed. What stands beside it and says something about the page is taken as it
    comes, so that a `meta` of an unheard-of shape costs no event.
    """
    key, *rest = events_path
    names = sorted({*beside, *total_path[:1]} - {key})
    deeper = total_path[1:] if total_path[:1] == (key,) else ()
    inner = _envelope(element, tuple(rest), deeper, frozenset()) if rest else list[element]
    fields_of_names = {f"fact{number}": name for number, name in enumerate(names)}
    return msgspec.defstruct(
        "Envelope",
        [("events", inner), *((field, Any, None) for field in fields_of_names)],
        rename={"events": key, **fields_of_names},
    )


def _run(decoders: tuple[Any, Any], body: bytes) -> tuple[Any, dict[str, Any]]:
    """The list, and the facts beside it as nested dicts."""
    bare, envelope = decoders
    if envelope is None or body[:64].lstrip()[:1] == b"[":
        return bare.decode(body), {}
    return _unwrap(envelope.decode(body))


def _unwrap(node: Any) -> tuple[Any, dict[str, Any]]:
    if not isinstance(node, msgspec.Struct):
        return node, {}
    key, *beside = (field.encode_name for field in msgspec.structs.fields(node))
    inner, *values = msgspec.structs.astuple(node)
    events, deeper = _unwrap(inner)
    return events, {key: deeper, **dict(zip(beside, values, strict=True))}


def _page(
    events: list[Event],
    indexes: list[int] | None,
    rejections: list[Rejection],
    facts: dict[str, Any],
    total_path: tuple[str, ...],
    *,
    plain: bool,
) -> WirePage:
    total, total_problem = _count(_dig(facts, total_path))
    has_more = _dig(facts, ("pagination", "hasMore"))
    return WirePage(
        events=events,
        indexes=indexes,
        rejections=rejections,
        received=len(events) + len(rejections),
        total=total,
        total_problem=total_problem and f"the body's total is {total_problem}",
        limit=_count(_dig(facts, ("pagination", "limit")))[0],
        has_more=has_more if isinstance(has_more, bool) else None,
        next_cursor=_text(_dig(facts, ("pagination", "nextCursor"))),
        cursor_expires_in_s=_seconds(_dig(facts, ("pagination", "cursorExpiresIn"))),
        request_id=_request_id(facts),
        plain=plain,
    )


def _needs_a_look(body: bytes) -> bool:
    """Whether it may hold what msgspec lets pass inside Raw and PostgreSQL has no place for."""
    if b"\\" in body and b"\\u0000" in body:
        return True
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            return True
    return False


def _dig(facts: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        facts = facts.get(key) if isinstance(facts, dict) else None
    return facts if path else None


def _count(value: object) -> tuple[int | None, str | None]:
    """A whole number from 0, or None with what makes this no word to go by."""
    if value is None:
        return None, None
    if isinstance(value, str) and len(value) <= 16 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None, "not a whole number"
    if value < 0:
        return None, "negative"
    if value > _LARGEST_TOTAL:
        return None, f"beyond {_LARGEST_TOTAL:,}"
    return value, None


def _text(value: object) -> str | None:
    """Text as it is, a number in decimal; None for "" and for what has no such form."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    return str(value) or None


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    return float(value) if 0 <= value < _LARGEST_TOTAL else None


def _request_id(facts: dict[str, Any]) -> str | None:
    """For the log, where it must not write lines or control sequences of its own."""
    said = _text(_dig(facts, ("meta", "requestId"))) or _text(_dig(facts, ("requestId",)))
    return said if said and said.isprintable() and len(said) <= _LONGEST_NAME else None
