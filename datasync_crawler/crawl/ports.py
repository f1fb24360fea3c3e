"""What the planner needs of the world: a ledger, requests, and pauses. Protocols only."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from datasync_crawler.crawl.values import (
    Ask,
    ChainEnd,
    Doubt,
    Gap,
    Joined,
    LedgerState,
    Outcome,
    PassFigures,
    Proof,
)

#: Sends one request; the outcome arrives, whatever happens, when a page is committed.
Fetch = Callable[[Ask], Awaitable[Outcome]]
#: Waits so many seconds.
Pause = Callable[[float], Awaitable[None]]


class Ledger(Protocol):
    """The ledger of one schema. A pass's chain is its ranges, and from its base on what was proved
    before. Raises DatabaseLost.
    """

    async def state(self) -> LedgerState:
        """What earlier runs have left."""

    async def gaps(self, pass_no: int, total: int, *, after: int = 0, most: int) -> list[Gap]:
        """What the chain leaves out of [after, total), first to last, at most *most* ranges."""

    async def end(self, pass_no: int) -> ChainEnd | None:
        """Where the chain reaches farthest."""

    async def locate(self, pass_no: int, ids: Sequence[str]) -> list[tuple[int, str]]:
        """Those of *ids* that are an edge of the chain, with their offsets, first to last."""

    async def doubts(self, pass_no: int, *, after: int = -1, most: int) -> list[Doubt]:
        """Seams of the chain that are neither exact nor joined, first to last."""

    async def join(self, pass_no: int, joined: Sequence[Joined]) -> None:
        """Writes seams down that are proved."""

    async def unjoin(self, pass_no: int, kind: str) -> None:
        """Takes back what was written down of seams of this kind: they are in doubt again."""

    async def figures(self, pass_no: int) -> PassFigures:
        """Sums over the pass and the tables."""

    async def distinct(self) -> int:
        """Ids stored and rejected, counted in the tables themselves: exact, and slow."""

    async def prove(self, proof: Proof) -> None:
        """Writes the proof of a pass down."""

    async def remember(self, *, page_limit: int | None = None, overlap: int | None = None) -> None:
        """Writes down what was learned of the API."""

    async def cursor(self, pass_no: int) -> tuple[str, int]:
        """The cursor that the pass ends in and the offset behind it; ("", 0): none that is good."""

    async def rejected_positions(self) -> list[int]:
        """Offsets of all events that stand rejected, sorted."""


@dataclass(frozen=True, slots=True)
class World:
    """All that the planner touches. `covered` is told how many offsets of the pass are done."""

    ledger: Ledger
    fetch: Fetch
    pause: Pause
    covered: Callable[[int], None]
