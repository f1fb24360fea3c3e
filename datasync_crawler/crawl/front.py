"""The front of the set: where a pass begins, and how far its events have moved."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from datasync_crawler.crawl.reader import Reader
from datasync_crawler.crawl.values import (
    Ask,
    CursorExpired,
    Empty,
    Failed,
    Fenced,
    Joined,
    LedgerState,
    LimitRefused,
    NoEndpoint,
    Page,
    Proof,
    Repeated,
    Verdict,
)
from datasync_crawler.crawl.verdict import nothing_served

logger = logging.getLogger(__name__)

#: Why a first page couldn't be fetched.
EVERY_LIMIT: Final = "the API rejects every page size. Check BULK_PAGE_SIZE and LIMIT_PARAM"
#: Pages read at the front until an event of the chain is seen, beside a quarter of the set.
MOST_FRONT: Final = 20


@dataclass(frozen=True, slots=True)
class Head:
    """The front now: its first id, and the number of events before the chain's first."""

    first_id: str
    depth: int


class Front:
    """`end_seen_at`: the offset where the last proof's tail has come alone; None: it hasn't."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.end_seen_at: int | None = None

    async def open(self, state: LedgerState, *, on_base: bool) -> Verdict | NoEndpoint | None:
        """Begins a new pass with the front page; builds on the last proof, if its anchors fit."""
        reader = self._reader
        reader.begin(state.pass_no + 1)
        front = await self._front_page()
        reader.learn(front)
        if isinstance(front, NoEndpoint):
            return front
        if isinstance(front, Empty):
            return nothing_served(front.total, is_first=not state.pass_no)
        if not isinstance(front, Page):
            cause = front.cause if isinstance(front, Failed) else EVERY_LIMIT
            sentence = f"the first page couldn't be fetched: {cause}"
            return Verdict(complete=False, sentences=(sentence,), rerun=True)
        if reader.numbered:
            await self._fix_width(front)
        if on_base and state.proof is not None:
            await self._build_on(state.proof, front)
        await self._report_covered()
        return None

    async def _front_page(self) -> "Page | Empty | Repeated | Failed | LimitRefused | NoEndpoint":
        """The first page of a pass, with the largest limit that the API accepts."""
        reader = self._reader
        while True:
            front = await reader.world.fetch(Ask(reader.pass_no, 0, reader.sizes.wanted))
            smaller = reader.sizes.smaller_than(reader.sizes.wanted)
            if not isinstance(front, LimitRefused) or smaller is None:
                assert not isinstance(front, CursorExpired | Fenced)
                return front
            reader.sizes = smaller
            await self._reader.world.ledger.remember(page_limit=smaller.size)

    async def _build_on(self, proof: Proof, front: Page) -> None:
        """Looks for the anchors of a proof; if they fit, only new events have to be fetched."""
        reader = self._reader
        if front.cached_s:
            again = await reader.check(0, reader.sizes.size)
            front = again if isinstance(again, Page) else front
        at = _index(front.ids, proof.head_id)
        in_front = at is not None
        if at is None and reader.extent.total is not None:
            guess = reader.extent.total - proof.count - reader.sizes.size // 2
            page = await reader.check(guess, reader.sizes.size) if guess > 0 else None
            if isinstance(page, Page) and proof.head_id in page.ids:
                at = page.ask.offset + page.ids.index(proof.head_id)
        if at is None or proof.count < 2:
            return
        stop = at + proof.count
        tail = await reader.world.fetch(reader.ask(stop, stop + reader.sizes.size))
        reader.learn(tail)
        if not isinstance(tail, Page):
            return
        last = stop - tail.ask.offset - 1  # a wide overlap may be longer than the answer
        if last < len(tail.ids) and tail.ids[last] == proof.tail_id:
            facts = [Joined(at, "base")] + [Joined(at + 1, "anchor")] * in_front
            await self._reader.world.ledger.join(reader.pass_no, facts)
            if not tail.stored and not tail.cached_s:
                self.end_seen_at = stop

    async def resume(self, state: LedgerState) -> bool:
        """Resumes the newest pass; False if its events can't be found at the front."""
        reader = self._reader
        if state.open_pass is None or (reader.numbered and state.width is None):
            return False
        reader.begin(state.open_pass)
        if reader.numbered and state.width is not None:
            reader.sizes = type(reader.sizes).of(state.width)
        page = await reader.check(0, reader.sizes.size)
        found = await self._reader.located(page)
        if found is None and reader.extent.total is not None and state.last_total is not None:
            grown = reader.extent.total - state.last_total
            if grown > 0:
                page = await reader.check(grown - reader.sizes.size // 2, reader.sizes.size)
                found = await self._reader.located(page)
        if found is None:
            logger.info("The last run's events weren't found at the front: starting a new pass.")
            return False
        figures = await self._reader.world.ledger.figures(reader.pass_no)
        reader.shift = found - figures.deep
        await self._report_covered()
        return True

    async def find_head(self, served: int) -> Head | None:
        """Reads from the front on until an event of the chain is seen; the events before it are
        new.
        """
        reader = self._reader
        at, first, last = 0, "", ""
        for _ in range(MOST_FRONT + served // (4 * reader.sizes.size)):
            page = await reader.check(at, reader.sizes.size)
            if not isinstance(page, Page):
                return None
            if last and last not in page.ids:
                at, first, last = 0, "", ""
                continue
            first = first or page.ids[0]
            moved = await self._reader.located(page)
            if moved is not None:
                return Head(first, moved)
            at, last = page.ask.offset + len(page.ids) - 1, page.ids[-1]
        return None

    async def is_first(self, first_id: str) -> bool:
        """Whether the set still begins with an event. Counts alone don't show that as many events
        have gone at the front as came in at the end.
        """
        page = await self._reader.check(0, self._reader.sizes.size)
        return isinstance(page, Page) and page.ids[0] == first_id

    async def find_grid(self) -> bool:
        """Whether the API rounds offsets down, seen twice. It is read by pages that don't overlap
        from now on, at offsets that it doesn't round.
        """
        reader, size = self._reader, self._reader.sizes.size
        if reader.numbered:
            return False
        sizes = set()
        for _ in range(2):
            front = await reader.check(0, size)
            last = len(front.ids) - 1 if isinstance(front, Page) else 0
            inside = await reader.check(last, size) if last > 1 else None
            if not isinstance(front, Page) or not isinstance(inside, Page):
                return False
            begins = _index(front.ids, inside.ids[0])
            if begins is None or begins >= last - 1:  # an event more, or offsets that count from 1
                return False
            sizes.add(begins or len(front.ids))
            page = await reader.check(max(sizes), max(sizes))
            if not isinstance(page, Page) or _index(front.ids, page.ids[0]) != (begins or None):
                return False
        if len(sizes) > 1:
            return False
        logger.info("The API rounds offsets down: reading pages of %d without overlap.", *sizes)
        reader.sizes = type(reader.sizes).of(sizes.pop())
        reader.numbered, reader.is_alone, reader.shuffled = True, True, False
        return True

    async def _fix_width(self, front: Page) -> None:
        """Sets the page size to what a numbered page really holds; the page is read twice."""
        reader, came = self._reader, len(front.ids)
        total = reader.extent.total
        if came == reader.sizes.size or (total is not None and came >= total):
            return
        again = await reader.check(0, reader.sizes.size)
        if isinstance(again, Page):
            reader.sizes = type(reader.sizes).of(max(came, len(again.ids)))

    async def _report_covered(self) -> None:
        figures = await self._reader.world.ledger.figures(self._reader.pass_no)
        self._reader.world.covered(figures.covered)


def _index(ids: Sequence[str], wanted: str) -> int | None:
    return ids.index(wanted) if wanted in ids else None
