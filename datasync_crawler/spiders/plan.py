"""The plan of a run: which ranges are fetched, in which order, until all is proved to be there.

Owns the order of things: the front page, new events at the front, holes, the frontier, a second
look where the API contradicts itself, repair of shifted offsets, the proof. Asks the ledger, is
told by the spider what became of each range. Must not know of requests and responses.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Protocol

from datasync_crawler.core import ranges
from datasync_crawler.core.paging import Paging, Wanted
from datasync_crawler.core.ranges import Range
from datasync_crawler.items import EventPage
from datasync_crawler.store.ledger import Ledger, LedgerState, LedgerSums

logger = logging.getLogger(__name__)

#: Rounds over the holes without a single page committed, before what is missing is reported.
MOST_STALLED_ROUNDS: Final = 2
#: Rounds that only fetch what the API has added meanwhile: a set that grows for ever must not
#: keep the crawl for ever.
MOST_GROWTH_ROUNDS: Final = 5
#: Passes over everything when offsets have shifted, until one finds nothing new.
MOST_REPAIR_PASSES: Final = 3
#: Times that a crawl by cursor starts over (expired cursors, an early end).
MOST_CURSOR_PASSES: Final = 3
#: Holes read from the ledger at once: a million holes cost no memory.
HOLES_AT_ONCE: Final = 1000


class Stats(Protocol):
    """The part of Scrapy's stats that the plan writes."""

    def set_value(self, key: str, value: Any) -> None: ...  # noqa: D102
    def inc_value(self, key: str, count: int = 1) -> None: ...  # noqa: D102
    def get_value(self, key: str, default: Any = None) -> Any: ...  # noqa: D102


class Incomplete(Exception):
    """The run ends without a proof; the message says what is missing or in doubt."""


