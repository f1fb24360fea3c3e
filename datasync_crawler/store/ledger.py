"""The ledger as the planner sees it. The ranges themselves are written by `writer`, in the
transaction of their rows; here only what is found out about them afterwards.
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.extras import execute_values

from datasync_crawler.crawl.values import (
    ChainEnd,
    Doubt,
    Gap,
    Joined,
    LedgerState,
    PassFigures,
    Proof,
)
from datasync_crawler.errors import DatabaseLost, DatabaseRefused, DatabaseUnreachable
from datasync_crawler.store import queries
from datasync_crawler.store.connection import (
    Connector,
    close_quietly,
    describe,
    is_connection_lost,
)

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

Rows = list[tuple[Any, ...]]


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
        self._connector = connector
        self._queries = queries.load("ledger", schema)
        self._max_wait_s = max_wait_s
        self._stop = stop
        self.run_id = run_id
        self._connection: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    async def state(self) -> LedgerState:
        """What earlier runs have left."""
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
        longest = (await self._fetch("longest_range"))[0][0]
        bounds = {"pass": pass_no, "total": total, "after": after}
        rows = await self._fetch("gaps", **bounds, **{"from": after - longest, "most": most})
        if len(rows) < most:
            reach, floor = (await self._fetch("reach_below", **bounds))[0]
            if max(after, reach) < total:
                rows.append((max(after, reach), total, floor))
        base = await self._fetch("base", **bounds)
        return [gap for row in rows for gap in _without(Gap(*row), base)]

    async def end(self, pass_no: int) -> ChainEnd | None:
        """Where the chain reaches farthest."""
        rows = await self._fetch("chain_end", **{"pass": pass_no})
        return ChainEnd(*rows[0]) if rows else None

    async def locate(self, pass_no: int, ids: Sequence[str]) -> list[tuple[int, str]]:
        """Those of *ids* that are an edge of the chain, with their offsets."""
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
        """Writes seams down that are proved."""
        values = [
            (pass_no, one.first, one.kind, one.depth, one.readings, self.run_id) for one in joined
        ]
        if values:
            await self._run(lambda cursor: execute_values(cursor, self._queries["join"], values))

    async def unjoin(self, pass_no: int, kind: str) -> None:
        """Takes back what was written down of seams of this kind."""
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
        """Writes the proof of a pass down."""
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
        """Writes down what was learned of the API."""
        await self._fetch("remember", page_limit=page_limit, overlap=overlap)

    async def cursor(self, pass_no: int) -> tuple[str, int]:
        """The cursor that the pass ends in and the offset behind it; ("", 0): none."""
        rows = await self._fetch("cursor", **{"pass": pass_no})
        return (rows[0][0], int(rows[0][1])) if rows else ("", 0)

    async def rejected_positions(self) -> list[int]:
        """Offsets of all events that stand rejected, sorted."""
        return [int(row[0]) for row in await self._fetch("rejected_positions")]

    async def close(self) -> None:
        """Closes the connection and ends the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    # --- one statement ----------------------------------------------------------------------------

    async def _fetch(self, name: str, **params: Any) -> Rows:
        def fetch(cursor: Any) -> Rows:
            cursor.execute(self._queries[name], params or None)  # None: see queries.load
            return cursor.fetchall() if cursor.description else []

        rows: Rows = await self._run(fetch)
        return rows

    async def _run(self, work: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._insist, work)

    def _insist(self, work: Any) -> Any:
        """A lost database is waited for as long as DB_MAX_WAIT says."""
        lost_at: float | None = None
        delay_s = 0.1
        while True:
            try:
                if self._connection is None:
                    self._connection = self._connector.connect()
                    self._connection.autocommit = True
                with self._connection.cursor() as cursor:
                    return work(cursor)
            except (psycopg2.Error, DatabaseUnreachable) as error:
                if isinstance(error, psycopg2.Error) and not is_connection_lost(error):
                    raise DatabaseRefused(
                        f"The database can't read or write the ledger ({describe(error)}). What "
                        "was committed is safe: mend that first, then run the crawl again."
                    ) from error
                self._close()
                now = time.monotonic()
                lost_at = now if lost_at is None else lost_at
                waited_s = now - lost_at  # an attempt to connect can take its time, too
                if waited_s >= self._max_wait_s or self._stop.wait(delay_s):
                    raise DatabaseLost(
                        f"The database has been away for {waited_s:.0f} s (DB_MAX_WAIT). "
                        "What was committed is safe: run the crawl again when it is back."
                    ) from None
                delay_s = min(2 * delay_s, 5.0)

    def _close(self) -> None:
        close_quietly(self._connection)
        self._connection = None


def _without(gap: Gap, base: Rows) -> list[Gap]:
    """A gap of the ranges less the part that the base of the pass covers."""
    if not base:
        return [gap]
    first, stop = base[0][0], base[0][1]
    parts = (
        Gap(gap.first, min(gap.stop, first), gap.floor),
        Gap(max(gap.first, stop), gap.stop, gap.floor),
    )
    return [part for part in parts if part.first < part.stop]
