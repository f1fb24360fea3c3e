"""
One response's bytes decoded into a page: events, rejections, total, cursor and other facts.

Owns the form of a page and the exact bytes of an event that can't be stored. Must not read an
event's fields (fields.py) or timestamp (timestamps.py), do I/O or keep state between pages.

There are three ways, each slower and more tolerant than the one before:
1. one typed decoding of the whole page, for a page of events that all fit;
2. the list cut into raw events by msgspec and decoded event by event, so that a bad event
   doesn't affect the others;
3. the list cut by a scanner of brackets and strings (scan.py), for a page that msgspec refuses
   whole: NaN, a lone surrogate, 1,000 levels of nesting.

When a key occurs twice in an object, the last one wins, in all three.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import msgspec

from datasync_crawler.events import fields, scan
from datasync_crawler.events.copyrows import is_plain
from datasync_crawler.events.event import Event, Rejection
from datasync_crawler.events.paths import UNREADABLE, dig, exact

_BOM = b"\xef\xbb\xbf"
_LARGEST_TOTAL = 10**15
# Most events of a page without a given limit. A body of fewer bytes can't hold as many: the
# shortest event is {"id":"a"}, and the shortest value that isn't one is 1,
_MOST_EVENTS = 1_000_000
_UNCOUNTED_EVENTS = _MOST_EVENTS * len(b'{"id":"a"},')  # bytes
_UNCOUNTED_ITEMS = _MOST_EVENTS * len(b"1,")
# Most lists and objects of a body that takes a slower way: 60 MB of "[" took 29 s. A page of 60 MB
# has one in about a hundred bytes.
_MOST_NESTED = 2_000_000
_UNCOUNTED_FRACTIONS = 4_000_000  # bytes; 112 MB of Decimals if they were all in one list
# A timestamp that is a list or an object, or may be one under an escaped name.
_NESTED = rb'"%s"\s*+:\s*+[\[{]|\\u00'
_LONGEST_NAME = 200  # characters of a requestId
_REFUSALS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
_Path = tuple[str, ...]
# Where APIs put total, cursor and other facts, the likeliest place first.
_TOTALS: Final = (("meta", "total"), ("pagination", "total"), ("total",), ("count",))
_CURSORS: Final = (("pagination", "nextCursor"), ("nextCursor",))
_NEXTS: Final = (("next",), ("links", "next"))
_MORES: Final = (("pagination", "hasMore"), ("hasMore",))
_EXPIRIES: Final = (("pagination", "cursorExpiresIn"), ("cursorExpiresIn",))
_LIMIT: Final = ("pagination", "limit")
_REQUEST_IDS: Final = (("meta", "requestId"), ("requestId",))
_FACTS: Final = (*_TOTALS, *_CURSORS, *_NEXTS, *_MORES, *_EXPIRIES, _LIMIT, *_REQUEST_IDS)


@dataclass(frozen=True, slots=True)
class PageFormat:
    """
    Where an API puts events, total and next page: dotted paths in the body.

    An empty `events_key` means that the body is the list itself; a body that is a list is always
    taken as the list of events. An empty `total_key` or `next_key` means the usual places: top
    level, `meta`, `pagination` or `links`. `id_field` and
    `timestamp_field` name an event's own fields.
    """

    events_key: str = "data"
    total_key: str = ""
    next_key: str = ""
    id_field: str = "id"
    timestamp_field: str = "timestamp"


@dataclass(frozen=True, slots=True)
class WirePage:
    """
    The content of one response.

    `indexes` are the events' indexes in the page, None for 0, 1, 2 … without a gap. `received`
    counts events and rejections. `total`, `limit`, `has_more`, `next_cursor`, `next_url` and
    `request_id` are the API's values, None when missing or unusable; `total_problem` is the reason
    for an unusable total. `next_url` is as served: absolute or relative, perhaps of another origin.
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
    next_url: str | None = None
    cursor_expires_in_s: float | None = None
    request_id: str | None = None
    plain: bool = False


