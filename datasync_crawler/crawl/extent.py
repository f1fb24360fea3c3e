"""How far the set reaches, as far as anybody knows. Pure.

A total is a hint of how far to read side by side. Where it says nothing, or less than is served,
more and more is asked for ahead of what is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

#: Pages asked for ahead at most, per request in flight, where no total says how many there are.
MOST_AHEAD: Final = 4


@dataclass(slots=True)
class Extent:
    """`total`: what the API said last. `ahead`: pages that are asked for without its word."""

    total: int | None = None
    ahead: int = 1

    def learn(self, total: int | None) -> None:
        """After a response."""
        if total is not None:
            self.total = total

    def target(self, stop: int, page_size: int) -> int:
        """Up to where to read, when the chain reaches to *stop*."""
        if self.total is not None and self.total > stop:
            return self.total
        if self.total is None or self.ahead > 1:
            return stop + self.ahead * page_size
        return stop

    def more(self, in_flight: int) -> None:
        """A full page lay behind what was taken for the end."""
        self.ahead = min(2 * self.ahead, MOST_AHEAD * in_flight)


class RepeatWatch:
    """Notices a server that answers different offsets, or cursors, with the same page.

    Keeps the first pages and the latest, by a hash of their ids. A page that another offset has
    brought needn't be stored; a server that has never served but one ignores the offset.
    """

    def __init__(self, most: int = 50) -> None:
        self._most = most
        self._offsets: dict[int, int] = {}
        self._first_id: str | None = None
        self._strikes = 0

    def repeats(self, offset: int, ids: Sequence[str]) -> bool:
        """Whether this page is one that another offset has brought already."""
        if len(ids) < 2:
            return False
        self._first_id = self._first_id or ids[0]
        if ids[0] != self._first_id:
            self._strikes = -1
        elif self._strikes >= 0:
            self._strikes += 1
        again = self._offsets.setdefault(hash(tuple(ids)), offset) != offset
        if len(self._offsets) > 2 * self._most:
            del self._offsets[next(islice(self._offsets, self._most, None))]
        return again

    @property
    def is_ignored(self) -> bool:
        """Four pages began with the same event, and never another came."""
        return self._strikes > 3
