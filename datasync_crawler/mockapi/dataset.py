"""The generated data set: the event at each index, as JSON bytes.

An event follows from (seed, index) alone. Must not know offsets, totals, HTTP or faults.

Events are planned in blocks of 1,200 (an hour, at three seconds per event), which share a date
prefix and hash output. A block is computed by columns, because the mock must be faster than the
crawler.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import add
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCK_EVENTS = 1200
SECONDS_PER_EVENT = 3
SESSIONS_PER_BLOCK = 32
EPOCH = datetime(2025, 10, 1, tzinfo=UTC)
"""The hour of index 0; every block is the next hour."""

# Shares of the recorded page, over the 256 values of one hash byte.
_TYPE_SHARES = (
    ("page_view", 90),
    ("click", 64),
    ("api_call", 25),
    ("form_submit", 25),
    ("scroll", 13),
    ("error", 13),
    ("video_play", 13),
    ("purchase", 13),
)
TYPES = tuple(name for name, share in _TYPE_SHARES for _ in range(share))
# The recorded page has /home only; five paths of the same length make mixed-up rows visible.
PAGES = ("/home", "/cart", "/help", "/docs", "/blog")
_DEVICES = ("desktop", "mobile", "tablet")
_BROWSERS = ("Chrome", "Safari", "Edge", "Firefox")

ISO_MS, UNIX_MS, UNIX_S, ISO_SPACE = "iso_ms", "unix_ms", "unix_s", "iso_space"
# Every third event is a number, as recorded; some of each are in the coarser formats.
FORMATS = (
    *(UNIX_MS, ISO_MS, ISO_SPACE, UNIX_S, ISO_MS, ISO_MS),
    *(UNIX_MS, ISO_SPACE, ISO_MS, UNIX_MS, ISO_MS, ISO_MS),
)

_HEX_VARIANT = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)
_BASE36 = bytes(b"0123456789abcdefghijklmnopqrstuvwxyz"[value % 36] for value in range(256))
_UNPACK_IDS = struct.Struct("36s" * BLOCK_EVENTS).unpack
_UNPACK_NAMES = struct.Struct("6s" * BLOCK_EVENTS).unpack
_UNPACK_MILLIS = struct.Struct(f"<{BLOCK_EVENTS}H").unpack
# Hash bytes of a block: 16 an id, 6 a name, 2 the milliseconds, 1 each type, page, session, second.
_BLOCK_HASH_BYTES = BLOCK_EVENTS * (16 + 6 + 2 + 4)
_UUID_COLUMNS = (*range(8), *range(9, 13), *range(14, 18), *range(19, 23), *range(24, 36))

_TYPE_JSON = tuple(f'{name}","name":"event_'.encode() for name in TYPES)
_PAGE_JSON = tuple(
    f'","properties":{{"page":"{PAGES[value % len(PAGES)]}"}},"timestamp":'.encode()
    for value in range(256)
)
_MINUTE_SECOND = tuple(b"%02d:%02d" % divmod(second, 60) for second in range(3600))
# Two hash bytes modulo 1,000: the same thousand objects again and again stay in the CPU's cache.
_MILLIS_ISO = tuple(b'.%03dZ"' % value for value in range(1000)) * 66
_MILLIS = tuple(b"%03d" % value for value in range(1000)) * 66


@dataclass(frozen=True, slots=True)
class Session:
    """One visit: neighbouring events of a block share it."""

    id: str
    user_id: str
    device: str
    browser: str


@dataclass(frozen=True, slots=True)
class Block:
    """The plan of one block: a column per field, an entry per event, index order."""

    first_second: int
    ids: Sequence[bytes]
    names: Sequence[bytes]
    millis: Sequence[int]
    types: bytes
    pages: bytes
    sessions: Sequence[int]
    seconds: Sequence[int]
    session_table: tuple[Session, ...]


def _uuid_column(raw: bytes) -> bytes:
    """Turn 16 bytes each into the 36 characters of a version 4 UUID each, one column at a time."""
    digits = raw.hex().encode()
    count = len(raw) // 16
    text = bytearray(b"-" * (36 * count))
    for source, target in enumerate(_UUID_COLUMNS):
        text[target::36] = digits[source::32]
    text[14::36] = b"4" * count
    text[19::36] = text[19::36].translate(_HEX_VARIANT)
    return bytes(text)


def _sessions(seed: int, block: int) -> tuple[Session, ...]:
    raw = hashlib.shake_128(b"sessions %d %d" % (seed, block)).digest(SESSIONS_PER_BLOCK * 33)
    text = _uuid_column(raw[: SESSIONS_PER_BLOCK * 32]).decode()
    choices = raw[SESSIONS_PER_BLOCK * 32 :]
    return tuple(
        Session(
            id=text[number * 72 : number * 72 + 36],
            user_id=text[number * 72 + 36 : number * 72 + 72],
            device=_DEVICES[choices[number] % 3],
            browser=_BROWSERS[choices[number] // 3 % 4],
        )
        for number in range(SESSIONS_PER_BLOCK)
    )


# A session stays in use for some 150 events, five at a time, as the recorded neighbours do.
_SESSION_BASE = bytes(position // 40 for position in range(BLOCK_EVENTS))
_SECOND_BASE = tuple(SECONDS_PER_EVENT * position for position in range(BLOCK_EVENTS))
_MOD5 = bytes(value % 5 for value in range(256))
_MOD3 = bytes(value % 3 for value in range(256))
_MOD_SESSIONS = bytes(value % SESSIONS_PER_BLOCK for value in range(256))


def plan(seed: int, block: int) -> Block:
    """Plan block number `block` of the data set `seed`: all its events' values."""
    raw = hashlib.shake_128(b"events %d %d" % (seed, block)).digest(_BLOCK_HASH_BYTES)
    count = BLOCK_EVENTS
    late = raw[27 * count :].translate(_MOD3)
    near = raw[26 * count : 27 * count].translate(_MOD5)
    return Block(
        first_second=int(EPOCH.timestamp()) + block * 3600,
        ids=_UNPACK_IDS(_uuid_column(raw[: 16 * count])),
        names=_UNPACK_NAMES(raw[16 * count : 22 * count].translate(_BASE36)),
        millis=_UNPACK_MILLIS(raw[22 * count : 24 * count]),
        types=raw[24 * count : 25 * count],
        pages=raw[25 * count : 26 * count],
        sessions=bytes(map(add, _SESSION_BASE, near)).translate(_MOD_SESSIONS),
        seconds=list(map(add, _SECOND_BASE, late)),
        session_table=_sessions(seed, block),
    )