class WireError(Exception):
    """
    Raised by PageDecoder for a body that isn't a page.

    `reason` is a clause for the log, `request_id` the API's id of the request if it sends one.
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
        self._totals = (_path(page_format.total_key),) if page_format.total_key else _TOTALS
        self._next = _path(page_format.next_key)
        names = fields.Names(page_format.id_field, page_format.timestamp_field)
        self._reader = fields.Reader(names)
        self._nested_timestamp = re.compile(_NESTED % re.escape(names.timestamp.encode()))
        self._id_refused, self._timestamp_refused = f".{names.id}`", f".{names.timestamp}`"
        self._strict = self._decoders(names.struct(Event))
        self._fractions = self._decoders(names.struct(fields.FractionEvent))
        self._integer_ids = self._decoders(names.struct(fields.NumberedEvent))
        self._raws = self._decoders(msgspec.Raw)

    def decode(self, body: bytes, most_events: int = _MOST_EVENTS) -> WirePage:
        """
        The page in a response's body, already decompressed.

        A page of more than *most_events* is refused before it is built, because 60 MB of `{},`
        would take 3 GB. Raises WireError, and nothing else, for a body that isn't a page. An empty
        list is a page.
        """
        body = body.removeprefix(_BOM)
        suspicious = _needs_a_look(body)
        if not suspicious and self._may_hold(body, b"{", _UNCOUNTED_EVENTS, most_events):
            try:
                events, facts = self._whole_page(body)
            except _REFUSALS:
                pass  # the slower ways find the event that caused it
            else:
                if len(events) > most_events:
                    raise WireError(scan.too_many(most_events), _request_id(facts))
                return self._page(events, None, [], facts, plain=is_plain(body))
        return self._event_by_event(body, suspicious, most_events)

    def raw_events(self, body: bytes, indexes: Iterable[int]) -> list[bytes]:
        """
        The exact bytes of the events at these positions of a page that `decode` has taken.

        For events rejected later, for their timestamp or by PostgreSQL. Cuts the whole page, so
        pass all indexes in one call.
        """
        raws, _facts = self._cut(body.removeprefix(_BOM), len(body))
        return [bytes(raws[index]) for index in indexes]

    def _may_hold(self, body: bytes, begin: bytes, uncounted: int, most_events: int) -> bool:
        """Whether the list may be built, because it is short or was counted. Raises WireError."""
        if len(body) <= uncounted or body.count(begin) <= _MOST_EVENTS:
            return True
        _refuse_brackets(body)
        counted = scan.count(body, self._events_path, most_events)
        if counted is not None and counted > most_events:
            raise WireError(scan.too_many(most_events))
        return counted is not None

    def _whole_page(self, body: bytes) -> tuple[Sequence[Event], Any]:
        """The first way. Raises one of _REFUSALS for a page that needs another."""
        try:
            events, facts = _run(self._strict, body)
        except msgspec.ValidationError as error:
            events, facts = self._other_page(body, str(error))
        fields.nulls_to_none(events)
        return events, facts

    def _other_page(self, body: bytes, refusal: str) -> tuple[Sequence[Event], Any]:
        """The first way for numeric timestamps with a fraction and for numeric ids."""
        if not refusal.endswith((self._timestamp_refused, self._id_refused)):
            raise msgspec.ValidationError(refusal)
        if len(body) > _UNCOUNTED_FRACTIONS and self._nested_timestamp.search(body):
            raise msgspec.ValidationError("a timestamp that is a list or an object")
        if refusal.endswith(self._timestamp_refused):
            try:
                return _run(self._fractions, body)
            except msgspec.ValidationError:
                pass  # its ids may be numbers, too
        events, facts = _run(self._integer_ids, body)
        return [event.with_text_id() for event in events], facts

    def _event_by_event(
        self,
        body: bytes,
        suspicious: bool,  # noqa: FBT001
        most_events: int,
    ) -> WirePage:
        _refuse_brackets(body)
        raws, facts = self._cut(body, most_events)
        events: list[Event] = []
        indexes: list[int] = []
        rejections: list[Rejection] = []
        for index, raw in enumerate(raws):
            served = bytes(raw)
            event = (fields.unstorable(served) if suspicious else None) or self._reader.read(served)
            if isinstance(event, Event):
                events.append(event)
                indexes.append(index)
            else:
                rejections.append(Rejection.of(index, event, served))
        fields.nulls_to_none(events)
        gaps = indexes if rejections else None
        return self._page(events, gaps, rejections, facts, plain=is_plain(body))

    def _cut(self, body: bytes, most_events: int) -> tuple[Sequence[msgspec.Raw | bytes], Any]:
        """Each event's own bytes, by the second way or else the third."""
        if self._may_hold(body, b",", _UNCOUNTED_ITEMS, most_events):
            try:
                raws, facts = _run(self._raws, body)
            except _REFUSALS:
                pass
            else:
                if len(raws) > most_events:
                    raise WireError(scan.too_many(most_events), _request_id(facts))
                return raws, facts
        try:
            return scan.cut(body, self._events_path, most_events)
        except scan.NotAPage as error:
            raise WireError(error.reason, _request_id(error.facts)) from None

    def _decoders(self, element: Any) -> tuple[Any, Any]:
        """A decoder of a bare list, and one of the envelope, or None when there is none."""
        bare = msgspec.json.Decoder(list[element], float_hook=exact)
        if not self._events_path:
            return bare, None
        envelope = _envelope(element, self._events_path, {*_FACTS, *self._totals, self._next})
        return bare, msgspec.json.Decoder(envelope, float_hook=exact)

    def _page(
        self,
        events: Sequence[Event],
        indexes: list[int] | None,
        rejections: list[Rejection],
        facts: Any,
        *,
        plain: bool,
    ) -> WirePage:
        totals = [_count(dig(facts, path)) for path in self._totals]
        total_problem = next((problem for _, problem in totals if problem), None)
        next_cursor, next_url = self._next_page(facts)
        return WirePage(
            events=list(events) if not isinstance(events, list) else events,
            indexes=indexes,
            rejections=rejections,
            received=len(events) + len(rejections),
            total=next((total for total, _ in totals if total is not None), None),
            total_problem=total_problem and f"the body's total is {total_problem}",
            limit=_count(dig(facts, _LIMIT))[0],
            has_more=_has_more(facts),
            next_cursor=next_cursor,
            next_url=next_url,
            cursor_expires_in_s=_seconds(facts),
            request_id=_request_id(facts),
            plain=plain,
        )

    def _next_page(self, facts: Any) -> tuple[str | None, str | None]:
        """Cursor and URL of the next page. A value in a link's place may be a cursor, too."""
        cursor = url = None
        for path in (self._next,) if self._next else (*_CURSORS, *_NEXTS):
            said = dig(facts, path)
            if said is UNREADABLE:  # ignored, it would look like the end of the data
                raise WireError(f'"{".".join(path)}" can\'t be read', _request_id(facts))
            text = _text(said)
            if text and path not in _CURSORS and _is_url(text):
                url = url or text
            elif path not in _NEXTS or isinstance(said, str):
                cursor = cursor or text
        return cursor, url


