"""The order of the served set: the event index at each offset, while the set grows.

Must not know events' contents.
"""

from __future__ import annotations

from dataclasses import dataclass

OLDEST_FIRST, NEWEST_FIRST = "oldest-first", "newest-first"


@dataclass(frozen=True, slots=True)
class Span:
    """`count` consecutive indices from `first` on, served backwards when `backwards`."""

    first: int
    count: int
    backwards: bool = False


class EventSequence:
    """The served set: `total` events in `order`, index 0 the oldest."""

    def __init__(self, total: int, order: str = OLDEST_FIRST) -> None:
        self._total = total
        self.order = order

    @property
    def total(self) -> int:
        """Events in the set now."""
        return self._total

    def grow(self, count: int) -> None:
        """Add `count` newer events: at the end, or at offset 0 in newest-first order."""
        self._total += count

    def spans(self, offset: int, limit: int, order: str | None = None) -> list[Span]:
        """Returns the spans at [offset, offset + limit) of the served order, up to the end."""
        offset = max(offset, 0)
        count = max(0, min(limit, self.total - offset))
        if (order or self.order) == OLDEST_FIRST:
            return self._forward(offset, count)
        spans = self._forward(self.total - offset - count, count)
        return [Span(span.first, span.count, backwards=True) for span in reversed(spans)]

    def _forward(self, start: int, count: int) -> list[Span]:
        """Returns places [start, start + count), counted from the oldest event."""
        return [Span(start, count)] if count else []
