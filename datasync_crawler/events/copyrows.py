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

from datasync_crawler.events.event import Event

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


def is_plain(body: bytes) -> bool:
    """
    Whether nothing that was decoded from this body can need escaping.

    True when it holds no backslash (then no JSON string can hold a control character either) and no
    tab, newline or carriage return between tokens. Costs a hundredth of
    decoding it.
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
        return _rows(events, stamps, prefix, "\\N")
    # Escaped as a whole where counting shows that no value holds a tab, a newline or the mark that
    # stands for NULL meanwhile: then only backslashes and carriage returns are left to escape.
    # Twice the time of plain rows; row by row it is six times.
    rows = _rows(events, stamps, b"", "\0")
    if (
        rows.count(b"\t") == len(events) * (len(COLUMNS) - 1)
        and rows.count(b"\n") == len(events)
        and rows.count(b"\0") == _count_nulls(events)
    ):
        rows = rows.replace(b"\\", b"\\\\").replace(b"\r", b"\\r").replace(b"\0", b"\\N")
        return prefix + rows[:-1].replace(b"\n", b"\n" + prefix) + b"\n"
    return b"".join(
        [prefix + _escaped_row(event, stamp) for event, stamp in zip(events, stamps, strict=True)]
    )


def _rows(events: Sequence[Event], stamps: list[bytes], prefix: bytes, null: str) -> bytes:
    """
    The rows of values as they are.

    One flat list and one join: no row exists on its own, which saves the page faults of
    5,000 short-lived rows. Of the time this takes, a join per row takes 1.4, `b"%b"` per row 1.7,
    one text encoded at its end 2.
    """
    null_bytes = null.encode()
    parts: list[bytes | msgspec.Raw] = []
    for e, stamp in zip(events, stamps, strict=True):
        parts += (
            prefix,
            (
                f"{e.id}\t"
                f"{null if (session_id := e.session_id) is None else session_id}\t"
                f"{null if (user_id := e.user_id) is None else user_id}\t"
                f"{null if (type_ := e.type) is None else type_}\t"
                f"{null if (name := e.name) is None else name}\t"
            ).encode(),
            null_bytes if (properties := e.properties) is None else properties,
            b"\t",
            stamp,
            b"\t",
            null_bytes if (session := e.session) is None else session,
            b"\t",
            null_bytes if (extra := e.extra) is None else extra,
            b"\n",
        )
    return b"".join(parts)


def _count_nulls(events: Sequence[Event]) -> int:
    return sum(
        (
            [e.session_id for e in events].count(None),
            [e.user_id for e in events].count(None),
            [e.type for e in events].count(None),
            [e.name for e in events].count(None),
            [e.properties for e in events].count(None),
            [e.session for e in events].count(None),
            [e.extra for e in events].count(None),
        )
    )


def _escaped_row(e: Event, stamp: bytes) -> bytes:
    values = [
        None if text is None else text.encode()
        for text in (e.id, e.session_id, e.user_id, e.type, e.name)
    ]
    values += (e.properties, stamp, e.session, e.extra)
    return b"\t".join([b"\\N" if value is None else _escape(value) for value in values]) + b"\n"


def _escape(value: bytes | msgspec.Raw) -> bytes:
    return (
        bytes(value)
        .replace(b"\\", b"\\\\")
        .replace(b"\t", b"\\t")
        .replace(b"\n", b"\\n")
        .replace(b"\r", b"\\r")
    )


def _utc_texts(events: Sequence[Event]) -> list[bytes]:
    """
    Each event's timestamp as 2026-01-27T19:20:12.369000Z.

    PostgreSQL reads that alike under any DateStyle and TimeZone. One encoding of the whole list and
    a split take a tenth of the time of datetime.isoformat.
    """
    stamps = [event.timestamp for event in events]
    try:
        normalised = [stamp.tzinfo for stamp in stamps].count(UTC) == len(stamps)
    except AttributeError:
        normalised = False
    if not normalised:
        raise ValueError("encode takes events whose timestamps are normalised to UTC datetimes")
    return msgspec.json.encode(stamps)[2:-2].split(b'","')