def _path(dotted: str) -> _Path:
    return tuple(dotted.split(".")) if dotted else ()


def _envelope(element: Any, events_path: _Path, facts: set[_Path]) -> Any:
    """
    A Struct type for the path down to the list.

    Only that path is typed. The facts beside it stay bytes, so that a `meta` of any shape or size
    costs no event and no memory.
    """
    key, *rest = events_path
    names = sorted({path[0] for path in facts if path} - {key})
    deeper = {path[1:] for path in facts if path[:1] == (key,)}
    inner = _envelope(element, tuple(rest), deeper) if rest else list[element]
    fields_of_names = {f"fact{number}": name for number, name in enumerate(names)}
    return msgspec.defstruct(
        "Envelope",
        [("events", inner), *((field, msgspec.Raw, None) for field in fields_of_names)],
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


def _refuse_brackets(body: bytes) -> None:
    """Raises WireError for a body of more lists and objects than are looked through in a second."""
    if len(body) > _MOST_NESTED and body.count(b"[") + body.count(b"{") > _MOST_NESTED:
        raise WireError(f"the body holds more than {_MOST_NESTED:,} lists and objects")


def _needs_a_look(body: bytes) -> bool:
    """Whether it may hold what msgspec accepts inside Raw and PostgreSQL can't store."""
    if b"\\" in body and b"\\u0000" in body:
        return True
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            return True
    return False


def _count(value: object) -> tuple[int | None, str | None]:
    """A whole number from 0, or None with the reason why it is unusable."""
    if value is None:
        return None, None
    if isinstance(value, str) and len(value) <= 16 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None, "not a whole number"
    if value < 0:
        return None, "negative"
    if value > _LARGEST_TOTAL:
        return None, f"beyond {_LARGEST_TOTAL:,}"
    if value != value // 1:  # NaN, too
        return None, "not a whole number"
    return int(value), None


def _has_more(facts: Any) -> bool | None:
    values = (dig(facts, path) for path in _MORES)
    return next((value for value in values if isinstance(value, bool)), None)


def _text(value: object) -> str | None:
    """Text as it is, a number in decimal; None for "" and for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    return str(value) or None


def _is_url(text: str) -> bool:
    """Whether it is an address or a query, not a cursor: base64 has a slash, but no "?"."""
    return "?" in text or text.startswith(("http://", "https://"))


def _seconds(facts: Any) -> float | None:
    for path in _EXPIRIES:
        value = dig(facts, path)
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            return float(value) if 0 <= value < _LARGEST_TOTAL else None
    return None


def _request_id(facts: object) -> str | None:
    """The API's id of the request, if it is safe to log: printable and short."""
    said = next(filter(None, (_text(dig(facts, path)) for path in _REQUEST_IDS)), None)
    return said if said and said.isprintable() and len(said) <= _LONGEST_NAME else None
