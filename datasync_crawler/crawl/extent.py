"""The expected size of the set. Pure.

A total is a hint of how far to read concurrently. Where there is none, or more is served than it
counts, a growing number of pages is requested ahead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice


@dataclass(slots=True)
class Extent:
    """`total`: the API's last one. `ahead`: pages to request beyond what is known. `is_known`: some
    response counted more than what it ended with; a total that each response makes up from its own
    end says nothing. `is_relative`: totals follow the requested offset.
    """

    total: int | None = None
    ahead: int = 1
    is_known: bool = False
    is_relative: bool = False
    _empty: tuple[int, int] | None = None

    def learn(self, total: int | None, offset: int, received: int) -> None:
        """Takes the total of a response of *received* events from *offset* on."""
        if total is None or self.is_relative:
            return
        self.total = total
        self.is_known = self.is_known or total > offset + received
        if not received and total > offset:
            before, self._empty = self._empty, (offset, total)
            if before and before[0] != offset and total - offset == before[1] - before[0]:
                self.is_relative, self.total = True, None

    def target(self, stop: int, page_size: int) -> int:
        """The offset up to which to read, when the chain reaches to *stop*."""
        if self.total is not None and self.total > stop:
            return max(self.total, stop + (self.ahead - 1) * page_size)
        if self.total is None or self.ahead > 1:
            return stop + self.ahead * page_size
        return stop

    def more(self) -> None:
        """A full page lay behind the assumed end: requests more ahead."""
        self.ahead *= 2


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

    def repeats(self, offset: int, ids: Sequence[str], pass_no: int = 0) -> bool:
        """Whether another offset has brought this page already in the same pass."""
        if len(ids) < 2:
            return False
        self._first_id = self._first_id or ids[0]
        if ids[0] != self._first_id:
            self._strikes = -1
        elif self._strikes >= 0:
            self._strikes += 1
        again = self._offsets.setdefault(hash((pass_no, *ids)), offset) != offset
        if len(self._offsets) > 2 * self._most:
            del self._offsets[next(islice(self._offsets, self._most, None))]
        return again

    @property
    def is_ignored(self) -> bool:
        """Whether four pages began with the same event, and none with another."""
        return self._strikes > 3
