"""The planner's interfaces: a ledger, requests, and pauses. Protocols only."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from datasync_crawler.crawl.values import (
    Ask,
    ChainEnd,
    Chunk,
    Doubt,
    Gap,
    Joined,
    Lease,
    LedgerState,
    Outcome,
    PassFigures,
    Proof,
    Standing,
    Verdict,
)

#: An offset behind all others.
FAR: Final = 2**62
#: Sends one request; returns its outcome, for a page once that is committed.
Fetch = Callable[[Ask], Awaitable[Outcome]]
#: Waits, in seconds.
Pause = Callable[[float], Awaitable[None]]


class Ledger(Protocol):
    """The ledger of one schema. A pass's chain is its ranges, and from its base on those of the
    last proof. Raises DatabaseLost.
    """

    async def state(self) -> LedgerState:
        """The state that earlier runs have left."""

    async def gaps(self, pass_no: int, total: int, *, after: int = 0, most: int) -> list[Gap]:
        """What the chain leaves out of [after, total), first to last, at most *most* ranges."""

    async def end(self, pass_no: int, *, before: int = FAR) -> ChainEnd | None:
        """The end of the chain, of the ranges that end at *before* at most; None if it is empty."""

    async def locate(self, pass_no: int, ids: Sequence[str]) -> list[tuple[int, str]]:
        """Those of *ids* that are an edge of the chain, with their offsets, first to last."""

    async def doubts(
        self, pass_no: int, *, after: int = -1, before: int = FAR, most: int
    ) -> list[Doubt]:
        """Seams between *after* and *before* that are neither exact nor joined, first to last."""

    async def join(
        self, pass_no: int, joined: Sequence[Joined], *, overlap: int | None = None
    ) -> None:
        """Stores proved seams. *overlap*: that of the pages that were compared; if a wider one was
        remembered since, nothing is stored.
        """

    async def unjoin(self, pass_no: int, kind: str) -> None:
        """Deletes the stored seams of this kind: they are in doubt again."""

    async def figures(self, pass_no: int, *, before: int = FAR) -> PassFigures:
        """Sums over the pass and the tables; of seams, those that lie before *before*."""

    async def distinct(self) -> int:
        """Ids stored and rejected, counted in the tables themselves: exact, and slow."""

    async def prove(self, proof: Proof) -> None:
        """Stores the proof of a pass."""

    async def remember(self, *, page_limit: int | None = None, overlap: int | None = None) -> None:
        """Stores what was learned of the API; of two overlaps the wider one stays."""

    async def cursor(self, pass_no: int) -> tuple[str, int]:
        """The last cursor of the pass and its offset; ("", 0) if there is no valid one."""

    async def rejected_positions(self) -> list[int]:
        """Offsets of all rejected events, sorted."""


class Leases(Protocol):
    """The leases of one schema, as one process sees them: that of the proof, and a chunk each for
    the ranges that may be fetched. Raises DatabaseLost.
    """

    async def look(self) -> Standing:
        """Who is at work, and what was decided."""

    async def claim_proof(self) -> Lease | None:
        """Claims the proof; None if another process holds it."""

    async def decide(self, lease: Lease, verdict: Verdict) -> None:
        """Gives the proof back, with its verdict. Raises LeaseLost."""

    async def offer(self, chunks: Sequence[Chunk]) -> None:
        """Adds chunks that anybody may claim. Raises LeaseLost."""

    async def claim(self, done: Sequence[Lease] = ()) -> Chunk | None:
        """Deletes the chunks that are done, and claims another; None if there is none to claim."""

    async def let_go(self) -> None:
        """Gives back all leases of this process, for others to claim."""

    async def finish(self, done: Sequence[Lease]) -> None:
        """Deletes the chunks that are done."""

    async def left(self) -> int:
        """The number of chunks that aren't done."""

    async def withdraw(self) -> int:
        """Deletes the chunks that nobody holds; returns the number of the others."""


@dataclass(frozen=True, slots=True)
class World:
    """The planner's interfaces together. `covered` takes the number of offsets committed."""

    ledger: Ledger
    leases: Leases
    fetch: Fetch
    pause: Pause
    covered: Callable[[int], None]
