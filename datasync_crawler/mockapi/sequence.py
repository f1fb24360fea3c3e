"""Which event index stands at which offset, while the set grows, gains and loses events.

Owns the order of the served set as runs of consecutive indices, oldest first. Must not know what
an event looks like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Order = Literal["oldest-first", "newest-first"]

INSERTED_FROM = -12_000_000
"""Events inserted in mid-set take indices from here on: no growth ever reaches them, and their
timestamps (the year before) are as good as any other."""


@dataclass(frozen=True, slots=True)
class Span:
    """`count` consecutive indices from `first` on, served backwards when `backwards`."""

    first: int
    count: int
    backwards: bool = False

    def indices(self) -> Sequence[int]:
        """Give the indices in the order in which they are served."""
        run = range(self.first, self.first + self.count)
        return run[::-1] if self.backwards else run


class EventSequence:
    """The served set: `total` events in `order`, index 0 the oldest."""

    def __init__(self, total: int, order: Order = "oldest-first") -> None:
        self._runs: list[tuple[int, int]] = [(0, total)] if total else []
        self._next_index = total
        self._inserted = 0
        self.order: Order = order

    @property
    def total(self) -> int:
        """Events in the set now."""
        return sum(count for _, count in self._runs)

    @property
    def runs(self) -> list[tuple[int, int]]:
        """The set as (first index, count), oldest first."""
        return list(self._runs)

    def grow(self, count: int) -> None:
        """Add `count` newer events: at the end, or at offset 0 in newest-first order."""
        if self._runs and sum(self._runs[-1]) == self._next_index:
            first, length = self._runs.pop()
            self._runs.append((first, length + count))
        elif count:
            self._runs.append((self._next_index, count))
        self._next_index += count

    def resize(self, total: int) -> None:
        """Grow or cut the set to `total` events; what is cut are the newest."""
        if total >= self.total:
            self.grow(total - self.total)
        else:
            self._delete_oldest_first(total, self.total - total)
            self._next_index = max((sum(run) for run in self._runs if run[0] >= 0), default=0)

    def insert(self, offset: int, count: int) -> None:
        """Put `count` events that were not there before at `offset` of the served order."""
        place = offset if self.order == "oldest-first" else self.total - offset
        place = min(max(place, 0), self.total)
        new = (INSERTED_FROM + self._inserted, count)
        self._inserted += count
        self._runs = [*self._forward(0, place), new, *self._forward(place, self.total - place)]

    def delete(self, offset: int, count: int) -> None:
        """Take `count` events away from `offset` of the served order on."""
        count = max(0, min(count, self.total - offset))
        place = offset if self.order == "oldest-first" else self.total - offset - count
        self._delete_oldest_first(place, count)

    def spans(self, offset: int, limit: int, order: Order | None = None) -> list[Span]:
        """Give what stands at [offset, offset + limit) of the served order, less past the end."""
        total = self.total
        offset = max(offset, 0)
        count = max(0, min(limit, total - offset))
        if (order or self.order) == "oldest-first":
            return [Span(*run) for run in self._forward(offset, count)]
        forward = self._forward(total - offset - count, count)
        return [Span(*run, backwards=True) for run in reversed(forward)]

    def _forward(self, start: int, count: int) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        passed = 0
        for first, length in self._runs:
            low, high = max(start, passed), min(start + count, passed + length)
            if low < high:
                found.append((first + low - passed, high - low))
            passed += length
        return found

    def _delete_oldest_first(self, start: int, count: int) -> None:
        rest = start + count
        self._runs = [*self._forward(0, start), *self._forward(rest, self.total - rest)]
