"""Reads the ranges of one pass concurrently, and compares each page with its neighbours.

Owns how a gap is cut into requests and what is learned from the answers. `planner` decides what is
read when.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from datasync_crawler.crawl.chunks import LEAST_PAGES, Chunks, cut
from datasync_crawler.crawl.extent import Extent
from datasync_crawler.crawl.ports import World
from datasync_crawler.crawl.seams import LEAST_WIDE, Comparison, SeamMatcher, joined
from datasync_crawler.crawl.sizes import PageSize
from datasync_crawler.crawl.values import (
    Ask,
    Chunk,
    Empty,
    Failed,
    Gap,
    Joined,
    LimitRefused,
    NoEndpoint,
    Outcome,
    Page,
    Repeated,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Gaps read from the ledger at once, so that a million of them take no memory.
GAPS_AT_ONCE: Final = 1000
#: Empty answers in a row that end a round: a total of 999,999,999 must not cost 200,000 requests.
MOST_EMPTY: Final = 8
#: Failures in a row that end a round, each after all its retries.
MOST_FAILED: Final = 16
#: Seconds that a check waits at most for a cache to expire.
LONGEST_CACHE_S: Final = 60.0
#: Answers from a cache in a row after which a check has failed.
MOST_CACHED: Final = 3
#: The first overlap above one event, where a page is at least six times as long.
FIRST_WIDE: Final = 64
#: Pages that may wait for their commit, beyond twice the requests in flight.
WAITING: Final = 8
#: Seams stored at once.
JOINED_AT_ONCE: Final = 20
#: Seconds between two looks at the chunks that other processes still hold.
OTHERS_PAUSE_S: Final = 0.25


@dataclass(slots=True)
class Round:
    """The tally of one round over the gaps. `cause`: of the last failure. `is_probe`: a request at
    the end, where short pages don't show the page size.
    """

    most_empty: int = MOST_EMPTY
    pages: int = 0
    empty: int = 0
    empty_in_a_row: int = 0
    failed_in_a_row: int = 0
    cause: str = ""
    unusable: NoEndpoint | None = None
    joined: list[Joined] = field(default_factory=list)
    last_ids: set[str] = field(default_factory=set)
    widened: bool = False
    is_probe: bool = False

    @property
    def is_over(self) -> bool:
        """Whether no more requests are to be made in it."""
        return (
            self.unusable is not None
            or self.empty_in_a_row >= self.most_empty
            or self.failed_in_a_row >= MOST_FAILED
        )


class Reader:
    """`shift`: events added before the pass's ranges since they were read. `width`: the overlap of
    neighbouring ranges, in events. `shuffled`: the order isn't stable among neighbours. `is_alone`:
    other processes would read the ranges in another way.
    """

    def __init__(self, world: World, *, page_size: int, in_flight: int, numbered: bool) -> None:
        self.world, self.in_flight, self.numbered = world, in_flight, numbered
        self.sizes = PageSize.of(page_size if numbered else max(page_size, 2))
        self.extent = Extent()
        self.width, self.shuffled, self.is_alone = 1, False, False
        self.pass_no = self.checks = self.shift = 0
        self.seam_matcher = SeamMatcher()

    def recall(self, page_limit: int | None, overlap: int) -> None:
        """Applies what was learned before: the largest limit that the API accepted, and the
        overlap that an unstable order needs.
        """
        if page_limit is not None and page_limit < self.sizes.wanted:
            self.sizes = PageSize.of(page_limit)
        self.shuffled = self.shuffled or overlap > 1
        if overlap >= LEAST_WIDE and self.has_seams:
            self.width = max(self.width, min(overlap, self.sizes.size // 3))

    def begin(self, pass_no: int) -> None:
        """Begins a pass."""
        self.pass_no, self.shift = pass_no, 0
        self.sizes = replace(self.sizes, reach=0)
        self.seam_matcher = SeamMatcher()

    @property
    def has_seams(self) -> bool:
        """Whether ranges overlap: not with numbered pages, nor with pages of one event."""
        return not self.numbered and self.sizes.size > 1

    @property
    def step(self) -> int:
        """How far one request of a gap reaches, in events."""
        return self.sizes.size - self._overlap if self.has_seams else self.sizes.size

    @property
    def _overlap(self) -> int:
        """The overlap that fits into a page: pages may have become shorter since it was widened."""
        return max(1, min(self.width, self.sizes.size // 3))

    @property
    def too_small(self) -> int:
        """The page size, where it is too small for an order that isn't stable; else 0."""
        size = self.sizes.size
        return size if self.shuffled and size < 3 * LEAST_WIDE else 0

    # --- single requests --------------------------------------------------------------------------

    def ask(self, at: int, stop: int, floor: int = 0) -> Ask:
        """The request for the beginning of the gap [at, stop). The nearest range before it begins
        at *floor*.
        """
        if self.numbered:
            size = self.sizes.size
            inside = at % size
            return Ask(self.pass_no, at, size - inside, inside, self.shift)
        size = self.sizes.ask(at // self.sizes.size)
        if not at or not self.has_seams:
            return Ask(self.pass_no, at, min(size, stop - at), 0, self.shift)
        first = max(at - self._overlap + 1, floor + 1)
        return Ask(self.pass_no, first, min(size - 1, stop - first), 1, self.shift, at)

    async def check(self, offset: int, limit: int) -> Outcome:
        """Reads what is at *offset* now, not from a cache."""
        for _ in range(MOST_CACHED):
            self.checks -= 1
            ask = Ask(self.checks, max(offset, 0), limit)
            outcome = await self.world.fetch(ask)
            self.learn(outcome)
            if not isinstance(outcome, Page) or not outcome.cached_s:
                return outcome
            await self.world.pause(min(outcome.cached_s, LONGEST_CACHE_S))
        return Failed(ask, "each answer came from a cache, after waiting for it to expire")

    def learn(self, outcome: Outcome) -> None:
        """Takes the total of an answer."""
        if isinstance(outcome, Page | Empty | Repeated):
            came = len(outcome.ids) if isinstance(outcome, Page) else 0
            self.extent.learn(outcome.total, outcome.ask.offset, came)

    def is_end(self, served: int) -> bool:
        """Whether the API's total confirms that nothing is behind the offset *served*, where a
        response ended early. Not if responses have ended early elsewhere.
        """
        return self.extent.is_known and self.extent.total == served and not self.sizes.is_ragged

    def target(self, stop: int) -> int:
        """The pass's offset up to which to read, when its chain reaches to *stop*."""
        return self.extent.target(stop + self.shift, self.sizes.size) - self.shift

    async def located(self, page: object) -> int | None:
        """By how many events the chain has moved, by *page*; None if it holds no edge of it."""
        if not isinstance(page, Page):
            return None
        edges = await self.world.ledger.locate(self.pass_no, page.ids)
        if not edges:
            return None
        position, edge = edges[0]
        return page.ask.offset + page.ids.index(edge) - position

    # --- many ranges ------------------------------------------------------------------------------

    async def fill(self, target: int, most_empty: int, *, shared: bool) -> Round:
        """Requests each gap of the chain below *target* once; if *shared*, with other processes."""
        now, after = Round(most_empty), 0
        while not now.is_over:
            gaps = await self.world.ledger.gaps(
                self.pass_no, target, after=after, most=GAPS_AT_ONCE
            )
            if not gaps:
                break
            if shared and sum(gap.stop - gap.first for gap in gaps) > LEAST_PAGES * self.step:
                await self._share(gaps, now)
            else:
                await self._fetch_all(_in_turn(self._pieces(gaps)), now)
            after = gaps[-1].stop
        await self._store_seams(now)
        return now

    async def _share(self, gaps: Iterable[Gap], now: Round) -> None:
        """Offers the gaps as chunks, and fetches those that no other process claims."""
        leases, width = self.world.leases, self.width
        for offered in cut(gaps, self):
            await leases.offer(offered)
            claimed = await self.take_chunks(now)
            while not (ends := now.is_over or self.width != width) and await leases.left():
                await self.world.pause(OTHERS_PAUSE_S)
                claimed += await self.take_chunks(now)
            if ends:
                await self.withdraw()
                break
            now.pages += max(len(offered) - claimed, 0)  # by others, at least a page each

    async def withdraw(self) -> None:
        """Deletes the chunks that nobody holds, and waits for the others."""
        while await self.world.leases.withdraw():
            await self.world.pause(OTHERS_PAUSE_S)

    async def take_chunks(self, now: Round) -> int:
        """Claims chunks and fetches them, until there is none to claim; returns their number."""
        chunks = Chunks(self)
        await self._fetch_all(chunks.next, now, chunks)
        await self._store_seams(now)
        await chunks.finish()
        return chunks.claimed

    async def take(self, chunk: Chunk) -> Iterator[Ask]:
        """The requests of a chunk that was claimed: of what isn't committed of it."""
        if chunk.pass_no != self.pass_no:
            self.begin(chunk.pass_no)
        self.shift = chunk.shift
        self.recall(chunk.page_limit, chunk.overlap)
        if self.numbered:
            self.sizes = PageSize.of(chunk.page_size)
        gaps = [chunk.gap]
        if chunk.lease is not None and chunk.lease.epoch > 1:  # another process has begun it
            gaps = await self.world.ledger.gaps(
                chunk.pass_no, chunk.gap.stop, after=chunk.gap.first, most=GAPS_AT_ONCE
            )
        return self._pieces(gaps)

    def _pieces(self, gaps: Iterable[Gap]) -> Iterator[Ask]:
        for gap in gaps:
            at, floor = gap.first, gap.floor
            while at < gap.stop:
                piece = self.ask(at, gap.stop, floor)
                yield piece
                at, floor = piece.first + piece.count, piece.first

    async def accept(self, outcome: Outcome) -> None:
        """Takes in the answer to a range that was requested outside a round."""
        now = Round(is_probe=True)
        self._accept(outcome, now)
        await self._store_seams(now)

    async def _fetch_all(
        self,
        next_piece: Callable[[], Awaitable[Ask | None]],
        now: Round,
        chunks: Chunks | None = None,
    ) -> None:
        under_way: set[asyncio.Future[Outcome]] = set()
        try:
            while not now.is_over and (piece := await next_piece()) is not None:
                under_way.add(asyncio.ensure_future(self.world.fetch(piece)))
                # A slow start: the first pages show the page size and the total.
                if len(under_way) >= min(2 * self.in_flight + WAITING, 2 + 2 * now.pages):
                    under_way = await self._accept_first(under_way, now, chunks)
            while under_way:
                under_way = await self._accept_first(under_way, now, chunks)
        finally:
            _abandon(under_way)

    async def _accept_first(
        self, under_way: "set[asyncio.Future[Outcome]]", now: Round, chunks: Chunks | None
    ) -> "set[asyncio.Future[Outcome]]":
        done, left = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        for fetched in done:
            outcome = fetched.result()
            self._accept(outcome, now)
            if chunks is not None:
                chunks.answered(outcome)
        if len(now.joined) >= JOINED_AT_ONCE or now.widened:
            await self._store_seams(now)
        return left

    def _accept(self, outcome: Outcome, now: Round) -> None:
        """Takes in one answer of a round."""
        self.learn(outcome)
        if isinstance(outcome, Page) and outcome.stored:
            now.pages += 1
            now.failed_in_a_row = 0
            again = outcome.ids[-1] in now.last_ids  # a last page that is served for ever
            now.empty_in_a_row = now.empty_in_a_row + 1 if again else 0
            now.last_ids.add(outcome.ids[-1])
            self._accept_page(outcome, now)
        elif isinstance(outcome, Repeated) and outcome.ignored:
            now.unusable = NoEndpoint("It ignores the offset: the same page comes at each")
        elif isinstance(outcome, Page | Empty | Repeated):
            now.empty += 1
            now.empty_in_a_row += 1
        elif isinstance(outcome, NoEndpoint):
            now.unusable = outcome
        elif isinstance(outcome, Failed):
            now.cause = outcome.cause
            now.failed_in_a_row += 1
        elif isinstance(outcome, LimitRefused):  # another process asks for less than this one
            self.sizes = self.sizes.smaller_than(outcome.ask.limit) or self.sizes
            now.failed_in_a_row += 1

    def _accept_page(self, page: Page, now: Round) -> None:
        if not self.numbered and not now.is_probe:
            end = page.ask.offset + len(page.ids)
            self.sizes = self.sizes.observe(page.ask.limit, len(page.ids), end)
        for first, comparison in self.seam_matcher.add(page):
            self._widen(comparison, now)
            fact = joined(first, comparison)
            needed = max(self.width, LEAST_WIDE) if self.shuffled else self.width
            if fact is not None and comparison.overlap >= needed:
                now.joined.append(fact)

    def _widen(self, seam: Comparison, now: Round) -> None:
        """Widens the overlap where the order isn't stable among neighbours."""
        if not seam.disorder or seam.overlap < self.width:
            return
        wider = max(LEAST_WIDE, 3 * self.width // 2, min(FIRST_WIDE, self.sizes.size // 6))
        now.widened = now.widened or not self.shuffled
        self.shuffled = True
        if 3 * wider <= self.sizes.size:
            logger.info(
                "The order of neighbouring events isn't stable: pages now overlap by %d.", wider
            )
            self.width = wider
            now.widened = True
        if now.widened:
            now.joined.clear()  # of the narrower overlap: by chance, perhaps

    async def _store_seams(self, now: Round) -> None:
        if now.widened:  # seams of the narrower overlap are in doubt again
            now.widened = False
            await self.world.ledger.remember(overlap=self._remembered)
            await self.world.ledger.unjoin(self.pass_no, "overlap")
            await self.world.ledger.unjoin(self.pass_no, "deep")
        if now.joined:
            written, now.joined = now.joined, []
            await self.world.ledger.join(self.pass_no, written, overlap=self._remembered)

    @property
    def _remembered(self) -> int:
        return max(self.width, 2) if self.shuffled else 1

    async def run_concurrently(self, jobs: Iterator[Coroutine[Any, Any, T]]) -> list[T]:
        """The results of *jobs*, run with at most `in_flight` at once."""
        results: list[T] = []
        under_way: set[asyncio.Future[T]] = set()
        try:
            for job in jobs:
                under_way.add(asyncio.ensure_future(job))
                if len(under_way) >= self.in_flight:
                    done, under_way = await asyncio.wait(
                        under_way, return_when=asyncio.FIRST_COMPLETED
                    )
                    results += [one.result() for one in done]
            if under_way:
                done, under_way = await asyncio.wait(under_way)
                results += [one.result() for one in done]
        finally:
            _abandon(under_way)
        return results


def _in_turn(pieces: Iterator[Ask]) -> Callable[[], Awaitable[Ask | None]]:
    async def next_piece() -> Ask | None:
        return next(pieces, None)

    return next_piece


def _abandon(futures: "Iterable[asyncio.Future[Any]]") -> None:
    """Cancels *futures*; what some of them have failed with is that of the first."""
    for one in futures:
        if not one.cancel() and not one.cancelled():
            one.exception()
