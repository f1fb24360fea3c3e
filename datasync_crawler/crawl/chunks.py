"""The chunks that this process holds in one round: claims them and hands out their requests."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from datasync_crawler.crawl.values import Ask, Chunk, Fenced, Gap, Lease, NoEndpoint, Outcome

if TYPE_CHECKING:
    from datasync_crawler.crawl.reader import Reader

logger = logging.getLogger(__name__)

#: Pages of a chunk, at least and at most. Between them a round has 32 chunks.
LEAST_PAGES: Final = 2
MOST_PAGES: Final = 50
CHUNKS: Final = 32
#: Chunks offered at once, so that a total of 999,999,999 makes no million of rows.
MOST_OFFERED: Final = 256


class Chunks:
    """Hands out one request after another. A chunk is deleted when all its answers have come; what
    is missing then is a gap, and offered again.
    """

    def __init__(self, reader: "Reader") -> None:
        self._reader, self._width = reader, reader.width
        self._current: Lease | None = None
        self._lost: set[Lease] = set()
        self._pieces: Iterator[Ask] = iter(())
        self._open: Counter[Lease] = Counter()
        self._done: list[Lease] = []
        self.claimed = 0

    async def next(self) -> Ask | None:
        """The next request; None if no chunk can be claimed, or the overlap has been widened."""
        while True:
            piece = next(self._pieces, None)
            if piece is not None and self._current is not None:
                self._open[self._current] += 1
                return replace(piece, lease=self._current)
            self._leave()
            if self._reader.width != self._width:
                return None  # the others have been cut for another overlap
            done, self._done = self._done, []
            chunk = await self._reader.world.leases.claim(done)
            if chunk is None:
                return None
            self.claimed += 1
            self._current = chunk.lease
            self._pieces = await self._reader.take(chunk)

    def answered(self, outcome: Outcome) -> None:
        """Takes in that a request has its outcome."""
        lease = None if isinstance(outcome, NoEndpoint) else outcome.ask.lease
        if lease is None:
            return
        self._open[lease] -= 1
        if isinstance(outcome, Fenced) and lease not in self._lost:
            self._lost.add(lease)
            logger.warning(
                "This process was away for longer than its lease: what it fetched from offset %d "
                "on isn't stored, another process fetches it. This one claims other offsets.",
                outcome.ask.first,
            )
            if lease == self._current:
                self._pieces = iter(())
        self._close(lease)

    async def finish(self) -> None:
        """Deletes what is held: all answers have come, or the round is over."""
        self._leave()
        await self._reader.world.leases.finish([*self._done, *self._open])
        self._done, self._open = [], Counter()

    def _leave(self) -> None:
        left, self._current = self._current, None
        if left is not None:
            self._close(left)

    def _close(self, lease: Lease) -> None:
        if lease != self._current and self._open[lease] <= 0:
            del self._open[lease]
            self._done.append(lease)


def cut(gaps: Iterable[Gap], reader: "Reader") -> Iterator[list[Chunk]]:
    """The gaps as chunks, so many at a time as are offered at once."""
    gaps = list(gaps)
    step, grid = reader.step, reader.sizes.size if reader.numbered else 1
    pages = sum(gap.stop - gap.first for gap in gaps) // step // CHUNKS
    count = step * min(max(pages, LEAST_PAGES), MOST_PAGES)
    chunks = (
        Chunk(
            Gap(max(first, gap.first), min(first + count, gap.stop), max(gap.floor, first - step)),
            reader.pass_no, reader.shift, reader.sizes.size,
        )
        for gap in gaps
        for first in range(gap.first - gap.first % grid, gap.stop, count)
    )  # fmt: skip
    while batch := list(islice(chunks, MOST_OFFERED)):
        yield batch
