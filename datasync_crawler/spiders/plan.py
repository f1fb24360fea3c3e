"""The plan of a run: which ranges are fetched, in which order, until all is proved to be there.

Owns the order of things: the front page, new events at the front, holes, the frontier, a second
look where the API contradicts itself, repair of shifted offsets, the proof. Asks the ledger, is
told by the spider what became of each range. Must not know of requests and responses.
"""

import logging
from collections.abc import AsyncIterator
from typing import Final

from datasync_crawler.core import ranges
from datasync_crawler.core.paging import Wanted
from datasync_crawler.core.ranges import Range
from datasync_crawler.items import EventPage
from datasync_crawler.spiders import cursor
from datasync_crawler.spiders.asking import Asking, ids_short, in_words
from datasync_crawler.spiders.heard import Incomplete
from datasync_crawler.store.ledger import LedgerState, LedgerSums

logger = logging.getLogger(__name__)

#: Rounds over the holes without a single page committed, before what is missing is reported.
MOST_STALLED_ROUNDS: Final = 2
#: Rounds that only fetch what the API has added meanwhile: a set that grows for ever must not
#: keep the crawl for ever.
MOST_GROWTH_ROUNDS: Final = 20
#: Passes over everything when offsets have shifted, until one finds nothing new.
MOST_REPAIR_PASSES: Final = 3
#: Empty answers one after another, before the total, after which no more are asked for: a total of
#: 999,999,999 must not make 200,000 requests.
MOST_EMPTY_IN_A_ROW: Final = 20


