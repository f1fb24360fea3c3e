"""The page size that the API really serves, learned from responses. Pure."""

from dataclasses import dataclass, replace
from typing import Final

#: Common maximum page sizes, tried in this order when the API rejects a limit.
COMMON_LIMITS: Final = (2000, 1000, 500, 250, 100, 50, 20, 10)
#: One request in 16 asks for the wanted size, so that a lowered size can rise again.
PROBE_EVERY: Final = 16


@dataclass(frozen=True, slots=True)
class PageSize:
    """`wanted`: the user's page size, or the API's maximum; `size`: the one that is requested;
    `longest`: the longest response so far; `reach`: the offset behind the last event so far; all in
    events. `is_ragged`: responses end early.

    A smaller size counts from two pages in a row on, so that a single short page changes nothing;
    the last page doesn't count.
    """

    wanted: int
    size: int
    seen: int | None = None
    longest: int = 0
    reach: int = 0
    is_ragged: bool = False

    @classmethod
    def of(cls, wanted: int) -> "PageSize":
        """Before the first response."""
        return cls(wanted, wanted)

    def observe(self, asked: int, received: int, end: int) -> "PageSize":
        """After a response of *received* events to a request for *asked*, that ended at *end*."""
        longest, is_inside = max(self.longest, received), end < self.reach
        now = replace(self, longest=longest, reach=max(self.reach, end))
        if received >= asked:
            grown = min(max(self.size, asked), self.wanted) if received == asked else received
            return replace(now, size=max(self.size, grown), seen=None)
        if not is_inside and received < longest:
            return now
        now = replace(now, is_ragged=self.is_ragged or not self.is_full(received))
        if received == self.seen:
            return replace(now, size=received, seen=None)
        return replace(now, seen=received)

    def is_full(self, received: int) -> bool:
        """Whether a response of that length may have been capped by the API."""
        return received >= min(self.size, self.longest)

    def ask(self, number: int) -> int:
        """The limit of request *number*."""
        return self.wanted if number % PROBE_EVERY == 0 else self.size

    def smaller_than(self, asked: int) -> "PageSize | None":
        """After the API rejected the limit *asked*; None if there is no smaller one to try."""
        smaller = next((size for size in COMMON_LIMITS if size < asked), None)
        return None if smaller is None else PageSize.of(smaller)
