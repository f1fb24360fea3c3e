"""The ledger as the planner reads it. Must not write: `writer` does, in the rows' transaction."""

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg2

from datasync_crawler.core.ranges import Range
from datasync_crawler.errors import DatabaseLost, DatabaseUnreachable
from datasync_crawler.store import queries
from datasync_crawler.store.connection import Connector, close_quietly, is_connection_lost

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812


class LedgerState(msgspec.Struct, frozen=True):
    """Where the runs before this one left off. `reach`: end of the farthest committed range."""

    last_pass: int
    reach: int
    total: int | None
    page_limit: int | None
    pagination: str


class LedgerSums(msgspec.Struct, frozen=True):
    """Sums over all committed ranges, in events; `ranges` counts the ledger's rows.

    `rejected` is what ranges counted when they were committed, `rejected_now` what still stands.
    """

    received: int
    inserted: int
    duplicates: int
    changed: int
    rejected: int
    ranges: int
    rejected_now: int


class Ledger:
    """Reads on a connection of its own, from one thread at a time."""

    def __init__(
        self, connector: Connector, schema: str, *, max_wait_s: float, stop: threading.Event
    ) -> None:
        self._connector = connector
        self._queries = queries.load("ledger", schema)
        self._max_wait_s = max_wait_s
        self._stop = stop
        self._connection: Connection | None = None

    def state(self) -> LedgerState:
        """Where the last run left off."""
        return LedgerState(*self._fetch("ledger_state", {})[0])

    def holes(self, total: int, *, after: int = 0, most: int = 1000) -> list[Range]:
        """Uncommitted ranges in [after, total), first to last, at most *most* of them."""
        longest = self._fetch("longest_range", {})[0][0]
        bounds = {"total": total, "after": after, "from": after - longest, "most": most}
        rows = self._fetch("holes", bounds)
        if len(rows) < most:
            reached = max(after, self._fetch("reach_below", {"total": total})[0][0])
            if reached < total:
                rows.append((reached, total))
        return [Range(first, stop - first) for first, stop in rows]

    def coverage(self, total: int) -> int:
        """How many offsets of [0, total) are committed."""
        return int(self._fetch("coverage", {"total": total})[0][0])

    def live_cursor(self) -> tuple[str, int]:
        """The cursor that the newest pass ends in and the offset behind it; ("", 0): none."""
        rows = self._fetch("live_cursor", {})
        return (rows[0][0], int(rows[0][1])) if rows else ("", 0)

    def last_id_before(self, end: int) -> str | None:
        """Id of the last event of the newest range that ends at *end*; None: not known."""
        rows = self._fetch("last_id_before", {"end": end})
        return rows[0][0] if rows else None

    def standing_doubt(self) -> str | None:
        """How offsets moved in a run that ended before it could read again: changed or shrunk."""
        rows = self._fetch("standing_doubt", {})
        return str(rows[0][0]) if rows else None

    def rejected_positions(self) -> list[int]:
        """Absolute positions of all events that stand rejected, sorted."""
        return [int(row[0]) for row in self._fetch("rejected_positions", {})]

    def sums(self) -> LedgerSums:
        """The ledger's figures."""
        rejected_now = self._fetch("rejected_count", {})[0][0]
        return LedgerSums(*(*self._fetch("ledger_sums", {})[0], rejected_now))

    def close(self) -> None:
        """Closes the connection."""
        close_quietly(self._connection)
        self._connection = None

    def _fetch(self, name: str, params: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Runs a named query; a lost database is waited for as long as DB_MAX_WAIT says.

        Raises DatabaseLost.
        """
        lost_at: float | None = None
        delay_s = 0.1
        while True:
            try:
                return self._fetch_once(name, params)
            except (psycopg2.Error, DatabaseUnreachable) as error:
                if isinstance(error, psycopg2.Error) and not is_connection_lost(error):
                    raise
                self.close()
                now = time.monotonic()
                lost_at = now if lost_at is None else lost_at
                waited_s = now - lost_at  # an attempt to connect can take its time, too
                if waited_s >= self._max_wait_s or self._stop.wait(delay_s):
                    raise DatabaseLost(
                        f"The database has been away for {waited_s:.0f} s (DB_MAX_WAIT). "
                        "What was committed is safe: run the crawl again when it is back."
                    ) from None
                delay_s = min(2 * delay_s, 5.0)

    def _fetch_once(self, name: str, params: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = self._connector.connect()
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(self._queries[name], params or None)  # None: see queries.load
            return cursor.fetchall()
