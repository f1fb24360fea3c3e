"""The planner of one run by offset: head, gaps, end, seams, verdict.

What is fetched next follows from the ledger. State of these objects only saves requests: a fresh
run, a resumed one and one after SIGKILL come to the same verdict.
"""

import logging
from dataclasses import replace
from typing import Final

from datasync_crawler.crawl import ranges
from datasync_crawler.crawl.ends import End, Ends, Growth
from datasync_crawler.crawl.front import Front, Head
from datasync_crawler.crawl.reader import MOST_EMPTY, Reader
from datasync_crawler.crawl.settling import settle_all
from datasync_crawler.crawl.values import Ask, Gap, NoEndpoint, PassFigures, Proof, Verdict
from datasync_crawler.crawl.verdict import Evidence, judge

logger = logging.getLogger(__name__)

#: Passes over everything in one run.
MOST_PASSES: Final = 3
#: Seconds of wait before each round after one without a page; then the gaps are reported.
STALLED_PAUSES_S: Final = (0.0, 1.0, 4.0)
#: Rounds in one pass that bring no new event from behind as many offsets as there are events. The
#: pages requested ahead double with each, so that an API that serves each event twice takes few.
MOST_BARREN: Final = 20
#: Rounds in one pass that bring hardly more new events than were added meanwhile. A set that grows
#: by an event with each request takes 35.
MOST_SLOW: Final = 50
#: What such passes end with.
GROWING: Final = (
    "the end of the set wasn't found: events are added as fast as they are fetched. Set "
    "BULK_PAGE_SIZE or WORKERS higher"
)
UNENDING: Final = (
    "the end of the set wasn't found: the API serves events that are stored already at any offset"
)


