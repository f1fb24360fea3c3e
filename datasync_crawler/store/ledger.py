"""The ledger as the planner reads it, with the seams and proofs that the planner adds.

Must not write ranges: `writer` does, in the transaction of their rows.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from datasync_crawler.crawl.ports import FAR
from datasync_crawler.crawl.values import (
    ChainEnd,
    Doubt,
    Gap,
    Joined,
    Lease,
    LeaseLost,
    LedgerState,
    PassFigures,
    Proof,
)
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.gaps import find_gaps
from datasync_crawler.store.statements import Rows, Statements, insist

T = TypeVar("T")


class Ledger:
    """`crawl.ports.Ledger` on a connection and a thread of its own.

    `lease`: without it nothing is written, and LeaseLost raised. Raises DatabaseLost when the
    database stays away longer than DB_MAX_WAIT, and DatabaseRefused for any other error of it.
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
        self._statements = Statements(
            ("ledger", "gaps", "leases"), schema, connector.connect_autocommit
        )
        self._max_wait_s = max_wait_s
        self._stop = stop
        self.run_id = run_id
        self.lease: Lease | None = None
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

    async def end(self, pass_no: int, *, before: int = FAR) -> ChainEnd | None:
        """Where the chain reaches farthest, up to *before*."""
        rows = await self._fetch("chain_end", **{"pass": pass_no, "before": before})
        return ChainEnd(*rows[0]) if rows else None

    async def locate(self, pass_no: int, ids: Sequence[str]) -> list[tuple[int, str]]:
        """Those of *ids* at an edge of a range of the chain, with their offsets."""
        rows = await self._fetch("locate", **{"pass": pass_no, "ids": list(ids)})
        return [(position, one) for position, one in rows]

    async def doubts(
        self, pass_no: int, *, after: int = -1, before: int = FAR, most: int
    ) -> list[Doubt]:
        """Seams of the chain that are neither exact nor joined."""
        rows = await self._fetch(
            "doubts", **{"pass": pass_no, "after": after, "before": before, "most": most}
        )
        return [
            Doubt(first, frozenset(filter(None, left)), frozenset(filter(None, right)), same)
            for first, left, right, same in rows
        ]

    async def join(
        self, pass_no: int, joined: Sequence[Joined], *, overlap: int | None = None
    ) -> None:
        """Records proved seams, unless pages overlap by more than *overlap* now."""
        values = [
            (pass_no, one.first, one.kind, one.depth, one.readings, self.run_id) for one in joined
        ]

        def join() -> None:
            if overlap is None or self._statements.run("overlap")[0][0] <= overlap:
                self._statements.run_values("join", values)

        if values:
            await self._write(join)

    async def unjoin(self, pass_no: int, kind: str) -> None:
        """Deletes the recorded seams of this kind."""
        await self._write(lambda: self._statements.run("unjoin", **{"pass": pass_no, "kind": kind}))

    async def figures(self, pass_no: int, *, before: int = FAR) -> PassFigures:
        """Sums over the pass and the tables."""
        (
            inexact, deep, inserted, unbalanced, distinct, rejected, least, most, first_id, based,
            covered, again_behind,
        ) = (await self._fetch("figures", **{"pass": pass_no, "before": before}))[0]  # fmt: skip
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
        """Records the proof of a pass, and deletes what it has made useless."""
        params = {
            "pass": proof.pass_no,
            "head_id": proof.head_id,
            "tail_id": proof.tail_id,
            "count": proof.count,
            "total": proof.total,
            "short": proof.short,
            "method": proof.method,
            "run_id": self.run_id,
        }
        await self._write(lambda: self._statements.run("prove", **params))
        await self._write(lambda: self._statements.run("prune"))

    async def remember(self, *, page_limit: int | None = None, overlap: int | None = None) -> None:
        """Records what was learned of the API."""
        await self._write(
            lambda: self._statements.run("remember", page_limit=page_limit, overlap=overlap)
        )

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

    async def _write(self, work: Callable[[], object]) -> None:
        """Runs *work* in a transaction that the lease guards."""
        lease = self.lease

        def write() -> None:
            with self._statements.transaction():
                if lease is not None and not self._statements.run(
                    "fence", leases=((lease.number, lease.epoch),)
                ):
                    raise LeaseLost
                work()

        await self._insisting(write)

    async def _insisting(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._thread, lambda: insist(work, max_wait_s=self._max_wait_s, stop=self._stop)
        )
