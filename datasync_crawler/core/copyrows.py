r"""
Events as the bytes of PostgreSQL's COPY text format.

Owns escaping and column order. Knows no connection and no table but its columns' names. The format
is PostgreSQL's documentation of COPY, "Text Format": fields apart by a tab, rows ended by a
newline, NULL as \N, and backslash, tab, newline and carriage return inside a value escaped by a
backslash. The bytes are UTF-8, whatever the database's own encoding: the connection's
client_encoding must be UTF8.
"""

from collections.abc import Sequence
from datetime import UTC

import msgspec

from datasync_crawler.core.events import Event

COLUMNS = (
    "id",
    "session_id",
    "user_id",
    "type",
    "name",
    "properties",
    "timestamp",
    "session",
    "extra",
)

_NULL = b"\\N"


def is_plain(body: bytes) -> bool:
    """
    Whether nothing that was decoded from this body can need escaping.

    True when it holds no backslash (then no JSON string can hold a control character either) and no
    tab, newline or carriage return between tokens. Costs 0.01 µs an event, and saves `encode` from
    looking at each row.
    """
    return not (b"\\" in body or b"\n" in body or b"\t" in body or b"\r" in body)


def encode(events: Sequence[Event], *, plain: bool = False, prefix: bytes = b"") -> bytes:
    r"""
    The rows of normalised events, in the order of COLUMNS, ready for COPY … FROM STDIN.

    `plain` promises that no value needs escaping (is_plain of the body that they came from, for
    events whose values nobody changed). `prefix` stands before each row: leading columns that are
    the same for all, each with its tab, such as b"3\t". Raises ValueError for an event whose
    timestamp is not an aware UTC datetime.
    """
    if not events:
        return b""
    stamps = _utc_texts(events)
    if plain:
        try:
            return _encode_plain(events, stamps, prefix)
        except TypeError:
            pass  # a None somewhere: join takes none, and to ask each value costs a third more
    return b"".join(
        [_row(event, stamp, prefix, plain) for event, stamp in zip(events, stamps, strict=True)]
    )


def _encode_plain(events: Sequence[Event], stamps: list[bytes], prefix: bytes) -> bytes:
    """The rows of events that have every value but `extra`; TypeError when one lacks another."""
    if any([event.extra for event in events]):  # noqa: C419 - a list is twice as fast here
        raise TypeError
    join = b"\t".join
    text_join = "\t".join
    rows = [
        join(
            (
                text_join((e.id, e.session_id, e.user_id, e.type, e.name)).encode(),  # type: ignore[arg-type]
                e.properties,
                stamp,
                e.session,
            )
        )
        for e, stamp in zip(events, stamps, strict=True)
    ]
    return prefix + (b"\t\\N\n" + prefix).join(rows) + b"\t\\N\n"


def _row(event: Event, stamp: bytes, prefix: bytes, plain: bool) -> bytes:  # noqa: FBT001
    texts = (event.id, event.session_id, event.user_id, event.type, event.name)
    values = [None if text is None else text.encode() for text in texts]
    values += (event.properties, stamp, event.session, event.extra)
    if not plain:
        values = [None if value is None else _escape(bytes(value)) for value in values]
    return prefix + b"\t".join([_NULL if value is None else value for value in values]) + b"\n"


def _escape(value: bytes) -> bytes:
    return (
        value.replace(b"\\", b"\\\\")
        .replace(b"\t", b"\\t")
        .replace(b"\n", b"\\n")
        .replace(b"\r", b"\\r")
    )


def _utc_texts(events: Sequence[Event]) -> list[bytes]:
    """
    Each event's timestamp as 2026-01-27T19:20:12.369000Z.

    PostgreSQL reads that alike under any DateStyle and TimeZone. One encoding of the whole list and
    a split cost 0.04 µs an event, datetime.isoformat 0.68 µs.
    """
    stamps = [event.timestamp for event in events]
    if [stamp for stamp in stamps if getattr(stamp, "tzinfo", None) is not UTC]:
        raise ValueError("encode takes events whose timestamps are normalised to UTC datetimes")
    return msgspec.json.encode(stamps)[2:-2].split(b'","')
