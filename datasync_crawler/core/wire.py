r"""
The bytes of one response as a page: events, rejections, and what the server says about the rest.

Owns what a page looks like on the wire, what an event's fields may be, and the exact bytes of an
event that cannot be stored. Must not look at timestamps (timestamps.py), ask for anything or keep
state between pages.

There are three roads, each slower and harder to stop than the one before:
1. one typed decoding of the whole page, for a page of events that all fit;
2. the list cut into raw events by msgspec and decoded event by event, so that one that doesn't fit
   costs itself alone;
3. the list cut by a scanner of brackets and strings (scan.py), for a page that msgspec refuses
   whole: NaN, a lone surrogate, 1,000 levels of nesting.

Where a key comes twice in an object, the last one wins, on every road.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import msgspec

from datasync_crawler.core import scan
from datasync_crawler.core.copyrows import is_plain
from datasync_crawler.core.events import Event, Rejection

_BOM = b"\xef\xbb\xbf"
_NULL = msgspec.Raw(b"null")
_LARGEST_TOTAL = 10**15
_REFUSALS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
_COLUMN_OF_TEXT = {
    "sessionId": "session_id",
    "userId": "user_id",
    "type": "type",
    "name": "name",
}
_INTEGER = re.compile(rb"-?[0-9]+")
# An escaped NUL: \u0000 after an even number of backslashes. PostgreSQL has no such character.
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*+\\u0000")


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


_SomeText = Annotated[str, msgspec.Meta(min_length=1)]
# The type of nothing: no JSON value passes. An API's own field "extra" takes the second road and
# ends inside our column of that name, like any other field without a column.
_Nothing = Annotated[str, msgspec.Meta(min_length=1, max_length=0)]


class _StrictEvent(Event):
    """The event of the first road. What it refuses, it refuses while decoding, at no cost."""

    id: _SomeText
    extra: _Nothing = None  # type: ignore[assignment]


class _IntegerIdEvent(Event):
    """The event of servers that number their events (json-server)."""

    id: _SomeText | int  # type: ignore[assignment]
    extra: _Nothing = None  # type: ignore[assignment]


class PageDecoder:
    """Reads the bodies of one server. Holds no state between pages; threads may share it."""

    def __init__(self, page_format: PageFormat | None = None) -> None:
        page_format = page_format or PageFormat()
        self._events_path = _path(page_format.events_key)
        self._total_path = _path(page_format.total_key)
        self._strict = self._decoders(_StrictEvent)
        self._integer_ids = self._decoders(_IntegerIdEvent)
        self._raws = self._decoders(msgspec.Raw)

    def decode(self, body: bytes) -> WirePage:
        """
        The page in a response's body, already decompressed.

        Raises WireError, and nothing else, for a body that is no page. A list without an event is
        a page.
        """
        body = body.removeprefix(_BOM)
        try:
            events, facts = self._whole_page(body)
        except _REFUSALS:
            return self._event_by_event(body)
        return self._page(events, None, [], facts, plain=is_plain(body))

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
        if b"\\" in body and b"\\u0000" in body:
            raise msgspec.ValidationError("a NUL, in one of the events")
        if not body.isascii():
            body.decode()  # msgspec lets invalid UTF-8 pass inside Raw, PostgreSQL doesn't
        try:
            events, facts = _run(self._strict, body)
        except msgspec.ValidationError:
            events, facts = _run(self._integer_ids, body)
            for event in events:
                event.id = str(event.id)
        if _NULL in [event.properties for event in events]:
            for event in events:
                event.properties = None if event.properties == _NULL else event.properties
        if _NULL in [event.session for event in events]:
            for event in events:
                event.session = None if event.session == _NULL else event.session
        return events, facts

    def _event_by_event(self, body: bytes) -> WirePage:
        raws, facts = self._cut(body)
        events: list[Event] = []
        indexes: list[int] = []
        rejections: list[Rejection] = []
        for index, raw in enumerate(raws):
            event = _event(raw)
            if isinstance(event, Event):
                events.append(event)
                indexes.append(index)
            else:
                rejections.append(Rejection(index, event, bytes(raw)))
        gaps = indexes if rejections else None
        return self._page(events, gaps, rejections, facts, plain=is_plain(body))

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

    def _page(
        self,
        events: list[Event],
        indexes: list[int] | None,
        rejections: list[Rejection],
        facts: dict[str, Any],
        *,
        plain: bool,
    ) -> WirePage:
        total, total_problem = _total(_dig(facts, self._total_path))
        pagination = facts.get("pagination")
        pagination = pagination if isinstance(pagination, dict) else {}
        has_more = pagination.get("hasMore")
        return WirePage(
            events=events,
            indexes=indexes,
            rejections=rejections,
            received=len(events) + len(rejections),
            total=total,
            total_problem=total_problem,
            limit=_total(pagination.get("limit"))[0],
            has_more=has_more if isinstance(has_more, bool) else None,
            next_cursor=_text(pagination.get("nextCursor")),
            cursor_expires_in_s=_seconds(pagination.get("cursorExpiresIn")),
            request_id=_request_id(facts),
            plain=plain,
        )

    def _decoders(self, element: Any) -> tuple[Any, Any]:
        """A decoder of a bare list, and one of the envelope, or None when there is none."""
        bare = msgspec.json.Decoder(list[element], float_hook=_exact)
        if not self._events_path:
            return bare, None
        envelope = _envelope(element, self._events_path, self._total_path)
        return bare, msgspec.json.Decoder(envelope, float_hook=_exact)


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(dotted.split(".")) if dotted else ()


def _envelope(element: Any, events_path: tuple[str, ...], total_path: tuple[str, ...]) -> Any:
    """
    A Struct type for the way down to the list.

    Only that way is typed. What stands beside it on the way and says something about the page is
    taken as it comes, so that a `meta` of an unheard-of shape costs no event.
    """
    key, *rest = events_path
    beside = {"pagination", "meta", "requestId", *total_path[:1]} - {key}
    deeper = total_path[1:] if total_path[:1] == (key,) else ()
    inner = _envelope(element, tuple(rest), deeper) if rest else list[element]
    names = {f"fact{number}": name for number, name in enumerate(sorted(beside))}
    return msgspec.defstruct(
        "Envelope",
        [("events", inner), *((field, Any, None) for field in names)],
        rename={"events": key, **names},
    )


def _run(decoders: tuple[Any, Any], body: bytes) -> tuple[Any, dict[str, Any]]:
    """The list, and the facts beside it as nested dicts."""
    bare, envelope = decoders
    if envelope is None or body[:1] == b"[" or body[:64].lstrip()[:1] == b"[":
        return bare.decode(body), {}
    node = envelope.decode(body)
    facts: dict[str, Any] = {}
    level = facts
    while isinstance(node, msgspec.Struct):
        key, *beside = (field.encode_name for field in msgspec.structs.fields(node))
        inner, *values = msgspec.structs.astuple(node)
        level.update(zip(beside, values, strict=True))
        level[key] = level = {}
        node = inner
    return node, facts


def _event(raw: msgspec.Raw | bytes) -> Event | str:
    """The event in these bytes, or the reason why it cannot be stored."""
    served = bytes(raw)
    try:
        if not served.isascii():
            served.decode()
        if b"\\u0000" in served and _ESCAPED_NUL.search(served):
            return "event: holds \\u0000, a character that PostgreSQL has not"
        return _from_fields(_FIELDS.decode(served))
    except UnicodeDecodeError:
        return "event: invalid UTF-8"
    except RecursionError:
        return "event: nested too deeply"
    except msgspec.ValidationError:
        return "event: not an object"
    except msgspec.DecodeError:
        return "event: not valid JSON (NaN, Infinity, a lone surrogate or worse)"


def _from_fields(fields: dict[str, msgspec.Raw]) -> Event | str:
    event_id = _id(fields.pop("id", None))
    if isinstance(event_id, _Unusable):
        return event_id.reason
    timestamp = fields.pop("timestamp", _NULL)
    try:
        instant = _ANYTHING.decode(timestamp)
    except msgspec.ValidationError:
        return "timestamp: a number of too many digits"
    return Event(
        id=event_id,
        properties=_json(fields.pop("properties", _NULL)),
        timestamp=instant,
        session=_json(fields.pop("session", _NULL)),
        **{
            column: _column_text(fields.pop(name, _NULL))
            for name, column in _COLUMN_OF_TEXT.items()
        },
        extra=_object(fields) if fields else None,
    )


@dataclass(frozen=True, slots=True)
class _Unusable:
    reason: str


def _id(raw: msgspec.Raw | None) -> str | _Unusable:
    if raw is None:
        return _Unusable("id: missing")
    served = bytes(raw)
    if served == b"null":
        return _Unusable("id: null")
    if served[:1] == b'"':
        return _STRING.decode(served) or _Unusable("id: empty")
    if _INTEGER.fullmatch(served):
        return served.decode() if served != b"-0" else "0"
    return _Unusable("id: neither text nor an integer")


def _json(raw: msgspec.Raw) -> msgspec.Raw | None:
    return None if raw == _NULL else raw


def _column_text(raw: msgspec.Raw) -> str | None:
    """Text as it is, null as None, anything else as its JSON text."""
    served = bytes(raw)
    if served == b"null":
        return None
    return _STRING.decode(served) if served[:1] == b'"' else served.decode()


def _object(fields: dict[str, msgspec.Raw]) -> msgspec.Raw:
    """A JSON object of values that stay as they were served."""
    return msgspec.Raw(msgspec.json.encode(fields))


def _dig(facts: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        facts = facts.get(key) if isinstance(facts, dict) else None
    return facts if path else None


def _total(value: object) -> tuple[int | None, str | None]:
    """A count, or None with the reason why this is no word to go by."""
    if value is None:
        return None, None
    if isinstance(value, str) and len(value) <= 16 and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None, f"the body's total is {_kind(value)}, not a whole number"
    if value < 0:
        return None, "the body's total is negative"
    if value > _LARGEST_TOTAL:
        return None, f"the body's total is beyond {_LARGEST_TOTAL:,}"
    return value, None


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, Decimal | float):
        return "a fraction or no number at all"
    return "text" if isinstance(value, str) else "a list or an object"


def _text(value: object) -> str | None:
    """Text as it is, other values as their JSON text; None and "" are no cursor."""
    if value is None or isinstance(value, str):
        return value or None
    return msgspec.json.encode(value).decode()


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    return float(value) if 0 <= value < _LARGEST_TOTAL else None


def _request_id(facts: dict[str, Any]) -> str | None:
    return _text(_dig(facts, ("meta", "requestId"))) or _text(facts.get("requestId"))


def _exact(number: str) -> Decimal | float:
    """A JSON number with a fraction or exponent, as it was written."""
    try:
        return Decimal(number)
    except InvalidOperation:  # an exponent of 20 digits: 0.0 or infinity serve as well
        return float(number)


_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANYTHING = msgspec.json.Decoder(float_hook=_exact)
_STRING = msgspec.json.Decoder(str)
