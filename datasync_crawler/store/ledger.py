"""The ledger as the planner reads it, with the seams and proofs that the planner adds.

Must not write ranges: `writer` does, in the transaction of their rows.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from datasync_crawler.crawl.values import (
    ChainEnd,
    Doubt,
    Gap,
    Joined,
    LedgerState,
    PassFigures,
    Proof,
)
from datasync_crawler.errors import DatabaseLost, DatabaseUnreachable
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.gaps import find_gaps
from datasync_crawler.store.statements import Rows, Statements

T = TypeVar("T")


class Ledger:
    """`crawl.ports.Ledger` on a connection and a thread of its own.

    Raises DatabaseLost when the database stays away longer than DB_MAX_WAIT, and DatabaseRefused
    for any other error of it.
    """

    def __init__(
        self,
        connector: Connector,
        schema: str,
        *,
        max_wait_s: float,
        stop: threading.Event,
        run_id: int | None = None,
    ) -> None:
        self._statements = Statements(("ledger", "gaps"), schema, connector.connect_autocommit)
        self._max_wait_s = max_wait_s
        self._stop = stop
        self.run_id = run_id
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    async def state(self) -> LedgerState:
        """What earlier runs have recorded of the pass, the proof and the API."""
        newest, checks, has_seams, last_total, page_limit, overlap, width = (
            await self._fetch("state")
        )[0]
        proofs = await self._fetch("newest_proof")
        return LedgerState(
            pass_no=newest,
            checks=checks,
            proof=Proof(*proofs[0]) if proofs else None,
            has_seams=has_seams,
            last_total=last_total,
            page_limit=page_limit,
            overlap=overlap,
            width=width,
        )

    async def gaps(self, pass_no: int, total: int, *, after: int = 0, most: int) -> list[Gap]:
        """What the chain leaves out of [after, total), at most *most* gaps of its ranges."""
        return await self._insisting(
            lambda: find_gaps(self._statements, pass_no, total, after=after, most=most)
        )

    async def end(self, pass_no: int) -> ChainEnd | None:
        """Where the chain reaches farthest."""
        rows = await self._fetch("chain_end", **{"pass": pass_no})
        return ChainEnd(*rows[0]) if rows else None

    async def locate(self, pass_no: int, ids: Sequence[str]) -> list[tuple[int, str]]:
        """Those of *ids* at an edge of a range of the chain, with their offsets."""
        rows = await self._fetch("locate", **{"pass": pass_no, "ids": list(ids)})
        return [(position, one) for position, one in rows]

    async def doubts(self, pass_no: int, *, after: int = -1, most: int) -> list[Doubt]:
        """Seams of the chain that are neither exact nor joined."""
        rows = await self._fetch("doubts", **{"pass": pass_no, "after": after, "most": most})
        return [
            Doubt(first, frozenset(filter(None, left)), frozenset(filter(None, right)), same)
            for first, left, right, same in rows
        ]

    async def join(self, pass_no: int, joined: Sequence[Joined]) -> None:
        """Records proved seams."""
        values = [
            (pass_no, one.first, one.kind, one.depth, one.readings, self.run_id) for one in joined
        ]
        if values:
            await self._insisting(lambda: self._statements.run_values("join", values))

    async def unjoin(self, pass_no: int, kind: str) -> None:
        """Deletes the recorded seams of this kind."""
        await self._fetch("unjoin", **{"pass": pass_no, "kind": kind})

    async def figures(self, pass_no: int) -> PassFigures:
        """Sums over the pass and the tables."""
        (
            inexact, deep, inserted, unbalanced, distinct, rejected, least, most, first_id, based,
            covered, again_behind,
        ) = (await self._fetch("figures", **{"pass": pass_no}))[0]  # fmt: skip
        return PassFigures(
            inexact=inexact,
            deep=deep,
            inserted=inserted,
            unbalanced=unbalanced,
            distinct=distinct,
            rejected_now=rejected,
            totals=None if least is None else (least, most),
            first_id=first_id,
            based=based,
            covered=covered,
            again_behind=again_behind,
        )

    async def distinct(self) -> int:
        """Ids stored and rejected, counted in the tables themselves."""
        return int((await self._fetch("distinct_ids"))[0][0])

    async def prove(self, proof: Proof) -> None:
        """Records the proof of a pass."""
        await self._fetch(
            "prove",
            **{
                "pass": proof.pass_no,
                "head_id": proof.head_id,
                "tail_id": proof.tail_id,
                "count": proof.count,
                "total": proof.total,
                "short": proof.short,
                "method": proof.method,
                "run_id": self.run_id,
            },
        )

    async def remember(self, *, page_limit: int | None = None, overlap: int | None = None) -> None:
        """Records what was learned of the API."""
        await self._fetch("remember", page_limit=page_limit, overlap=overlap)

    async def cursor(self, pass_no: int) -> tuple[str, int]:
        """The cursor that the pass ends in and the offset behind it; ("", 0): none."""
        rows = await self._fetch("cursor", **{"pass": pass_no})
        return (rows[0][0], int(rows[0][1])) if rows else ("", 0)

    async def rejected_positions(self) -> list[int]:
        """Offsets of all rejected events, sorted."""
        return [int(row[0]) for row in await self._fetch("rejected_positions")]

    async def close(self) -> None:
        """Closes the connection and ends the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._statements.close)
        self._thread.shutdown()

    async def _fetch(self, name: str, **params: Any) -> Rows:
        return await self._insisting(lambda: self._statements.run(name, **params))

    async def _insisting(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._insist, work)

    def _insist(self, work: Callable[[], T]) -> T:
        """Runs *work*, again while the database is away, for DB_MAX_WAIT at most."""
        lost_at: float | None = None
        delay_s = 0.1
        while True:
            try:
                return work()
            except (DatabaseLost, DatabaseUnreachable):
                now = time.monotonic()
                lost_at = now if lost_at is None else lost_at
                waited_s = now - lost_at  # with the time that attempts to connect took
                if waited_s >= self._max_wait_s or self._stop.wait(delay_s):
                    raise DatabaseLost(
                        f"The database has been away for {waited_s:.0f} s (DB_MAX_WAIT). "
                        "What was committed is safe: run the crawl again when it is back."
                    ) from None
                delay_s = min(2 * delay_s, 5.0)
