"""
Event and Rejection: an event as decoded, and one that can't be stored.

Owns the shape of an event. Must not decode bytes (decoding.py) or timestamps (timestamps.py), or
know the table (copyrows.py).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

_MOST_RAW = 1_000_000  # bytes
SomeText = Annotated[str, msgspec.Meta(min_length=1)]
if TYPE_CHECKING:
    JsonText = msgspec.Raw | None
    Kept = msgspec.Raw | None
    Stamp = Any
else:
    # msgspec takes `Raw | None` for "null or missing" and fails for an object, so the type here is
    # Raw; fields.nulls_to_none turns a JSON null into None afterwards.
    JsonText = msgspec.Raw
    # No JSON value passes this type, so that an API's own field "extra" is handled like any other
    # field without a column and ends inside our column of that name.
    Kept = Annotated[str, msgspec.Meta(min_length=1, max_length=0)]
    # What most APIs send; fields.FractionEvent takes numbers with a fraction. A list of 16 million
    # numbers fails without being built.
    Stamp = str | int | None


class Event(
    msgspec.Struct,
    forbid_unknown_fields=True,
    gc=False,  # events hold no cycles: the collector walks 5,000 fewer objects per page
    rename={"session_id": "sessionId", "user_id": "userId"},
):
    """
    One event; its attributes are the table's columns.

    `timestamp` holds the API's value (text, int, Decimal for a number with a fraction, None for
    null or missing, or anything else) until timestamps.normalize_timestamps makes it an
    aware UTC datetime. `properties`, `session` and `extra` are JSON as it was served, byte for
    byte, so that a 30-digit integer stays exact; None means null or missing. `extra` is an object
    of the fields that have no column.

    Decoding fails for an empty id, other types and unknown fields.
    """

    id: SomeText
    session_id: str | None = None
    user_id: str | None = None
    type: str | None = None
    name: str | None = None
    properties: JsonText = None
    timestamp: Stamp = None
    session: JsonText = None
    extra: Kept = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """
    An event that can't be stored.

    `index` is its position in the page, from 0. `reason` is short, stable and free of the event's
    content, so that rejections can be grouped by it. `raw` is the event exactly as it was served,
    up to a million bytes (`of`).
    """

    index: int
    reason: str
    raw: bytes

    @classmethod
    def of(cls, index: int, reason: str, raw: bytes) -> "Rejection":
        """A rejection of an event of any size: *raw* is cut at a million bytes, with a note.

        Storing 60 MB in one row of `rejected_events` took 784 MB of memory.
        """
        if len(raw) <= _MOST_RAW:
            return cls(index, reason, raw)
        return cls(index, f"{reason} (its first {_MOST_RAW:,} bytes)", raw[:_MOST_RAW])
