"""The page size: what the API really serves, learned from responses. Pure."""

from dataclasses import dataclass, replace
from typing import Final

#: What servers commonly allow at most, tried one after another where a limit is refused.
COMMON_LIMITS: Final = (2000, 1000, 500, 250, 100, 50, 20, 10)
#: One request in so many asks for what the user wants, so that a size that was lowered rises again.
PROBE_EVERY: Final = 16


@dataclass(frozen=True, slots=True)
class PageSize:
    """`wanted`: the user's page size, or what the API allows; `size`: what is asked for, in events;
    `longest`: the longest response so far.

    A smaller size is believed when two pages in a row came with it: one that was cut short by
    accident changes nothing.
    """

    wanted: int
    size: int
    seen: int | None = None
    longest: int = 0

    @classmethod
    def of(cls, wanted: int) -> "PageSize":
        """Nothing is known yet."""
        return cls(wanted, wanted)

    def observe(self, asked: int, received: int, behind: int | None) -> "PageSize":
        """After a response of *received* events to a request for *asked*.

        *behind*: events that the total says lie from the offset on; None when no total is known.
        """
        longest = max(self.longest, received)
        if behind is not None and received >= behind:
            return replace(self, longest=longest)  # the end: short by right
        if received >= asked:
            grown = min(max(self.size, asked), self.wanted) if received == asked else received
            return replace(self, size=max(self.size, grown), seen=None, longest=longest)
        if received == self.seen:
            return replace(self, size=received, seen=None, longest=longest)
        return replace(self, seen=received, longest=longest)

    def is_full(self, received: int) -> bool:
        """Whether a response of that length may have been cut where the API cuts."""
        return received >= min(self.size, self.longest)

    def ask(self, number: int) -> int:
        """The limit of request *number*."""
        return self.wanted if number % PROBE_EVERY == 0 else self.size

    def refused(self, asked: int) -> "PageSize | None":
        """After the API took no limit of *asked*; None: there is no smaller one to try."""
        smaller = next((size for size in COMMON_LIMITS if size < asked), None)
        return None if smaller is None else PageSize.of(smaller)