class Plan(Asking):
    """One run's plan. Iterate `ranges()`; tell it what became of each by `Heard`'s methods."""

    # --- the order of things ---------------------------------------------------------------------

    async def ranges(self) -> AsyncIterator[Wanted]:
        """What to fetch; waits for what is under way wherever the next step needs it.

        Ends when all is proved. Raises Incomplete, and DatabaseLost from the ledger.
        """
        state: LedgerState = await self.in_thread(self.ledger.state)
        self.pass_no = self.first_pass = state.last_pass + 1
        await self.recall(state)
        if state.page_limit is not None:
            self.page_size = min(self.page_size, state.page_limit)
        if not self.by_cursor:
            async for wanted in self._by_offset(state):
                yield wanted
                if self.unusable:
                    await self.settled()
                    break
        if self.by_cursor or self.unusable:
            async for wanted in cursor.pages(self, state):
                yield wanted
        await self.prove()

    async def _by_offset(self, state: LedgerState) -> AsyncIterator[Wanted]:
        known_first = state.reach > 0 and not await self.in_thread(self.ledger.holes, 1)
        yield self.want(Range(0, self.page_size))
        await self.settled()
        if self.unusable:
            return
        front = self.last_page
        if front is None and self.empty_at != 0:
            raise Incomplete("the first page couldn't be had, and with it the total")
        await self.say_where(state, front if known_first else None)
        moved = self._moved_since(front)
        # What lies behind the set that was known has been appended, not put in front.
        appended = 0 if front is None else max(front.received - state.reach, 0)
        if front is not None and known_first and front.inserted > appended:
            self.say_changed()  # also to the next run, should this one not get through them
            async for wanted in self._read_front(front.received, state):
                yield wanted
        steps = [self._look_at_the_old_end(front), self._fill_holes(state, moved), self._repair()]
        if self.redrive:
            steps.insert(0, self._read_rejected(moved))
        if self.total is None:
            steps.insert(0, self._read_to_the_end())
        for step in steps:
            async for wanted in step:
                yield wanted

    def _moved_since(self, front: EventPage | None) -> int:
        """By how many offsets events may have moved since the last run, before a hole of it."""
        if self.total_before is None or self.total is None:
            return 0
        grown = self.total - self.total_before
        return abs(grown) if front is None or front.inserted or grown < 0 else 0

    async def _read_front(self, position: int, state: LedgerState) -> AsyncIterator[Wanted]:
        """New events at the front (newest-first order): on until a page is all known.

        As many as the total has grown by are fetched side by side; from there one after another.
        """
        grown = (self.total or 0) - (state.total or 0)
        if grown > position:
            logger.info("About %d new events stand at the front: reading them.", grown)
            for piece in ranges.split([Range(position, grown - position)], self.page_size):
                wanted = self.want(piece)
                position = wanted.range.stop  # of numbered pages behind the piece
                yield wanted
            await self.settled()
        while position < state.reach:
            self.last_page = None
            yield self.want(Range(position, self.page_size))
            await self.settled()
            page = self.last_page
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
        if self.total_before is None or self.left_before or self.total is None:
            return
        end = min(self.total_before, self.total)
        if end <= (front.received if front else 0):
            return
        self.last_page = None
        yield self.want(Range(end - 1, self.page_size))
        await self.settled()
        page = self.last_page
        if page is None or page.inserted > max(page.first_offset + page.received - end, 0):
            self.shrunk = True
            self.say_doubt()
        else:
            self.stats.inc_value("events/reread", page.duplicates)

    async def _read_rejected(self, moved: int) -> AsyncIterator[Wanted]:
        """The rejected events' ranges again, in a new pass: who is good now leaves the rejections.

        Wider where the set has *moved* since the last run, as holes are.
        """
        rejected: list[int] = await self.in_thread(self.ledger.rejected_positions)
        logger.info("Fetching %d rejected events again.", len(rejected))
        self.next_pass()
        pieces = ranges.around(rejected, self.page_size)
        if self.total is not None:
            pieces = ranges.widen(pieces, moved, self.total)
        for piece in ranges.split(pieces, self.page_size):
            yield self.want(piece)
        await self.settled()

    async def _read_to_the_end(self) -> AsyncIterator[Wanted]:
        """Without any total: page after page until an empty one, and a second look behind it.

        Where each look time and again brings the few that were added meanwhile, the end is there
        all the same.
        """
        logger.warning(
            "The API doesn't say reliably how many events there are: reading until a page is empty."
        )
        position = await self.reach()
        growth_rounds = 0
        while self.total is None:
            self.empty_at = None
            stalled = 0
            came = self.committed_pages
            while self.empty_at is None and stalled < MOST_STALLED_ROUNDS * self.in_flight:
                before = self.committed_pages
                yield self.want(Range(position, self.page_size))
                position += self.page_size
                await self.fewer_outstanding_than(self.in_flight)
                stalled = 0 if self.committed_pages > before else stalled + 1
            await self.settled()
            few = self.committed_pages - came <= self.in_flight
            growth_rounds = growth_rounds + 1 if few else 0
            end = await self.reach()
            serves = False
            for look in self.paging.behind(end, self.page_size):
                self.empty_at = self.last_page = None
                yield self.want(look)
                await self.settled()
                serves = serves or await self.serves_behind(end)
            if serves and growth_rounds >= MOST_GROWTH_ROUNDS:
                serves, self.ended_at = False, end  # what comes from now on is the next run's
            if not serves:
                self.total = self.largest_total = end
                self.stats.set_value("crawl/total", end)
            position = end + self.page_size

    async def _fill_holes(self, state: LedgerState, moved: int) -> AsyncIterator[Wanted]:
        """Holes first, then the frontier, until none is left or nothing moves any more.

        The set has grown at its front or shrunk by *moved* events since the last run: then what
        was missing lies up to as many offsets to either side of the hole now.
        """
        stalled = growth_rounds = 0
        while not self.unusable:
            assert self.total is not None
            target = self.total
            before = await self.in_thread(self.ledger.coverage, target)
            async for wanted in self._fill_once(target, moved, below=state.total or 0):
                yield wanted
            if self.unusable:
                return
            moved, target = 0, min(target, self.total)
            if missing := await self.in_thread(self.ledger.holes, target, most=6):
                # Not pages: numbered ones may come short again and again, and fill nothing.
                covered = await self.in_thread(self.ledger.coverage, target)
                stalled = 0 if covered > before else stalled + 1
                if stalled >= MOST_STALLED_ROUNDS:
                    raise Incomplete(in_words(missing))
                continue
            may_grow, lied = growth_rounds < MOST_GROWTH_ROUNDS, self.total_lies
            async for wanted in self._look_past_the_end(may_grow=may_grow):
                yield wanted
            if self.total <= target or not (may_grow or self.total_lies > lied):
                self.stats.set_value("crawl/added_since", max(self.total - target, 0))
                self.total = target
                return
            growth_rounds += 1

    async def _fill_once(self, target: int, moved: int, *, below: int) -> AsyncIterator[Wanted]:
        """Every hole once; those *below* an offset are wider by *moved* to either side."""
        async for hole in self.holes(target):
            wide = ranges.widen([hole], moved if hole.first < below else 0, target)
            for piece in ranges.split(wide, self.page_size):
                # The last one asks for a whole page: when less comes, that is the end.
                last = piece.stop >= target
                yield self.want(Range(piece.first, self.page_size) if last else piece)
                if self.empty_in_a_row >= MOST_EMPTY_IN_A_ROW:
                    await self.settled()  # they are tried again, and may come yet
                    if self.empty_in_a_row >= MOST_EMPTY_IN_A_ROW:
                        self.empty_in_a_row = 0
                        return
        await self.settled()

    async def _look_past_the_end(self, *, may_grow: bool) -> AsyncIterator[Wanted]:
        """The end is where the offsets reach the total and a page past it is empty (api.md).

        A short last page is as good as an empty one behind it. Where the total has fallen, it is
        looked at twice. Where events come from behind it, the largest word is believed. Where they
        come from behind that, the set has grown, if the total has, too; else no word is believed.
        Where it grows on and on (*may_grow* is false), the front page tells: a total that says how
        far the server has come is small again there.
        """
        assert self.total is not None
        end, largest = self.total, self.largest_total or 0
        if self.ended_at == end and end >= largest:
            return
        for _ in range(2 if end < largest else 1):
            self.empty_at = self.last_page = None
            yield self.want(Range(end, self.page_size))
            await self.settled()
            if await self.serves_behind(end):
                if (grown := self.total) > end >= largest:
                    if may_grow:
                        return
                    self.last_page = None
                    yield self.want(Range(0, self.page_size))
                    await self.settled()
                    if self.last_page is not None and self.total >= grown:
                        return
                logger.warning("The API says %d events, but serves more.", end)
                if end < largest:
                    self.total = self.proved_total = largest
                    return
                self.total, self.total_lies = None, True
                async for wanted in self._read_to_the_end():
                    yield wanted
                return
        self.shrunk = self.shrunk or end < largest
        self.total = self.largest_total = end

    async def _read_again(self, total: int) -> AsyncIterator[Wanted]:
        """All of [0, *total*) once more. Raises Incomplete when a part of it can't be had now."""
        came = self.reread = []
        stalled = 0
        while missing := ranges.holes(came, min(total, self.total or total)):
            for piece in ranges.split(missing, self.page_size):
                yield self.want(piece)
            await self.settled()
            self.reread = came = ranges.union(came)
            left = ranges.holes(came, min(total, self.total or total))
            stalled = stalled + 1 if left == missing else 0
            if stalled >= MOST_STALLED_ROUNDS:
                raise Incomplete(
                    f"events moved while they were read, and {in_words(missing)} couldn't be had "
                    "again: others may have been missed"
                )

    async def _repair(self) -> AsyncIterator[Wanted]:
        """Offsets that shifted while they were read: read again until nothing new turns up.

        Suspected when the total changed and ids are fewer than it says (events came in before the
        offset: they stand at the front, or anywhere), or when it shrank (events went away before
        the offset: as many were skipped). Ids that the API serves twice, with a total that stands
        or known from the last complete run, are no reason.
        """
        for attempt in range(MOST_REPAIR_PASSES + 1):
            if self.unusable:
                return
            sums: LedgerSums = await self.in_thread(self.ledger.sums)
            assert self.total is not None
            short = ids_short(self.total, sums) - self.short_before - self.twice_in_page
            # A total that we found ourselves says nothing of events that have come in since.
            enough = short <= 0 and not (attempt and self.total_lies)
            if not self.shrunk and (enough or not self.changed_total):
                return
            if attempt == MOST_REPAIR_PASSES:
                break
            logger.warning(
                "The API's events moved while they were read (%d ids stored and rejected of %d): "
                "reading again, pass %d.",
                sums.inserted + sums.rejected_now, self.total, attempt + 1,
            )  # fmt: skip
            self.stats.inc_value("crawl/repair_passes")
            self.next_pass()
            self.shrunk = self.changed_total = False
            total_before = self.total
            async for wanted in self._read_again(self.total):
                yield wanted
            after: LedgerSums = await self.in_thread(self.ledger.sums)
            if after.inserted == sums.inserted and self.total == total_before:
                return  # a whole pass without a new id: what is short, the API serves twice
            self.changed_total = True
            self.shrunk = self.total < total_before  # in the pass itself
        raise Incomplete(
            f"events keep moving while they are read: {MOST_REPAIR_PASSES} more passes still "
            "found new ones, and others may have been missed"
        )
