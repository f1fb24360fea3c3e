"""
The rules for one event's fields, with those that have no column.

Must not interpret timestamps (timestamps.py) or know pages (decoding.py).
"""

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from datasync_crawler.events import scan
from datasync_crawler.events.event import Event, SomeText
from datasync_crawler.events.paths import exact

_NULL = msgspec.Raw(b"null")
_COLUMN_OF_TEXT = {
    "sessionId": "session_id",
    "userId": "user_id",
    "type": "type",
    "name": "name",
}
#: Largest event that is decoded as a whole, in bytes: its timestamp can hold 16,000 numbers.
_MOST_AT_ONCE = 65_536
#: Most fields of a larger event. A field of five bytes takes 20 times that in memory.
_MOST_FIELDS = 10_000
_OPENING = frozenset(b"[{")
_NESTED = (list, dict)  # `list | dict` would be built again for each event
_INTEGER = re.compile(rb"-?[0-9]+")
# An escaped NUL: \u0000 after an even number of backslashes.
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*+\\u0000")


class NumberedEvent(Event):
    """An event of a server that numbers its events (json-server)."""

    id: SomeText | int  # type: ignore[assignment]
    timestamp: Any = None

    def with_text_id(self) -> Event:
        """The same event with its id as text."""
        event_id, *values = msgspec.structs.astuple(self)
        return Event(str(event_id), *values)


class FractionEvent(Event):
    """An event of a server whose timestamps are numbers with a fraction, as Decimals."""

    timestamp: Any = None


class _RoomyEvent(Event, forbid_unknown_fields=False):
    """An event whose unknown fields are read separately."""

    timestamp: Any = None


def unstorable(served: bytes) -> str | None:
    """The reason why PostgreSQL can't store what msgspec accepts inside Raw, or None."""
    if _ESCAPED_NUL.search(served):
        return "event: holds \\u0000, which PostgreSQL can't store"
    try:
        served.decode()
    except UnicodeDecodeError:
        return "event: invalid UTF-8"
    return None


def nulls_to_none(events: list[Event]) -> None:
    """
    Turns a JSON null in `properties` and `session` into None.

    Two list searches take a fifth of the time of one search for "null" in the body.
    """
    if _NULL in [event.properties for event in events]:
        for event in events:
            event.properties = _json(event.properties)
    if _NULL in [event.session for event in events]:
        for event in events:
            event.session = _json(event.session)


@dataclass(frozen=True, slots=True)
class Names:
    """What a server calls an event's id and its time."""

    id: str = "id"
    timestamp: str = "timestamp"

    @property
    def known(self) -> frozenset[str]:
        """Fields that have a column."""
        return frozenset((self.id, "properties", self.timestamp, "session", *_COLUMN_OF_TEXT))

    def struct(self, event: type[Event]) -> Any:
        """*event* with these names on the wire: itself where they are the usual ones."""
        if self == Names():
            return event
        own = msgspec.structs.fields(event)
        renamed = {"id": self.id, "timestamp": self.timestamp}
        return msgspec.defstruct(
            event.__name__,
            [
                (one.name, one.type, *([] if one.required else [one.default]))
                for one in own
                if one.name in {*renamed, "session_id", "user_id"}
            ],
            bases=(event,),
            rename={"session_id": "sessionId", "user_id": "userId", **renamed},
            gc=False,
        )


class Reader:
    """Reads events one by one, of a server with these names."""

    def __init__(self, names: Names) -> None:
        self._names, self._known = names, names.known
        self._roomy = msgspec.json.Decoder(names.struct(_RoomyEvent), float_hook=exact)

    def read(self, served: bytes) -> Event | str:
        """
        The event in these bytes, or the reason why it can't be stored.

        Takes five times as long as an event of a page that fits, and twelve times for one with a
        field of another type, such as a number as name. A JSON null may remain (nulls_to_none).
        """
        large = len(served) > _MOST_AT_ONCE
        if large and not scan.has_at_most(served, _MOST_FIELDS):
            return f"event: more than {_MOST_FIELDS:,} fields"
        try:
            fields = _FIELDS.decode(served)
            try:
                roomy = None if large else self._roomy.decode(served)
            except msgspec.ValidationError:
                roomy = None
            if roomy is None:
                return self._from_fields(fields)
        except RecursionError:
            return "event: nested too deeply"
        except msgspec.ValidationError:
            return "event: not an object"
        except msgspec.DecodeError:
            return "event: not valid JSON (NaN, Infinity, a lone surrogate or worse)"
        if isinstance(roomy.timestamp, _NESTED):
            roomy.timestamp = ()  # rejected as a timestamp, and holds nothing
        event = Event(*msgspec.structs.astuple(roomy))
        if not fields.keys() <= self._known:
            event.extra = _object({key: fields[key] for key in fields if key not in self._known})
        return event

    def _from_fields(self, fields: dict[str, msgspec.Raw]) -> Event | str:
        event_id = _id(fields.pop(self._names.id, None))
        if isinstance(event_id, _Unusable):
            return event_id.reason
        timestamp = fields.pop(self._names.timestamp, _NULL)
        try:
            instant = () if _is_nested(timestamp) else _ANYTHING.decode(timestamp)
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


def _is_nested(raw: msgspec.Raw) -> bool:
    """Whether it is a list or an object: no timestamp, and perhaps huge."""
    return memoryview(raw)[0] in _OPENING


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


def _json(raw: msgspec.Raw | None) -> msgspec.Raw | None:
    return None if raw == _NULL else raw


def _column_text(raw: msgspec.Raw) -> str | None:
    """Text as it is, null as None, anything else as its JSON text."""
    served = bytes(raw)
    if served == b"null":
        return None
    return _STRING.decode(served) if served[:1] == b'"' else served.decode()


def _object(fields: dict[str, msgspec.Raw]) -> msgspec.Raw:
    """A JSON object of values as they were served."""
    return msgspec.Raw(msgspec.json.encode(fields))


_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANYTHING = msgspec.json.Decoder(float_hook=exact)
_STRING = msgspec.json.Decoder(str)