class Planner:
    """Fetches until the ledger proves the set, or returns why it doesn't.

    `redrive`: fetches rejected events again first. `anew`: reads everything again, in a pass that
    builds on no proof.
    """

    def __init__(self, reader: Reader, *, redrive: bool = False, anew: bool = False) -> None:
        self._reader = reader
        self._ledger = reader.world.ledger
        self._front, self._ends = Front(reader), Ends(reader)
        self._redrive, self._anew = redrive, anew

    async def run(self) -> Verdict | NoEndpoint:
        """Runs passes until one gives a verdict that another pass can't change."""
        state = await self._ledger.state()
        reader = self._reader
        reader.checks = state.checks
        reader.recall(state.page_limit, state.overlap)
        if state.proof is not None and state.proof.method == "counts":
            await self._front.find_grid()
        verdict: Verdict | NoEndpoint | None = None
        for number in range(MOST_PASSES):
            goes_on = number == 0 and not self._anew
            if not (goes_on and await self._front.resume(state)):
                opened = await self._front.open(state, on_base=goes_on)
                if opened is not None:
                    return opened
            verdict = await self._pass(state.proof)
            if isinstance(verdict, NoEndpoint) or verdict.complete or number + 1 == MOST_PASSES:
                break
            if await self._front.find_grid() or verdict.again:
                logger.warning("Everything is read again: %s.", verdict.sentences[0])
                state = await self._ledger.state()
            else:
                break
        assert verdict is not None
        return verdict

    async def _pass(self, proof: Proof | None) -> Verdict | NoEndpoint:
        """One pass: gaps, end, seams, head, verdict."""
        reader, pass_no = self._reader, self._reader.pass_no
        if self._redrive:
            await self._read_rejected()
        read = await self._read()
        if isinstance(read, NoEndpoint):
            return read
        missing, end = read
        doubts = 0 if missing or not reader.has_seams else await settle_all(reader, end.stop)
        figures = await self._ledger.figures(pass_no, before=end.stop)
        head: Head | None = None
        if not missing:
            head, again = await self._front_now(end, figures)
            doubts += again
            if figures.inexact or end.moved:
                figures = await self._ledger.figures(pass_no, before=end.stop)
        if (end.total or 0) > figures.distinct:  # the ledger may have lost ranges
            figures = replace(figures, distinct=await self._ledger.distinct())
        evidence = Evidence(
            figures=figures,
            served=end.served,
            total=end.total,
            doubts=doubts,
            missing=missing,
            end=end.seen,
            head=head is not None,
            short=self._known_short(proof, figures),
            is_second=pass_no > 1 and not figures.based and not self._repeats(end, figures),
            has_seams=reader.has_seams,
            too_small=reader.too_small,
        )
        verdict = judge(evidence)
        if verdict.complete and head is not None:
            await self._prove(head, end, figures)
        return verdict

    async def _front_now(self, end: End, figures: PassFigures) -> tuple[Head | None, int]:
        """The front after the chain was read, None if it wasn't found; seams in doubt again."""
        reader = self._reader
        unmoved = Head(figures.first_id, reader.shift)
        if not reader.has_seams:
            was_read = end.stop == self._front.end_seen_at
            is_first = was_read or await self._front.is_first(figures.first_id)
            return unmoved if is_first else None, 0
        if not figures.inexact and not end.moved:
            return unmoved, 0
        head = await self._front.find_head(end.served)
        if head is None or figures.deep in {0, head.depth - reader.shift}:
            return head, 0
        # The front hasn't moved as far as the pages: deep seams were chance.
        await self._ledger.unjoin(reader.pass_no, "deep")
        return head, await settle_all(reader, end.stop)

    async def _read(self) -> tuple[str, End] | NoEndpoint:
        """Fetches the gaps and checks the end, until nothing new comes.

        Returns a sentence about what is missing ("" if nothing is), and the end.
        """
        reader, growth, stalled = self._reader, Growth(self._ends), 0
        distinct = barren = slow = 0
        while barren < MOST_BARREN and slow < MOST_SLOW:
            end = await self._ends.chain_end()
            target = reader.target(end.stop)
            most_empty = 2 if stalled or (reader.extent.total or 0) < target else MOST_EMPTY
            now = await reader.fill(target, most_empty, shared=not (stalled or reader.is_alone))
            if now.unusable is not None:
                return now.unusable
            end = await self._ends.chain_end()
            inner = await self._ledger.gaps(reader.pass_no, end.stop, most=6)
            before, distinct = distinct, (await self._ledger.figures(reader.pass_no)).distinct
            barren += before == distinct < end.stop
            slow += 0 < distinct - before <= reader.sizes.longest * (reader.in_flight + MOST_EMPTY)
            if now.pages and not now.empty and (inner or end.stop < target):
                stalled = 0
                continue
            probed = await self._probe_end(end, inner)
            if probed.seen and (probed.total or 0) <= probed.served:
                return "", probed
            if probed.stop > end.stop or (inner and (now.pages or not probed.is_gap)):
                stalled = 0
                if probed.full:
                    reader.extent.more()
                if not inner and (last := await growth.take(probed)) is not None:
                    return "", last
            elif stalled == len(STALLED_PAUSES_S):
                return _missing(inner, probed, now.cause), probed
            else:
                await reader.world.pause(STALLED_PAUSES_S[stalled])
                stalled += 1
        return (UNENDING if barren == MOST_BARREN else GROWING), await self._ends.chain_end()

    async def _probe_end(self, end: End, inner: list[Gap]) -> End:
        if inner:
            probed = await self._ends.probe(await self._ends.chain_end(inner[0].first))
        elif end.stop == self._front.end_seen_at:
            probed = await self._ends.confirm(end)
        else:
            probed = await self._ends.probe(end)
        return replace(probed, total=self._reader.extent.total)

    def _known_short(self, proof: Proof | None, figures: PassFigures) -> int:
        """Ids that the API is known to serve more than once, of the last proof and since."""
        if proof is None or not figures.based:
            return 0
        return proof.short + (0 if self._reader.shuffled else figures.again_behind)

    def _repeats(self, end: End, figures: PassFigures) -> bool:
        """Whether aligned pages hold more events than ids: some came twice, so others may not."""
        return self._reader.is_alone and end.served > figures.distinct

    async def _prove(self, head: Head, end: End, figures: PassFigures) -> None:
        short = 0 if end.total is None else max(end.total - figures.distinct, 0)
        proof = Proof(
            self._reader.pass_no, head.first_id, end.last_id, end.served, end.total, short,
            "seams" if self._reader.has_seams else "counts",
        )  # fmt: skip
        await self._ledger.prove(proof)

    async def _read_rejected(self) -> None:
        """Fetches rejected events again; those that are good now leave rejected_events."""
        reader, size = self._reader, self._reader.sizes.size
        positions = await self._ledger.rejected_positions()
        logger.info("Fetching %d rejected events again.", len(positions))
        for piece in ranges.around(positions, size):
            reader.checks -= 1
            ask = Ask(reader.checks, piece.first, size, 0, reader.shift, redrive=True)
            if reader.numbered:
                ask = replace(ask, first=piece.first - piece.first % size)
            await reader.world.fetch(ask)


def _missing(inner: list[Gap], probed: End, cause: str) -> str:
    """A sentence about what is missing."""
    if not inner:
        return probed.cause
    if cause:
        return f"{ranges.in_words(inner)} couldn't be fetched: {cause}"
    return f"{ranges.in_words(inner)} are missing: the API doesn't serve them"
