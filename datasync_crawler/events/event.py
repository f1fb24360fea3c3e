"""
What one event is once it has left the API's body, and what becomes of one that cannot be stored.

Owns the shape of an event. Knows nothing of bytes on the wire (wire.py), of dates (timestamps.py)
or of the table (copyrows.py).
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
    # msgspec reads `Raw | None` as "null or nothing" and refuses an object there, so the decoder is
    # told Raw; fields.nulls_to_none makes a JSON null None afterwards.
    JsonText = msgspec.Raw
    # The type of nothing: no JSON value passes. An API's own field "extra" is so refused like any
    # other field without a column, and ends inside our column of that name.
    Kept = Annotated[str, msgspec.Meta(min_length=1, max_length=0)]
    # What most APIs send. A list of 16 million numbers isn't built to be rejected afterwards;
    # numbers with a fraction are fields.FractionEvent's.
    Stamp = str | int | None


class Event(
    msgspec.Struct,
    forbid_unknown_fields=True,
    gc=False,  # holds no containers of events, so no cycles; 5,000 fewer objects to walk a page
    rename={"session_id": "sessionId", "user_id": "userId"},
):
    """
    One event; its attributes are the table's columns.

    `timestamp` holds what the API sent (text, int, Decimal for a number with a fraction, None for
    null or missing, or whatever else stood there) until timestamps.normalize_timestamps makes it an
    aware UTC datetime. `properties`, `session` and `extra` are JSON as it was served, byte for
    byte, so that a 30-digit integer stays exact; None means null or missing. `extra` is an object
    of the fields that have no column.

    Decoding refuses what doesn't fit: an empty id, other types, unknown fields.
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
    An event that cannot be stored.

    `index` is its position in the page, from 0. `reason` is short, stable and free of the event's
    content, so that rejections can be grouped by it. `raw` is the event exactly as it was served,
    up to a million bytes (`of`).
    """

    index: int
    reason: str
    raw: bytes

    @classmethod
    def of(cls, index: int, reason: str, raw: bytes) -> "Rejection":
        """Of an event of any size: *raw* is cut at a million bytes, which the reason says.

        60 MB in one row of `rejected_events` took 784 MB on the way there.
        """
        if len(raw) <= _MOST_RAW:
            return cls(index, reason, raw)
        return cls(index, f"{reason} (its first {_MOST_RAW:,} bytes)", raw[:_MOST_RAW])
