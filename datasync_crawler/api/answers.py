"""A response beside its events: headers, age, and the ids by which seams are compared. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from datasync_crawler.events.decoding import WirePage

#: An id longer than this is known by its hash: the ledger keeps a few of each page.
LONGEST_ID: Final = 200
_ID: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT: Final = msgspec.json.Decoder(str)


def known_by(wire: WirePage, id_field: str = "id") -> Sequence[str]:
    """The id of each event of a page, in order; a hash of its bytes where it has none."""
    ids = [event.id for event in wire.events]
    if ids and max(map(len, ids)) > LONGEST_ID:
        ids = [one if len(one) <= LONGEST_ID else _hash(one.encode()) for one in ids]
    if not wire.rejections:
        return ids
    places = dict(zip(wire.indexes or range(len(ids)), ids, strict=True))
    places |= {one.index: _of_bytes(one.raw, id_field) for one in wire.rejections}
    return [places[place] for place in sorted(places)]


def _of_bytes(raw: bytes, id_field: str) -> str:
    """The id in a rejected event's bytes, else their hash."""
    try:
        served = bytes(_ID.decode(raw)[id_field])
        one = _TEXT.decode(served) if served[:1] == b'"' else served.decode("ascii")
    except (msgspec.MsgspecError, RecursionError, UnicodeError, KeyError):
        return _hash(raw)
    return one if 0 < len(one) <= LONGEST_ID and one.isprintable() else _hash(raw)


def _hash(raw: bytes) -> str:
    return "#" + hashlib.blake2b(raw, digest_size=16).hexdigest()


def header_texts(headers: Mapping[bytes, Sequence[bytes]]) -> dict[str, str]:
    """A response's headers as text by lower-case name; lines of one name joined by commas."""
    return {
        name.decode("latin-1").lower(): b", ".join(values).decode("latin-1")
        for name, values in headers.items()
    }


def cached_s(headers: Mapping[str, str]) -> float:
    """The age of a response in seconds, at most; 0 if it isn't from a cache.

    `Age` is RFC 9111 §5.1; `X-Cache` and `X-Cache-TTL` are set by caches like the API's own.
    """
    age = _seconds(headers.get("age", ""))
    if "hit" in headers.get("x-cache", "").lower():
        return _seconds(headers.get("x-cache-ttl", "")) or age or 60.0
    return age


def _seconds(text: str) -> float:
    text = text.strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0.0
