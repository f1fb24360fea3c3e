"""The planner of one run by offset: head, gaps, end, seams, verdict.

What is fetched next follows from the ledger. Whatever an object here remembers beside it only saves
requests: a fresh run, a resumed one and one after SIGKILL come to the same verdict.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from datasync_crawler.crawl import ranges
from datasync_crawler.crawl.reader import GAPS_AT_ONCE, LONGEST_CACHE_S, MOST_EMPTY, Reader
from datasync_crawler.crawl.seams import LEAST_WIDE, agree
from datasync_crawler.crawl.values import (
    Ask,
    CursorExpired,
    Doubt,
    Empty,
    Failed,
    Gap,
    Joined,
    LedgerState,
    LimitRefused,
    NoEndpoint,
    Page,
    PassFigures,
    Proof,
    Verdict,
)
from datasync_crawler.crawl.verdict import Evidence, judge

logger = logging.getLogger(__name__)

#: Passes over everything in one run, until one proves the set.
MOST_PASSES: Final = 3
#: Rounds without a page, before what is missing is reported; the wait before each, in seconds.
STALLED_PAUSES_S: Final = (0.0, 1.0, 4.0)
#: Rounds that only fetch what is added meanwhile: a set that grows for ever must not keep the run.
MOST_GROWTH: Final = 20
#: Readings of one seam in doubt. Two in a row that bring nothing new settle it.
MOST_READINGS: Final = 8
#: Pages read at the front until an event of the chain is seen: so many, and a quarter of the set.
MOST_FRONT: Final = 20
#: Looks for the end where it isn't where the chain ends.
MOST_LOOKS: Final = 6


@dataclass(frozen=True, slots=True)
class End:
    """The end of the chain, at `stop` in the ledger; `served`: the same by the API's offsets now.

    `seen`: the API serves nothing behind it. `moved`: not at the offset where the chain has it.
    `full`: a full page has come from behind it. `cause`: why it couldn't be looked at. `total`:
    what the API said of the set when it was seen.
    """

    stop: int
    last_id: str
    served: int
    seen: bool = False
    moved: bool = False
    full: bool = False
    cause: str = ""
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The front as it is now: its first id, and how many events stand before the chain's."""

    first_id: str
    depth: int