def _timestamps(block: Block) -> list[bytes]:
    """Render the timestamp column; the two coarse formats drop the milliseconds."""
    hour = EPOCH + timedelta(seconds=block.first_second - int(EPOCH.timestamp()))
    iso = hour.strftime('"%Y-%m-%dT%H:').encode()
    space = hour.strftime('"%Y-%m-%d %H:').encode()
    base = block.first_second
    column: list[bytes] = [b""] * BLOCK_EVENTS
    for place, form in enumerate(FORMATS):
        seconds = block.seconds[place :: len(FORMATS)]
        millis = block.millis[place :: len(FORMATS)]
        pairs = zip(seconds, millis, strict=True)
        if form == ISO_MS:
            values = [iso + _MINUTE_SECOND[s] + _MILLIS_ISO[ms] for s, ms in pairs]
        elif form == UNIX_MS:
            values = [b"%d" % (base + s) + _MILLIS[ms] for s, ms in pairs]
        elif form == UNIX_S:
            values = [b"%d" % (base + s) for s in seconds]
        else:
            values = [space + _MINUTE_SECOND[s] + b'"' for s in seconds]
        column[place :: len(FORMATS)] = values
    return column


def render(block: Block) -> list[bytes]:
    """Render a planned block: the JSON bytes of each of its events, in index order."""
    heads = [
        f'","sessionId":"{session.id}","userId":"{session.user_id}","type":"'.encode()
        for session in block.session_table
    ]
    tails = [
        (
            f',"session":{{"id":"{session.id}","deviceType":"{session.device}"'
            f',"browser":"{session.browser}"}}}}'
        ).encode()
        for session in block.session_table
    ]
    parts: list[bytes] = [b'{"id":"'] * (8 * BLOCK_EVENTS)
    parts[1::8] = block.ids
    parts[2::8] = map(heads.__getitem__, block.sessions)
    parts[3::8] = map(_TYPE_JSON.__getitem__, block.types)
    parts[4::8] = block.names
    parts[5::8] = map(_PAGE_JSON.__getitem__, block.pages)
    parts[6::8] = _timestamps(block)
    parts[7::8] = map(tails.__getitem__, block.sessions)
    columns = [iter(parts)] * 8
    return list(map(b"".join, zip(*columns, strict=True)))