class Plan:
    """One run's plan. Iterate `ranges()`; tell it what became of each by the methods below it."""

    def __init__(
        self,
        ledger: Ledger,
        in_thread: Callable[..., Awaitable[Any]],
        paging: Paging,
        stats: Callable[[], Stats],
        *,
        page_size: int,
        pagination: str,
        in_flight: int,
    ) -> None:
        self._ledger, self._in_thread = ledger, in_thread
        # A function: Scrapy has no stats yet when the spider is made.
        self._paging, self._late_stats = paging, stats
        self._asked_page_size = self.page_size = page_size
        self._by_cursor = pagination == "cursor"
        self._may_change = pagination == "auto"
        self._in_flight = in_flight
        self.total: int | None = None
        self._largest_total: int | None = None
        self._shrunk = self._changed_total = False
        self._pass_no = self.first_pass = 1
        # Ranges handed out, whose page is neither committed nor given up.
        self._outstanding: set[int] = set()
        self._committed_pages = 0
        self._last_page: EventPage | None = None
        self._empty_at: int | None = None
        self._ended_at: int | None = None
        self._total_lies = False
        self._unusable: str | None = None
        self._cursor_expired = False
        self._something = asyncio.Event()

    @property
    def _stats(self) -> Stats:
        return self._late_stats()

    # --- what the spider tells -------------------------------------------------------------------

    def committed(self, page: EventPage) -> None:
        """The page of a range is in the database."""
        self._committed_pages += 1
        self._last_page = page
        if page.received < page.requested and page.first_offset + page.received == self.total:
            self._ended_at = self.total
        self.given_up(page.first_offset)

    def given_up(self, first_offset: int) -> None:
        """The range can't be had for now: it stays a hole."""
        self._outstanding.discard(first_offset)
        self._something.set()

    def empty(self, first_offset: int) -> None:
        """An empty page came at or behind the end."""
        self._empty_at = first_offset
        self.given_up(first_offset)

    def is_before_the_end(self, first_offset: int) -> bool:
        """Whether an empty page there would be a hole."""
        return self.total is not None and first_offset < self.total

    def learn_total(self, said: int | None, received: int) -> None:
        """The API's word on the total (None: nothing usable); an empty page's doesn't count."""
        if said is None or self._total_lies or (not received and self.total is not None):
            return
        if self.total is not None and said != self.total:
            logger.info("The API's total is %d now, it was %d.", said, self.total)
            self._changed_total = True
            self._shrunk = self._shrunk or said < self.total
        self.total = said
        self._largest_total = max(said, self._largest_total or 0)
        self._stats.set_value("crawl/total", said)

    def learn_page_size(
        self, first_offset: int, requested: int, limit: int | None, received: int
    ) -> None:
        """What came counts: a capped limit changes the plan, with one log line."""
        behind = None if self.total is None else self.total - first_offset
        size = ranges.next_page_size(requested, limit, received, behind)
        if requested != self.page_size or size >= requested or (limit is None and first_offset):
            return  # a short page in the middle: the rest of it is a hole
        logger.info("The API serves %d events a page, not %d: the plan follows.", size, requested)
        self.page_size = size

    @property
    def has_pages(self) -> bool:
        """Whether any page has come and been committed in this run."""
        return self._committed_pages > 0

    @property
    def learnt_page_size(self) -> int | None:
        """The page size that the API has taught us, None where it takes what we ask for."""
        return self.page_size if self.page_size < self._asked_page_size else None

    def bulk_unusable(self, why: str) -> bool:
        """There is no bulk endpoint, or it ignores offsets. False: PAGINATION says no other way."""
        if not self._may_change:
            return False
        if self._unusable is None:
            logger.warning("%s: the crawl goes on by cursor, one page after another.", why)
        self._unusable = why
        self._something.set()
        return True

    def cursor_expired(self, first_offset: int) -> None:
        """The cursor is no longer good: start over."""
        self._cursor_expired = True
        self.given_up(first_offset)

    # --- the order of things ---------------------------------------------------------------------

    async def ranges(self) -> AsyncIterator[Wanted]:
        """What to fetch; waits for what is under way wherever the next step needs it.

        Ends when all is proved. Raises Incomplete, and DatabaseLost from the ledger.
        """
        state: LedgerState = await self._in_thread(self._ledger.state)
        self._pass_no = self.first_pass = state.last_pass + 1
        if state.page_limit is not None:
            self.page_size = min(self.page_size, state.page_limit)
        if not self._by_cursor:
            async for wanted in self._by_offset(state):
                yield wanted
                if self._unusable:
                    await self._settled()
                    break
        if self._by_cursor or self._unusable:
            async for wanted in self._all_by_cursor(state):
                yield wanted
        await self._prove()

    async def _by_offset(self, state: LedgerState) -> AsyncIterator[Wanted]:
        known_first = state.reach > 0 and not await self._in_thread(self._ledger.holes, 1)
        yield self._want(Range(0, self.page_size))
        await self._settled()
        if self._unusable:
            return
        front = self._last_page
        if front is None and self._empty_at != 0:
            raise Incomplete("the first page, and with it the total")
        await self._say_where(state, front if known_first else None)
        moved = 0
        if front is not None and known_first:
            moved = abs((self.total or 0) - (state.total or 0))
            if front.inserted:
                async for wanted in self._read_front(front.received, state):
                    yield wanted
        if self.total is None:
            async for wanted in self._read_to_the_end():
                yield wanted
        async for wanted in self._fill_holes(state, moved):
            yield wanted
        async for wanted in self._repair():
            yield wanted

    async def _say_where(self, state: LedgerState, reread: EventPage | None) -> None:
        """What the runs before this one have committed, for the log and for progress."""
        if reread is not None:
            self._stats.inc_value("events/reread", reread.duplicates)
        covered = await self._in_thread(self._ledger.coverage, self.total or state.reach)
        received = self._stats.get_value("events/received", 0)
        here = received - self._stats.get_value("events/reread", 0)
        self._stats.set_value("crawl/covered_before", max(covered - here, 0))
        if state.last_pass:
            logger.info(
                "Going on where the last run left off: %d of %s events are committed.",
                covered,
                "an unknown number of" if self.total is None else self.total,
            )

    async def _read_front(self, position: int, state: LedgerState) -> AsyncIterator[Wanted]:
        """New events at the front (newest-first order): on until a page is all known.

        As many as the total has grown by are fetched side by side; from there one after another.
        """
        grown = (self.total or 0) - (state.total or 0)
        if grown > position:
            logger.info("About %d new events stand at the front: reading them.", grown)
            for piece in ranges.split([Range(position, grown - position)], self.page_size):
                yield self._want(piece)
            await self._settled()
            position = grown
        while position < state.reach:
            self._last_page = None
            yield self._want(Range(position, self.page_size))
            await self._settled()
            page = self._last_page
            if page is None or not page.inserted:
                return
            position += page.received

    async def _read_to_the_end(self) -> AsyncIterator[Wanted]:
        """Without any total: page after page until an empty one, and a second look behind it."""
        logger.warning(
            "The API doesn't say reliably how many events there are: reading until a page is empty."
        )
        position = await self._reach()
        while self.total is None:
            self._empty_at = None
            stalled = 0
            while self._empty_at is None and stalled < MOST_STALLED_ROUNDS * self._in_flight:
                before = self._committed_pages
                yield self._want(Range(position, self.page_size))
                position += self.page_size
                await self._fewer_outstanding_than(self._in_flight)
                stalled = 0 if self._committed_pages > before else stalled + 1
            await self._settled()
            end = await self._reach()
            self._empty_at, before = None, self._committed_pages
            yield self._want(Range(end, self.page_size))
            await self._settled()
            if self._committed_pages == before:
                if self._empty_at is None:
                    raise Incomplete(f"the end: the page at offset {end} can't be had")
                self.total = self._largest_total = end
                self._stats.set_value("crawl/total", end)
            position = end + self.page_size

    async def _fill_holes(self, state: LedgerState, moved: int) -> AsyncIterator[Wanted]:
        """Holes first, then the frontier, until none is left or nothing moves any more.

        The set has grown or shrunk by *moved* events since the last run, perhaps at its front:
        then what was missing lies up to as many offsets to either side of the hole now.
        """
        stalled = growth_rounds = 0
        while not self._unusable:
            assert self.total is not None
            target, before = self.total, self._committed_pages
            async for wanted in self._fill_once(target, moved, below=state.total or 0):
                yield wanted
            if self._unusable:
                return
            moved, target = 0, min(target, self.total)
            if missing := await self._in_thread(self._ledger.holes, target, most=6):
                stalled = 0 if self._committed_pages > before else stalled + 1
                if stalled >= MOST_STALLED_ROUNDS:
                    raise Incomplete(_in_words(missing))
                continue
            async for wanted in self._look_past_the_end():
                yield wanted
            if self.total <= target or growth_rounds >= MOST_GROWTH_ROUNDS:
                self._stats.set_value("crawl/added_since", max(self.total - target, 0))
                self.total = target
                return
            growth_rounds += 1

    async def _fill_once(self, target: int, moved: int, *, below: int) -> AsyncIterator[Wanted]:
        """Every hole once; those *below* an offset are wider by *moved* to either side."""
        async for hole in self._holes(target):
            wide = ranges.widen([hole], moved if hole.first < below else 0, target)
            for piece in ranges.split(wide, self.page_size):
                # The last one asks for a whole page: when less comes, that is the end.
                last = piece.stop >= target
                yield self._want(Range(piece.first, self.page_size) if last else piece)
        await self._settled()

    async def _look_past_the_end(self) -> AsyncIterator[Wanted]:
        """The end is where the offsets reach the total and a page past it is empty (api.md).

        A short last page is as good as an empty one behind it. Where the total has fallen, it is
        looked at twice; where events come from behind it, the total isn't believed any more.
        """
        assert self.total is not None
        end = max(self.total, await self._reach())
        if self._ended_at == end:
            return
        for _ in range(2 if end < (self._largest_total or 0) else 1):
            self._empty_at, before = None, self._committed_pages
            yield self._want(Range(end, self.page_size))
            await self._settled()
            if self._committed_pages > before:
                logger.warning("The API says %d events, but serves more.", self.total)
                self.total, self._total_lies = None, True
                async for wanted in self._read_to_the_end():
                    yield wanted
                return
            if self._empty_at is None:
                raise Incomplete(f"certainty: the page behind the end ({end}) can't be had")
        self._largest_total = self.total

    async def _repair(self) -> AsyncIterator[Wanted]:
        """Offsets that shifted while they were read: read again until nothing new turns up.

        Suspected when the total changed and ids are fewer than it says (events came in before the
        offset: they stand at the front, or anywhere), or when it shrank (events went away before
        the offset: as many were skipped). Ids that the API serves twice, with a total that stands,
        are no reason.
        """
        for attempt in range(MOST_REPAIR_PASSES + 1):
            if self._unusable:
                return
            sums: LedgerSums = await self._in_thread(self._ledger.sums)
            assert self.total is not None
            short = self.total - sums.inserted - sums.rejected_now
            if not self._shrunk and (short <= 0 or not self._changed_total):
                return
            if attempt == MOST_REPAIR_PASSES:
                break
            logger.warning(
                "The API's events moved while they were read (%d ids stored and rejected of %d): "
                "reading again, pass %d.",
                sums.inserted + sums.rejected_now, self.total, attempt + 1,
            )  # fmt: skip
            self._stats.inc_value("crawl/repair_passes")
            self._pass_no += 1
            self._shrunk = self._changed_total = False
            for piece in ranges.split([Range(0, self.total)], self.page_size):
                yield self._want(piece)
            await self._settled()
            after: LedgerSums = await self._in_thread(self._ledger.sums)
            moved = self._shrunk or self._changed_total
            if after.inserted == sums.inserted and not moved:
                return  # a whole pass without a new id: what is short, the API serves twice
            self._changed_total = True
        raise Incomplete(
            f"certainty: events keep moving while they are read ({MOST_REPAIR_PASSES} passes "
            "still found new ones)"
        )

    # --- by cursor -------------------------------------------------------------------------------

    async def _all_by_cursor(self, state: LedgerState) -> AsyncIterator[Wanted]:
        """One page after another, each named by the one before; the same ledger and proof."""
        cursor, position = await self._in_thread(self._ledger.live_cursor)
        self._pass_no = state.last_pass if cursor else self._pass_no + bool(self._unusable)
        if cursor:
            logger.info("Going on at the cursor behind event %d.", position)
        for _ in range(MOST_CURSOR_PASSES):
            while True:
                self._last_page, self._empty_at, self._cursor_expired = None, None, False
                yield Wanted(self._pass_no, self._hand_out(Range(position, self.page_size)), cursor)
                await self._settled()
                page = self._last_page
                if page is None:
                    break
                position += page.received
                cursor = page.next_cursor or ""
                if not cursor:
                    break
            if self._reached_the_end(position):
                self.total = position if self.total is None else self.total
                return
            if self._cursor_expired:
                logger.info("The cursor has expired: starting over; nothing is stored twice.")
            self._pass_no += 1
            cursor, position = "", 0
        raise Incomplete(f"the end: the cursor leads to {position} of {self.total} events")

    def _reached_the_end(self, position: int) -> bool:
        if self._cursor_expired or (self._last_page is None and self._empty_at is None):
            return False
        return self.total is None or position >= self.total

    # --- the proof -------------------------------------------------------------------------------

    async def _prove(self) -> None:
        """Holds the ledger against the total and says what is to be known beside it."""
        assert self.total is not None
        missing = await self._in_thread(self._ledger.holes, self.total, most=6)
        if missing:
            raise Incomplete(_in_words(missing))
        sums: LedgerSums = await self._in_thread(self._ledger.sums)
        for name, value in (
            ("crawl/covered", self.total),
            ("crawl/total", self.total),
            ("crawl/stored", sums.inserted),
            ("crawl/rejected_now", sums.rejected_now),
            ("crawl/complete", True),
        ):
            self._stats.set_value(name, value)

    # --- small steps -----------------------------------------------------------------------------

    def _want(self, piece: Range) -> Wanted:
        piece = self._paging.aligned(piece, self.page_size)
        return Wanted(self._pass_no, self._hand_out(piece))

    def _hand_out(self, piece: Range) -> Range:
        self._outstanding.add(piece.first)
        return piece

    async def _holes(self, target: int) -> AsyncIterator[Range]:
        """All holes below *target* as they were when each part of the list was read."""
        after = 0
        while holes := await self._in_thread(
            self._ledger.holes, target, after=after, most=HOLES_AT_ONCE
        ):
            for hole in holes:
                yield hole
            after = holes[-1].stop

    async def _reach(self) -> int:
        state: LedgerState = await self._in_thread(self._ledger.state)
        return state.reach

    async def _settled(self) -> None:
        await self._fewer_outstanding_than(1)

    async def _fewer_outstanding_than(self, number: int) -> None:
        while len(self._outstanding) >= number:
            self._something.clear()
            await self._something.wait()


def _in_words(holes: list[Range]) -> str:
    """Holes for a person: the first few, as first–last."""
    shown = ", ".join(f"{hole.first}–{hole.stop - 1}" for hole in holes[:5])
    return f"offsets {shown}{', …' if len(holes) > 5 else ''}"
