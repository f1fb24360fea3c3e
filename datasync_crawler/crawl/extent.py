"""How far the set reaches, as far as anybody knows. Pure.

A total is a hint of how far to read side by side. Where it says nothing, or less than is served,
more and more is asked for ahead of what is known.
"""

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
    """Notices a server that answers different offsets with the same page.

    Keeps the edges (first id, last id, length) of the first pages and of the latest. One page at
    two offsets may be a mishap; a server that has never served but one page ignores the offset.
    """

    def __init__(self, most: int = 50) -> None:
        self._most = most
        self._offsets: dict[tuple[str, str, int], int] = {}
        self._strikes = 0

    def repeats(self, offset: int, first_id: str, last_id: str, length: int) -> bool:
        """Whether this page is one that another offset has brought already."""
        if length < 2:
            return False
        edges = first_id, last_id, length
        again = self._offsets.setdefault(edges, offset) != offset
        if len(self._offsets) > 2 * self._most:
            del self._offsets[next(islice(self._offsets, self._most, None))]
        self._strikes += again
        return again

    @property
    def offset_is_ignored(self) -> bool:
        """Three pages were the same one, and never another came."""
        return self._strikes >= 3 and len(self._offsets) == 1
