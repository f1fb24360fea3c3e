r"""
Events as the bytes of PostgreSQL's COPY text format.

Owns escaping and column order. Must not use a connection. The format is that of PostgreSQL's
documentation of COPY, "Text Format": fields separated by tabs, rows ended by a newline, NULL as
\N, and backslash, tab, newline and carriage return inside a value escaped by a backslash. The
bytes are UTF-8, so the connection's client_encoding must be UTF8.
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
    Whether no value decoded from this body can need escaping.

    True when the body holds no backslash (so that no JSON string holds a control character), tab,
    newline or carriage return. Takes a hundredth of the time of decoding it.
    """
    return not (b"\\" in body or b"\n" in body or b"\t" in body or b"\r" in body)


def encode(events: Sequence[Event], *, plain: bool = False, prefix: bytes = b"") -> bytes:
    r"""
    The rows of normalised events, in the order of COLUMNS, ready for COPY … FROM STDIN.

    `plain`: no value needs escaping (is_plain of the body, for events with unchanged values).
    `prefix` goes before each row: leading columns with the same value in all rows, such as b"3\t".
    Raises ValueError for an event whose timestamp isn't an aware UTC datetime.
    """
    if not events:
        return b""
    stamps = _utc_texts(events)
    if plain:
        return _rows(events, stamps, prefix, "\\N")
    # When counting shows that no value holds a tab, a newline or the mark for NULL, backslashes and
    # carriage returns are escaped in all rows at once. That takes twice the time of plain rows;
    # row by row takes six times.
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
    The rows without escaping.

    One flat list and one join save the page faults of 5,000 short-lived rows. Compared with this, a
    join per row takes 1.4 times as long, `b"%b"` per row 1.7 times, and one text encoded at the end
    twice.
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

    PostgreSQL reads that the same under any DateStyle and TimeZone. Encoding the whole list and
    splitting it takes a tenth of the time of datetime.isoformat.
    """
    stamps = [event.timestamp for event in events]
    try:
        normalised = [stamp.tzinfo for stamp in stamps].count(UTC) == len(stamps)
    except AttributeError:
        normalised = False
    if not normalised:
        raise ValueError("encode takes events whose timestamps are normalised to UTC datetimes")
    return msgspec.json.encode(stamps)[2:-2].split(b'","')
