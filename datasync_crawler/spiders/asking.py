"""What a run may do at each step of its plan: ask the ledger, hand out a range, prove the end.

Owns the passes and what earlier runs have left. Must not decide what comes after what (`plan`, and
`cursor` for the second road), nor know of requests and responses.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from datasync_crawler.core.paging import Paging, Wanted
from datasync_crawler.core.ranges import Range
from datasync_crawler.items import EventPage
from datasync_crawler.spiders.heard import Heard, Incomplete, Stats
from datasync_crawler.store.ledger import Ledger, LedgerState, LedgerSums

logger = logging.getLogger(__name__)

#: Holes read from the ledger at once: a million holes cost no memory.
HOLES_AT_ONCE: Final = 1000


class Asking(Heard):
    """The steps that `plan` and `cursor` are made of. Raises Incomplete, and DatabaseLost from the
    ledger.
    """

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
        self.ledger, self.in_thread, self.paging = ledger, in_thread, paging
        self.by_cursor = pagination == "cursor"
        self.in_flight = in_flight
        self.redrive = redrive
        # Ids fewer than the total that earlier runs had left: known duplicates of the API.
        self.short_before = 0
        self.pass_no = self.first_pass = 1
        # First offsets asked for in this pass: a ledger row's key is (pass, first offset).
        self._asked_in_pass: set[int] = set()

    # --- what earlier runs have left --------------------------------------------------------------

    async def recall(self, state: LedgerState) -> None:
        """What an earlier run saw moving and didn't live to read again is this one's doubt, too."""
        known = state.reach if state.total is None else state.total
        left = bool(await self.in_thread(self.ledger.holes, known, most=1))
        if state.reach and state.total is not None:
            self.total_before, self.left_before = state.total, left
        doubt = await self.in_thread(self.ledger.standing_doubt)
        self.changed_total, self.shrunk = doubt is not None, doubt == "shrunk"
        if not left and doubt is None:
            self.short_before = ids_short(known, await self.in_thread(self.ledger.sums))

    async def say_where(self, state: LedgerState, reread: EventPage | None) -> None:
        """What the runs before this one have committed, for the log and for progress."""
        if reread is not None:
            self.stats.inc_value("events/reread", reread.duplicates)
        covered = await self.in_thread(self.ledger.coverage, self.total or state.reach)
        received = self.stats.get_value("events/received", 0)
        here = received - self.stats.get_value("events/reread", 0)
        self.stats.set_value("crawl/covered_before", max(covered - here, 0))
        if state.last_pass:
            logger.info(
                "Going on where the last run left off: %d of %s events are committed.",
                covered,
                "an unknown number of" if self.total is None else self.total,
            )

    # --- handing out ------------------------------------------------------------------------------

    def want(self, piece: Range) -> Wanted:
        """To be yielded: this range, or the whole pages around it."""
        piece = self.paging.aligned(piece, self.page_size)
        if piece.first in self._asked_in_pass:  # committed or not: nothing is lost by a new pass
            self.next_pass()
        self._asked_in_pass.add(piece.first)
        return Wanted(self.pass_no, self.hand_out(piece))

    def next_pass(self) -> None:
        """From now on the ledger takes the same ranges again."""
        self.pass_no += 1
        self._asked_in_pass.clear()

    def hand_out(self, piece: Range) -> Range:
        """It is under way from now on."""
        self.outstanding.add(piece.first)
        return piece

    async def holes(self, target: int) -> AsyncIterator[Range]:
        """All holes below *target* as they were when each part of the list was read."""
        after = 0
        while holes := await self.in_thread(
            self.ledger.holes, target, after=after, most=HOLES_AT_ONCE
        ):
            for hole in holes:
                yield hole
            after = holes[-1].stop

    async def reach(self) -> int:
        """The first offset behind all that has ever been committed."""
        state: LedgerState = await self.in_thread(self.ledger.state)
        return state.reach

    async def serves_behind(self, end: int) -> bool:
        """Whether the page asked for at *end* brought events. Raises Incomplete when none came.

        It can be the last page once more: of numbered pages because the end is in the middle of
        one, of some servers wherever one asks behind the end.
        """
        page = self.last_page
        if page is None and self.empty_at is None:
            raise Incomplete(f"the page behind the end (offset {end}) couldn't be had")
        if page is None or page.first_offset + page.received <= end:
            return False
        last_id = await self.in_thread(self.ledger.last_id_before, end)
        return page.inserted > 0 or last_id is None or page.last_id != last_id

    # --- the proof --------------------------------------------------------------------------------

    async def prove(self) -> None:
        """Holds the ledger against the total and says what is to be known beside it."""
        assert self.total is not None
        missing = await self.in_thread(self.ledger.holes, self.total, most=6)
        if missing:
            raise Incomplete(in_words(missing))
        sums: LedgerSums = await self.in_thread(self.ledger.sums)
        for name, value in (
            ("crawl/covered", self.total),
            ("crawl/total", self.total),
            ("crawl/total_found", self.total_lies or not self.total_said),
            ("crawl/stored", sums.inserted),
            ("crawl/rejected_now", sums.rejected_now),
            ("crawl/in_doubt", None),
            ("crawl/complete", True),
        ):
            self.stats.set_value(name, value)


def ids_short(total: int, sums: LedgerSums) -> int:
    """How many distinct ids fewer than *total* are stored or rejected."""
    return max(total - sums.inserted - sums.rejected_now, 0)


def in_words(holes: list[Range]) -> str:
    """Holes for a person: the first few, as first–last."""
    shown = ", ".join(f"{hole.first}–{hole.stop - 1}" for hole in holes[:5])
    return f"missing are offsets {shown}{', …' if len(holes) > 5 else ''}"
