"""The expected size of the set. Pure.

A total is a hint of how far to read concurrently. Where there is none, or more is served than it
counts, a growing number of pages is requested ahead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

#: Pages requested ahead without a total, at most, per request in flight.
MOST_AHEAD: Final = 4


@dataclass(slots=True)
class Extent:
    """`total`: the API's last one. `ahead`: pages to request beyond what is known."""

    total: int | None = None
    ahead: int = 1

    def learn(self, total: int | None) -> None:
        """Takes the total of a response."""
        if total is not None:
            self.total = total

    def target(self, stop: int, page_size: int) -> int:
        """The offset up to which to read, when the chain reaches to *stop*."""
        if self.total is not None and self.total > stop:
            return self.total
        if self.total is None or self.ahead > 1:
            return stop + self.ahead * page_size
        return stop

    def more(self, in_flight: int) -> None:
        """A full page lay behind the assumed end: requests more ahead."""
        self.ahead = min(2 * self.ahead, MOST_AHEAD * in_flight)


class RepeatWatch:
    """Detects a server that answers different offsets, or cursors, with the same page.

    Keeps hashes of the ids of the first pages and of the latest. A page of another offset isn't
    stored again; a server that has only served one page ignores the offset.
    """

    def __init__(self, most: int = 50) -> None:
        self._most = most
        self._offsets: dict[int, int] = {}
        self._first_id: str | None = None
        self._strikes = 0

    def repeats(self, offset: int, ids: Sequence[str]) -> bool:
        """Whether another offset has brought this page already."""
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
        """Whether four pages began with the same event, and none with another."""
        return self._strikes > 3
