"""The plan of a run: which ranges are fetched, in which order, until all is proved to be there.

Owns the order of things: the front page, new events at the front, holes, the frontier, a second
look where the API contradicts itself, repair of shifted offsets, the proof. Asks the ledger, is
told by the spider what became of each range. Must not know of requests and responses.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from datasync_crawler.core import ranges
from datasync_crawler.core.paging import Paging, Wanted
from datasync_crawler.core.ranges import Range
from datasync_crawler.items import EventPage
from datasync_crawler.spiders import cursor
from datasync_crawler.spiders.heard import Heard, Incomplete, Stats
from datasync_crawler.store.ledger import Ledger, LedgerState, LedgerSums

logger = logging.getLogger(__name__)

#: Rounds over the holes without a single page committed, before what is missing is reported.
MOST_STALLED_ROUNDS: Final = 2
#: Rounds that only fetch what the API has added meanwhile: a set that grows for ever must not
#: keep the crawl for ever.
MOST_GROWTH_ROUNDS: Final = 5
#: Passes over everything when offsets have shifted, until one finds nothing new.
MOST_REPAIR_PASSES: Final = 3
#: Empty answers one after another, before the total, after which no more are asked for: a total of
#: 999,999,999 must not make 200,000 requests.
MOST_EMPTY_IN_A_ROW: Final = 20
#: Holes read from the ledger at once: a million holes cost no memory.
HOLES_AT_ONCE: Final = 1000


class Plan(Heard):
    """One run's plan. Iterate `ranges()`; tell it what became of each by `Heard`'s methods."""

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
        redrive: bool = False,
    ) -> None:
        super().__init__(
            stats,
            page_size=page_size,
            may_change=pagination == "auto",
            numbered=paging.numbered_from is not None,
        )
        self._ledger, self._in_thread, self._paging = ledger, in_thread, paging
        self._by_cursor = pagination == "cursor"
        self._in_flight = in_flight
        self._redrive = redrive
        # Ids fewer than the total that earlier runs had left: known duplicates of the API.
        self._short_before = 0
        self._pass_no = self.first_pass = 1
        # First offsets asked for in this pass: a ledger row's key is (pass, first offset).
        self._asked_in_pass: set[int] = set()

    # --- the order of things ---------------------------------------------------------------------

    async def ranges(self) -> AsyncIterator[Wanted]:
        """What to fetch; waits for what is under way wherever the next step needs it.

        Ends when all is proved. Raises Incomplete, and DatabaseLost from the ledger.
        """
        state: LedgerState = await self._in_thread(self._ledger.state)
        self._pass_no = self.first_pass = state.last_pass + 1
        await self._recall(state)
        if state.page_limit is not None:
            self.page_size = min(self.page_size, state.page_limit)
        if not self._by_cursor:
            async for wanted in self._by_offset(state):
                yield wanted
                if self._unusable:
                    await self._settled()
                    break
        if self._by_cursor or self._unusable:
            async for wanted in cursor.pages(self, state):
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
            raise Incomplete("the first page couldn't be had, and with it the total")
        await self._say_where(state, front if known_first else None)
        moved = self._moved_since(front)
        # What lies behind the set that was known has been appended, not put in front.
        appended = 0 if front is None else max(front.received - state.reach, 0)
        if front is not None and known_first and front.inserted > appended:
            self._say_changed()  # also to the next run, should this one not get through them
            async for wanted in self._read_front(front.received, state):
                yield wanted
        steps = [self._look_at_the_old_end(front), self._fill_holes(state, moved), self._repair()]
        if self._redrive:
            steps.insert(0, self._read_rejected(moved))
        if self.total is None:
            steps.insert(0, self._read_to_the_end())
        for step in steps:
            async for wanted in step:
                yield wanted

    async def _recall(self, state: LedgerState) -> None:
        """What an earlier run saw moving and didn't live to read again is this one's doubt, too."""
        known = state.reach if state.total is None else state.total
        left = bool(await self._in_thread(self._ledger.holes, known, most=1))
        if state.reach and state.total is not None:
            self._total_before, self._left_before = state.total, left
        doubt = await self._in_thread(self._ledger.standing_doubt)
        self._changed_total, self._shrunk = doubt is not None, doubt == "shrunk"
        if not left and doubt is None:
            self._short_before = _short(known, await self._in_thread(self._ledger.sums))

    def _moved_since(self, front: EventPage | None) -> int:
        """By how many offsets events may have moved since the last run, before a hole of it."""
        if self._total_before is None or self.total is None:
            return 0
        grown = self.total - self._total_before
        return abs(grown) if front is None or front.inserted or grown < 0 else 0

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
                wanted = self._want(piece)
                position = wanted.range.stop  # of numbered pages behind the piece
                yield wanted
            await self._settled()
        while position < state.reach:
            self._last_page = None
            yield self._want(Range(position, self.page_size))
            await self._settled()
            page = self._last_page
            # A numbered page that was read in part has known events in it by right.
            if page is None or not (page.inserted or page.first_offset < position):
                return
            if page.first_offset + page.received <= position:
                return
            position = page.first_offset + page.received

    async def _look_at_the_old_end(self, front: EventPage | None) -> AsyncIterator[Wanted]:
        """The last event of a set that was complete, and what has been added behind it.

        When it is a new one, as many events have gone before it, and no total need show that: where
        the oldest are deleted as new ones come, it stands. Then all is read again.
        """
        if self._total_before is None or self._left_before or self.total is None:
            return
        end = min(self._total_before, self.total)
        if end <= (front.received if front else 0):
            return
        self._last_page = None
        yield self._want(Range(end - 1, self.page_size))
        await self._settled()
        page = self._last_page
        if page is None or page.inserted > max(page.first_offset + page.received - end, 0):
            self._shrunk = True
            self._say_doubt()
        else:
            self._stats.inc_value("events/reread", page.duplicates)

    async def _read_rejected(self, moved: int) -> AsyncIterator[Wanted]:
        """The rejected events' ranges again, in a new pass: who is good now leaves the rejections.

        Wider where the set has *moved* since the last run, as holes are.
        """
        rejected: list[int] = await self._in_thread(self._ledger.rejected_positions)
        logger.info("Fetching %d rejected events again.", len(rejected))
        self._next_pass()
        pieces = ranges.around(rejected, self.page_size)
        if self.total is not None:
            pieces = ranges.widen(pieces, moved, self.total)
        for piece in ranges.split(pieces, self.page_size):
            yield self._want(piece)
        await self._settled()

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
            serves = False
            for look in self._paging.behind(end, self.page_size):
                self._empty_at = self._last_page = None
                yield self._want(look)
                await self._settled()
                serves = serves or await self._serves_behind(end)
            if not serves:
                self.total = self._largest_total = end
                self._stats.set_value("crawl/total", end)
            position = end + self.page_size

    async def _fill_holes(self, state: LedgerState, moved: int) -> AsyncIterator[Wanted]:
        """Holes first, then the frontier, until none is left or nothing moves any more.

        The set has grown at its front or shrunk by *moved* events since the last run: then what
        was missing lies up to as many offsets to either side of the hole now.
        """
        stalled = growth_rounds = 0
        while not self._unusable:
            assert self.total is not None
            target = self.total
            before = await self._in_thread(self._ledger.coverage, target)
            async for wanted in self._fill_once(target, moved, below=state.total or 0):
                yield wanted
            if self._unusable:
                return
            moved, target = 0, min(target, self.total)
            if missing := await self._in_thread(self._ledger.holes, target, most=6):
                # Not pages: numbered ones may come short again and again, and fill nothing.
                covered = await self._in_thread(self._ledger.coverage, target)
                stalled = 0 if covered > before else stalled + 1
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
                if self._empty_in_a_row >= MOST_EMPTY_IN_A_ROW:
                    await self._settled()  # they are tried again, and may come yet
                    if self._empty_in_a_row >= MOST_EMPTY_IN_A_ROW:
                        self._empty_in_a_row = 0
                        return
        await self._settled()

    async def _look_past_the_end(self) -> AsyncIterator[Wanted]:
        """The end is where the offsets reach the total and a page past it is empty (api.md).

        A short last page is as good as an empty one behind it. Where the total has fallen, it is
        looked at twice. Where events come from behind it, the largest word is believed, and where
        they come from behind that, none.
        """
        assert self.total is not None
        end, largest = self.total, self._largest_total or 0
        if self._ended_at == end and end >= largest:
            return
        for _ in range(2 if end < largest else 1):
            self._empty_at = self._last_page = None
            yield self._want(Range(end, self.page_size))
            await self._settled()
            if await self._serves_behind(end):
                logger.warning("The API says %d events, but serves more.", end)
                if end < largest:
                    self.total = self._proved_total = largest
                    return
                self.total, self._total_lies = None, True
                async for wanted in self._read_to_the_end():
                    yield wanted
                return
        self._shrunk = self._shrunk or end < largest
        self.total = self._largest_total = end

    async def _read_again(self, total: int) -> AsyncIterator[Wanted]:
        """All of [0, *total*) once more. Raises Incomplete when a part of it can't be had now."""
        came = self._reread = []
        stalled = 0
        while missing := ranges.holes(came, min(total, self.total or total)):
            for piece in ranges.split(missing, self.page_size):
                yield self._want(piece)
            await self._settled()
            self._reread = came = ranges.union(came)
            left = ranges.holes(came, min(total, self.total or total))
            stalled = stalled + 1 if left == missing else 0
            if stalled >= MOST_STALLED_ROUNDS:
                raise Incomplete(
                    f"events moved while they were read, and {_in_words(missing)} couldn't be had "
                    "again: others may have been missed"
                )

    async def _serves_behind(self, end: int) -> bool:
        """Whether the page asked for at *end* brought events. Raises Incomplete when none came.

        It can be the last page once more: of numbered pages because the end is in the middle of
        one, of some servers wherever one asks behind the end.
        """
        page = self._last_page
        if page is None and self._empty_at is None:
            raise Incomplete(f"the page behind the end (offset {end}) couldn't be had")
        if page is None or page.first_offset + page.received <= end:
            return False
        last_id = await self._in_thread(self._ledger.last_id_before, end)
        return page.inserted > 0 or last_id is None or page.last_id != last_id

    async def _repair(self) -> AsyncIterator[Wanted]:
        """Offsets that shifted while they were read: read again until nothing new turns up.

        Suspected when the total changed and ids are fewer than it says (events came in before the
        offset: they stand at the front, or anywhere), or when it shrank (events went away before
        the offset: as many were skipped). Ids that the API serves twice, with a total that stands
        or known from the last complete run, are no reason.
        """
        for attempt in range(MOST_REPAIR_PASSES + 1):
            if self._unusable:
                return
            sums: LedgerSums = await self._in_thread(self._ledger.sums)
            assert self.total is not None
            short = _short(self.total, sums) - self._short_before - self._twice_in_page
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
            self._next_pass()
            self._shrunk = self._changed_total = False
            total_before = self.total
            async for wanted in self._read_again(self.total):
                yield wanted
            after: LedgerSums = await self._in_thread(self._ledger.sums)
            if after.inserted == sums.inserted and self.total == total_before:
                return  # a whole pass without a new id: what is short, the API serves twice
            self._changed_total = True
            self._shrunk = self.total < total_before  # in the pass itself
        raise Incomplete(
            f"events keep moving while they are read: {MOST_REPAIR_PASSES} more passes still "
            "found new ones, and others may have been missed"
        )

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
            ("crawl/total_found", self._total_lies or not self._total_said),
            ("crawl/stored", sums.inserted),
            ("crawl/rejected_now", sums.rejected_now),
            ("crawl/in_doubt", None),
            ("crawl/complete", True),
        ):
            self._stats.set_value(name, value)

    # --- small steps -----------------------------------------------------------------------------

    def _want(self, piece: Range) -> Wanted:
        piece = self._paging.aligned(piece, self.page_size)
        if piece.first in self._asked_in_pass:  # committed or not: nothing is lost by a new pass
            self._next_pass()
        self._asked_in_pass.add(piece.first)
        return Wanted(self._pass_no, self._hand_out(piece))

    def _next_pass(self) -> None:
        self._pass_no += 1
        self._asked_in_pass.clear()

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


def _short(total: int, sums: LedgerSums) -> int:
    """How many distinct ids fewer than *total* are stored or rejected."""
    return max(total - sums.inserted - sums.rejected_now, 0)


def _in_words(holes: list[Range]) -> str:
    """Holes for a person: the first few, as first–last."""
    shown = ", ".join(f"{hole.first}–{hole.stop - 1}" for hole in holes[:5])
    return f"missing are offsets {shown}{', …' if len(holes) > 5 else ''}"