class Planner:
    """Fetches until the ledger proves the set, or says why it doesn't."""

    def __init__(self, reader: Reader, *, redrive: bool = False) -> None:
        self._reader = reader
        self._ledger = reader.world.ledger
        self._redrive = redrive
        self._ends_at: int | None = None  # where a look behind the last event has just found none

    async def run(self) -> Verdict | NoEndpoint:
        """Head, gaps, end, seams, verdict; a new pass where that may settle what is in doubt."""
        state = await self._ledger.state()
        reader = self._reader
        reader.checks, reader.shuffled = state.checks, state.overlap > 1
        if state.overlap >= LEAST_WIDE and reader.has_seams:
            reader.width = min(state.overlap, reader.sizes.size // 3)
        if state.page_limit is not None and state.page_limit < reader.sizes.wanted:
            reader.sizes = type(reader.sizes).of(state.page_limit)
        verdict: Verdict | NoEndpoint | None = None
        for number in range(MOST_PASSES):
            resumed = number == 0 and await self._resume(state)
            if not resumed:
                opened = await self._open(state, on_base=number == 0)
                if opened is not None:
                    return opened
            verdict = await self._pass(state.proof)
            if isinstance(verdict, NoEndpoint) or not verdict.again:
                break
            if number + 1 < MOST_PASSES:
                logger.warning("Everything is read again: %s.", verdict.sentences[0])
                state = await self._ledger.state()
        assert verdict is not None
        return verdict

    # --- head -------------------------------------------------------------------------------------

    async def _open(self, state: LedgerState, *, on_base: bool) -> Verdict | NoEndpoint | None:
        """Begins a new pass with the front page; on what was proved before, if that fits."""
        reader = self._reader
        reader.begin(state.pass_no + 1)
        front = await self._front_page()
        reader.learn(front)
        if isinstance(front, NoEndpoint):
            return front
        if isinstance(front, Empty):
            return Verdict(complete=False, sentences=("the API serves no events",), rerun=True)
        if not isinstance(front, Page):
            cause = front.cause if isinstance(front, Failed) else "its limit is refused"
            said = f"the first page couldn't be fetched: {cause}"
            return Verdict(complete=False, sentences=(said,), rerun=True)
        if reader.numbered:
            await self._fix_width(front)
        if on_base and state.proof is not None:
            await self._stand_on(state.proof, front)
        await self._say_where()
        return None

    async def _front_page(self) -> "Page | Empty | Failed | LimitRefused | NoEndpoint":
        """The first page of a pass, with the largest limit that the API takes."""
        reader = self._reader
        while True:
            front = await reader.world.fetch(Ask(reader.pass_no, 0, reader.sizes.wanted))
            smaller = reader.sizes.refused(reader.sizes.wanted)
            if not isinstance(front, LimitRefused) or smaller is None:
                assert not isinstance(front, CursorExpired)
                return front
            reader.sizes = smaller
            await self._ledger.remember(page_limit=smaller.size)

    async def _stand_on(self, proof: Proof, front: Page) -> None:
        """Looks for the anchors of what was proved: then only what is new has to be fetched."""
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
        if not isinstance(tail, Page) or len(tail.ids) < tail.ask.overlap:
            return
        if tail.ids[stop - tail.ask.offset - 1] == proof.tail_id:
            facts = [Joined(at, "base")] + [Joined(at + 1, "anchor")] * in_front
            await self._ledger.join(reader.pass_no, facts)
            if not tail.stored and not tail.cached_s and stop == reader.extent.total:
                self._ends_at = stop

    async def _resume(self, state: LedgerState) -> bool:
        """Goes on with the newest pass, when the front page tells where its events are now."""
        reader = self._reader
        if state.open_pass is None or (reader.numbered and state.width is None):
            return False
        reader.begin(state.open_pass)
        if reader.numbered and state.width is not None:
            reader.sizes = type(reader.sizes).of(state.width)
        page = await reader.check(0, reader.sizes.size)
        found = await self._located(page)
        if found is None and reader.extent.total is not None and state.last_total is not None:
            grown = reader.extent.total - state.last_total
            if grown > 0:
                page = await reader.check(grown - reader.sizes.size // 2, reader.sizes.size)
                found = await self._located(page)
        if found is None:
            logger.info("The events of the last run aren't where they were: a new pass begins.")
            return False
        figures = await self._ledger.figures(reader.pass_no)
        reader.shift = found - figures.deep
        await self._say_where()
        return True

    async def _say_where(self) -> None:
        figures = await self._ledger.figures(self._reader.pass_no)
        self._reader.world.covered(figures.covered)

    async def _located(self, page: object) -> int | None:
        """By how many events *page* says that the chain has moved; None: it holds none of it."""
        if not isinstance(page, Page):
            return None
        edges = await self._ledger.locate(self._reader.pass_no, page.ids)
        if not edges:
            return None
        position, edge = edges[0]
        return page.ask.offset + page.ids.index(edge) - position

    # --- gaps and end -----------------------------------------------------------------------------

    async def _read(self) -> tuple[str, End] | NoEndpoint:
        """Fetches the gaps and looks at the end, until nothing comes any more.

        Returns what couldn't be fetched, in words, and the end.
        """
        reader, stalled, grown, bound = self._reader, 0, 0, None
        while True:
            start = await self._chain_end()
            target = reader.target(start.stop)
            now = await reader.fill(target, 2 if stalled else MOST_EMPTY)
            if now.unusable is not None:
                return now.unusable
            end = await self._chain_end()
            inner = await self._ledger.gaps(reader.pass_no, end.stop, most=6)
            if now.pages and (inner or (end.stop < target and not now.empty)):
                stalled = 0
                continue
            look = end if inner else await self._look_at_end(end)
            look = replace(look, total=reader.extent.total)
            if look.stop > end.stop:
                stalled = 0
                grown += not look.full
                if look.full:
                    reader.extent.more(reader.in_flight)
                if grown == MOST_GROWTH:
                    bound = await self._bound(look)
                    grown = 0 if bound is None else grown
                if bound is None or look.stop < bound:
                    continue
                return "", replace(look, seen=True)  # what came later is the next run's
            if look.seen and (look.total or 0) <= look.served:
                return "", look
            if stalled == len(STALLED_PAUSES_S):
                return _missing(inner, look, now.cause), look
            await reader.world.pause(STALLED_PAUSES_S[stalled])
            stalled += 1

    async def _bound(self, end: End) -> int | None:
        """Of a set that grows on and on: an offset of the ledger behind all that is there now."""
        reader = self._reader
        far = reader.sizes.longest + 1
        page = await reader.check(end.served + far, reader.sizes.size)
        return None if isinstance(page, Page) else end.stop + far

    async def _chain_end(self) -> End:
        end = await self._ledger.end(self._reader.pass_no)
        assert end is not None  # the front page is committed
        return End(end.stop, end.last_id, end.stop + self._reader.shift)

    async def _look_at_end(self, end: End) -> End:
        """Asks for the last event and what is behind it."""
        reader = self._reader
        if end.stop == self._ends_at:
            return replace(end, seen=True)
        if not reader.has_seams:
            return await self._look_behind(end)
        size = reader.sizes.size
        ask = Ask(reader.pass_no, end.stop, size - 1, 1, reader.shift, end.stop)
        answer = await reader.world.fetch(ask)
        if isinstance(answer, Failed):
            return replace(end, cause=f"the end of the set couldn't be fetched: {answer.cause}")
        if isinstance(answer, Page) and answer.stored:
            return await self._take_more(answer, end)
        reader.learn(answer)
        if not isinstance(answer, Page) or answer.ids[0] != end.last_id:
            return await self._find_end(end)
        return await self._confirm(answer, end)

    async def _confirm(self, answer: Page, end: End) -> End:
        """The last event alone has come: the end, if that is from now and the total agrees."""
        reader = self._reader
        if answer.cached_s:
            await reader.world.pause(min(answer.cached_s, LONGEST_CACHE_S))
            return replace(end, cause="the end of the set came from a cache")
        if reader.extent.total == end.served:
            return replace(end, seen=True)
        return await self._look_behind(end)

    async def _take_more(self, answer: Page, end: End) -> End:
        """Events lie behind the last one, or others have come in before it."""
        reader = self._reader
        await reader.take(answer)
        if answer.ids[-1] == end.last_id and len(answer.ids) < reader.sizes.size:
            served = answer.ask.offset + len(answer.ids)
            return replace(end, served=served, seen=True, moved=True)
        full = reader.sizes.is_full(len(answer.ids)) and answer.new > 0
        return replace(await self._chain_end(), full=full)

    async def _look_behind(self, end: End) -> End:
        """Asks for what is behind the last event. Some servers serve their last page there."""
        reader, size = self._reader, self._reader.sizes.size
        inside = end.served % size if reader.numbered else 0
        page = await reader.check(end.served - inside, size)
        if inside and isinstance(page, Page) and len(page.ids) <= inside:
            page = await reader.check(end.served - inside + size, size)
        if isinstance(page, Failed):
            return replace(end, cause=f"what is behind the end couldn't be fetched: {page.cause}")
        if not isinstance(page, Page):
            return replace(end, seen=True)
        if not page.new and page.ids[-1] == end.last_id:
            return replace(end, seen=True)
        if len(page.ids) == 1 and reader.has_seams:
            reader.sizes = type(reader.sizes).of(1)  # the API serves one event at a time
        first = (
            reader.ask(end.stop, end.stop + size)
            if reader.numbered
            else Ask(reader.pass_no, end.stop, size, 0, reader.shift)
        )
        await reader.take(await reader.world.fetch(first))
        return replace(await self._chain_end(), full=page.new > 0)

    async def _find_end(self, end: End) -> End:
        """The end is at another offset than it was: reads on from an event of the chain."""
        reader, size = self._reader, self._reader.sizes.size
        at, last = end.served - 1 - size // 2, ""
        for _ in range(MOST_LOOKS):
            page = await reader.check(at, size)
            if isinstance(page, Page) and last and list(page.ids) == [last]:
                return replace(end, last_id=last, served=page.ask.offset + 1, seen=True, moved=True)
            if not isinstance(page, Page):
                at, last = max(at, 0) - size, ""
            elif last in page.ids or await self._located(page) is not None:
                at, last = page.ask.offset + len(page.ids) - 1, page.ids[-1]
            else:
                at, last = page.ask.offset - size // 2, ""
        return replace(end, moved=True)

    # --- seams ------------------------------------------------------------------------------------

    async def _seams(self) -> int:
        """Reads again around each seam that nothing proves yet; returns how many stay in doubt."""
        pass_no, after = self._reader.pass_no, -1
        while doubts := await self._ledger.doubts(
            pass_no, after=after, most=self._reader.in_flight
        ):
            joined = await self._reader.side_by_side(self._settle(doubt) for doubt in doubts)
            await self._ledger.join(pass_no, [fact for fact in joined if fact])
            if None in joined:  # one is enough: this pass proves nothing
                return len(await self._ledger.doubts(pass_no, most=GAPS_AT_ONCE))
            after = doubts[-1].first
        return 0

    async def _settle(self, doubt: Doubt) -> Joined | None:
        """A page around the seam, until it holds an event of both sides and two readings in a row
        bring nothing new.
        """
        reader, size = self._reader, self._reader.sizes.size
        seam, reach = doubt.first + reader.shift, size // 2
        before: Page | None = None  # the reading before, if it held both sides and nothing new
        for number in range(1, MOST_READINGS + 1):
            page = await reader.check(seam - reach, size)
            reach = (size // 2, size // 3, 2 * size // 3)[number % 3]
            if not isinstance(page, Page):
                continue
            left = [place for place, one in enumerate(page.ids) if one in doubt.left]
            right = [place for place, one in enumerate(page.ids) if one in doubt.right]
            if left and right:
                place = (left[-1] + right[0]) // 2
                seam = page.ask.offset + place
                inside = _is_inside(page, place, size)
                agreed = doubt.same or (before is not None and agree(before, page, seam))
                if agreed and inside and not page.new:
                    return Joined(doubt.first, "reread", readings=number)
                before = None if page.new else page
            elif left or right:
                seam += reach if left else -reach
            elif number > 2:
                return None
        return None

    # --- the front again, and the verdict ---------------------------------------------------------

    async def _front(self, end: End) -> Head | None:
        """Reads from the front on until an event of the chain is seen. What stands before it is
        new.
        """
        reader = self._reader
        at, first, last = 0, "", ""
        for _ in range(MOST_FRONT + end.served // (4 * reader.sizes.size)):
            page = await reader.check(at, reader.sizes.size)
            if not isinstance(page, Page):
                return None
            if last and last not in page.ids:
                at, first, last = 0, "", ""
                continue
            first = first or page.ids[0]
            moved = await self._located(page)
            if moved is not None:
                return Head(first, moved)
            at, last = page.ask.offset + len(page.ids) - 1, page.ids[-1]
        return None

    async def _pass(self, proof: Proof | None) -> Verdict | NoEndpoint:
        """From the head on to the verdict."""
        reader, pass_no = self._reader, self._reader.pass_no
        if self._redrive:
            await self._read_rejected()
        read = await self._read()
        if isinstance(read, NoEndpoint):
            return read
        missing, end = read
        doubts = 0 if missing or reader.numbered else await self._seams()
        figures = await self._ledger.figures(pass_no)
        head: Head | None = Head(figures.first_id, reader.shift)
        if not missing and (figures.inexact or end.moved) and not reader.numbered:
            head = await self._front(end)
            if head is not None and figures.deep not in {0, head.depth - reader.shift}:
                # The front hasn't moved as the pages did: they are joined by their order alone.
                await self._ledger.unjoin(pass_no, "deep")
                doubts += await self._seams()
            figures = await self._ledger.figures(pass_no)
        verdict = judge(
            Evidence(
                figures=figures,
                served=end.served,
                total=end.total,
                doubts=doubts,
                missing=missing,
                end=end.seen,
                head=head is not None,
                short=proof.short if proof and figures.based else 0,
                is_second=pass_no > 1 and not figures.based,
                has_seams=reader.has_seams,
                too_small=reader.too_small,
            )
        )
        if verdict.complete and head is not None:
            await self._prove(head, end, figures)
        return verdict

    async def _prove(self, head: Head, end: End, figures: PassFigures) -> None:
        short = 0 if end.total is None else max(end.total - figures.distinct, 0)
        proof = Proof(
            self._reader.pass_no, head.first_id, end.last_id, end.served, end.total, short,
            "seams" if self._reader.has_seams else "counts",
        )  # fmt: skip
        await self._ledger.prove(proof)

    # --- numbered pages, rejections ---------------------------------------------------------------

    async def _fix_width(self, front: Page) -> None:
        """Numbered pages count by what a page holds, whatever is asked for. It is read twice."""
        reader, came = self._reader, len(front.ids)
        total = reader.extent.total
        if came == reader.sizes.size or (total is not None and came >= total):
            return
        again = await reader.check(0, reader.sizes.size)
        if isinstance(again, Page):
            reader.sizes = type(reader.sizes).of(max(came, len(again.ids)))

    async def _read_rejected(self) -> None:
        """The rejected events once more: those that are good now leave rejected_events."""
        reader, size = self._reader, self._reader.sizes.size
        positions = await self._ledger.rejected_positions()
        logger.info("Fetching %d rejected events again.", len(positions))
        for piece in ranges.around(positions, size):
            reader.checks -= 1
            ask = Ask(reader.checks, piece.first, size, 0, reader.shift, redrive=True)
            if reader.numbered:
                ask = replace(ask, first=piece.first - piece.first % size)
            await reader.world.fetch(ask)


def _is_inside(page: Page, place: int, size: int) -> bool:
    """Whether a place in a response is far from where it was cut; front and end of the set are no
    cuts.
    """
    return (page.ask.offset == 0 or place >= size // 4) and (
        len(page.ids) < size or place < len(page.ids) - size // 4
    )


def _missing(inner: list[Gap], look: End, cause: str) -> str:
    """What couldn't be fetched, in words."""
    if not inner:
        return look.cause
    because = f" couldn't be fetched: {cause}" if cause else " aren't served by the API"
    return ranges.in_words(inner) + because


def _index(ids: Sequence[str], wanted: str) -> int | None:
    return ids.index(wanted) if wanted in ids else None
