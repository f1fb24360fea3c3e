"""What a run has heard: the API's word on its size, and what became of each range.

Owns the state that the spider fills and `plan` and `cursor` decide by. Must not decide what is
fetched, nor ask the ledger.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from datasync_crawler.core import ranges
from datasync_crawler.core.ranges import Range
from datasync_crawler.items import EventPage

logger = logging.getLogger(__name__)


#: What servers commonly allow at most, tried one after another where ours is refused.
COMMON_LIMITS: Final = (2000, 1000, 500, 250, 100, 50, 20, 10)
#: A total that flips with each response is told so often.
MOST_TOTALS_LOGGED: Final = 5


class Stats(Protocol):
    """The part of Scrapy's stats that the plan writes."""

    def set_value(self, key: str, value: Any) -> None: ...  # noqa: D102
    def inc_value(self, key: str, count: int = 1) -> None: ...  # noqa: D102
    def get_value(self, key: str, default: Any = None) -> Any: ...  # noqa: D102


class Incomplete(Exception):
    """The run ends without a proof; the message says what is missing or in doubt."""


class Heard:
    """The spider tells it what came; the plan reads that, and waits for what is under way."""

    def __init__(
        self, stats: Callable[[], Stats], *, page_size: int, may_change: bool, numbered: bool
    ) -> None:
        # A function: Scrapy has no stats yet when the spider is made.
        self._late_stats = stats
        self._asked_page_size = self.page_size = page_size
        self._may_change = may_change
        self._numbered = numbered  # pages by their number, not by an offset
        self.total: int | None = None
        self.largest_total: int | None = None
        self.total_before: int | None = None  # the last run's, and whether it left holes
        self.left_before = False
        self.shrunk = self.changed_total = False
        self._total_changes = 0
        self.twice_in_page = 0
        self.proved_total = 0  # the API has served events behind any smaller word
        # Ranges handed out, whose page is neither committed nor given up.
        self.outstanding: set[int] = set()
        self.committed_pages = 0
        self.reread: list[Range] | None = None  # what has come since the repair's pass began
        self.last_page: EventPage | None = None
        self.empty_at: int | None = None
        self.ended_at: int | None = None
        self.empty_in_a_row = 0
        self.total_lies = self.total_said = False
        self.unusable: str | None = None
        self.expired = False
        self._something = asyncio.Event()

    @property
    def stats(self) -> Stats:
        """The crawl's."""
        return self._late_stats()

    def committed(self, page: EventPage) -> None:
        """The page of a range is in the database."""
        self.committed_pages += 1
        self.last_page = page
        if self.reread is not None:
            self.reread.append(Range(page.first_offset, page.received))
        if page.inserted and page.duplicates:
            # One id twice in one response: that is the API's own, no shift explains it.
            self.twice_in_page += len(page.events) - len({event.id for event in page.events})
        if page.received < page.requested and page.first_offset + page.received == self.total:
            self.ended_at = self.total
        self.given_up(page.first_offset)

    def given_up(self, first_offset: int) -> None:
        """The range can't be had for now: it stays a hole."""
        self.outstanding.discard(first_offset)
        self._something.set()

    def empty(self, first_offset: int) -> None:
        """An empty page came at or behind the end."""
        self.empty_at = first_offset
        self.given_up(first_offset)

    def is_before_the_end(self, first_offset: int) -> bool:
        """Whether an empty page there would be a hole."""
        return self.total is not None and first_offset < self.total

    def is_behind_the_end(self, first_offset: int) -> bool:
        """Whether the total says that there is nothing any more."""
        return self.total is not None and first_offset >= self.total

    def may_end_at(self, first_offset: int) -> bool:
        """Whether the set may end there, once pages have come: no total speaks against it."""
        return self.has_pages and not self.is_before_the_end(first_offset)

    def learn_total(self, said: int | None, received: int) -> None:
        """The API's word on the total (None: nothing usable); an empty page's doesn't count."""
        self.empty_in_a_row = 0 if received else self.empty_in_a_row + 1
        if said is None or self.total_lies or (not received and self.total is not None):
            return
        self.total_said = True
        said = max(said, self.proved_total)
        if self.total is not None and said != self.total:
            self._total_changes += 1
            level = logging.INFO if self._total_changes <= MOST_TOTALS_LOGGED else logging.DEBUG
            logger.log(level, "The API's total is %d now, it was %d.", said, self.total)
            self.changed_total = True
        if self.total is None and self.total_before not in {None, said}:
            self.changed_total = True
            # A crawl that wasn't through has read some pages before that, and some after.
            fell = said < (self.total_before or 0)
            self.shrunk = self.shrunk or (self.left_before and fell)
        self.total = said
        self.largest_total = max(said, self.largest_total or 0)
        self.stats.set_value("crawl/total", said)
        self.say_doubt()

    def say_changed(self) -> None:
        """Events have come in or gone, whether or not a total says so."""
        self.changed_total = True
        self.say_doubt()

    def say_doubt(self) -> None:
        """By the heartbeat, to a run after this one: whether the offsets have moved."""
        shrunk = self.shrunk or (self.largest_total or 0) > (self.total or 0)
        if shrunk or self.changed_total:
            self.stats.set_value("crawl/in_doubt", "shrunk" if shrunk else "changed")

    def learn_page_size(
        self, first_offset: int, requested: int, limit: int | None, received: int
    ) -> None:
        """What came counts: a capped limit changes the plan, with one log line."""
        behind = None if self.total is None else self.total - first_offset
        size = ranges.next_page_size(requested, limit, received, behind)
        if self._numbered and not first_offset and (behind is None or received > requested):
            size = received  # the server's numbers may count by that; asked for, they do
        elif size > requested or (limit is None and first_offset):
            return  # a short page in the middle: the rest of it is a hole
        if requested != self.page_size or size == requested:
            return
        logger.info("The API serves %d events a page, not %d: the plan follows.", size, requested)
        self.page_size = size

    def smaller_page(self, refused: int) -> int | None:
        """The page size to try when the API doesn't take *refused*; None: there is no smaller."""
        smaller = next((size for size in COMMON_LIMITS if size < refused), None)
        if smaller is not None:
            self.page_size = smaller
        return smaller

    @property
    def has_pages(self) -> bool:
        """Whether any page has come and been committed in this run."""
        return self.committed_pages > 0

    @property
    def learnt_page_size(self) -> int | None:
        """The page size that the API has taught us, None where it takes what we ask for.

        Of numbered pages without a total, the first may have been short because it was the last.
        """
        if self._numbered and self.total is None:
            return None
        return self.page_size if self.page_size < self._asked_page_size else None

    def bulk_unusable(self, why: str) -> bool:
        """There is no bulk endpoint, or it ignores offsets. False: PAGINATION says no other way."""
        if not self._may_change:
            return False
        if self.unusable is None:
            logger.warning("%s: the crawl goes on by cursor, one page after another.", why)
        self.unusable = why
        self._something.set()
        return True

    def cursor_expired(self, first_offset: int) -> None:
        """The cursor is no longer good: start over."""
        logger.info("The cursor has expired: starting over; nothing is stored twice.")
        self.expired = True
        self.given_up(first_offset)

    # --- waiting ----------------------------------------------------------------------------------

    async def settled(self) -> None:
        """Waits until nothing is under way."""
        await self.fewer_outstanding_than(1)

    async def fewer_outstanding_than(self, number: int) -> None:
        """Waits until fewer ranges than that are under way."""
        while len(self.outstanding) >= number:
            self._something.clear()
            await self._something.wait()
