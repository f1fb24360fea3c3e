"""A served set that gains and loses events in its middle, as runs of consecutive indices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasync_crawler.mockapi.sequence import OLDEST_FIRST, EventSequence, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

INSERTED_FROM = -12_000_000
"""Events inserted in mid-set take indices from here on: no growth ever reaches them, and their
timestamps (the year before) are as good as any other."""


def indices(span: Span) -> Sequence[int]:
    """Give the indices of a span in the order in which they are served."""
    run = range(span.first, span.first + span.count)
    return run[::-1] if span.backwards else run


class RunSequence(EventSequence):
    """The served set: `total` events in `order`, index 0 the oldest at first."""

    def __init__(self, total: int, order: str = OLDEST_FIRST) -> None:
        super().__init__(total, order)
        self._runs: list[tuple[int, int]] = [(0, total)] if total else []
        self._next_index = total
        self._inserted = 0

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
        place = offset if self.order == OLDEST_FIRST else self.total - offset
        place = min(max(place, 0), self.total)
        new = (INSERTED_FROM + self._inserted, count)
        self._inserted += count
        self._runs = [*self._cut(0, place), new, *self._cut(place, self.total - place)]

    def delete(self, offset: int, count: int) -> None:
        """Take `count` events away from `offset` of the served order on."""
        count = max(0, min(count, self.total - offset))
        place = offset if self.order == OLDEST_FIRST else self.total - offset - count
        self._delete_oldest_first(place, count)

    def _forward(self, start: int, count: int) -> list[Span]:
        return [Span(*run) for run in self._cut(start, count)]

    def _cut(self, start: int, count: int) -> list[tuple[int, int]]:
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
        self._runs = [*self._cut(0, start), *self._cut(rest, self.total - rest)]
