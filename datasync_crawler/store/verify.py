"""The figures of the proof and of the status, all of one instant.

Reads only: its transaction is read-only and sees one snapshot, so that a crawl that goes on
meanwhile makes no difference between two figures. Must not judge them: `core.report` does.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg2

from datasync_crawler.crawl.values import Range
from datasync_crawler.errors import CrawlError, DatabaseRefused, DatabaseUnreachable
from datasync_crawler.monitor.report import CRASHED_AFTER_S, MOST_NAMED, Figures, ProofLine, Run
from datasync_crawler.store import queries, schema
from datasync_crawler.store.connection import (
    Connector,
    close_quietly,
    describe,
    is_connection_lost,
)

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

#: Reasons and runs that the status names.
MOST_REASONS: Final = 10
MOST_RUNS: Final = 5


class ProofReader:
    """A context: one connection, one snapshot.

    Entering it raises what `Connector.connect` raises; each call DatabaseRefused or
    DatabaseUnreachable.
    """

    def __init__(self, connector: Connector, schema_name: str) -> None:
        self._connector = connector
        self._schema = schema_name
        self._queries = queries.load("verify", schema_name)
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        self._connection = self._connector.connect_to_read()
        try:
            self._connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            schema.refuse_strange_columns(self._connection, self._schema)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        close_quietly(self._connection)
        self._connector.release()

    def source(self) -> tuple[str, int | None]:
        """The API of this schema and its last known total. Raises CrawlError before any crawl."""
        rows = self._fetch("known_source", {})
        if not rows:
            raise CrawlError(f"Nothing has been crawled into schema {self._schema} yet.")
        return rows[0][0], rows[0][1]

    def figures(self, source: str, total: int | None, said_by: str) -> Figures:
        """All figures, held against *total* (in events)."""
        newest = self._fetch("newest_pass", {})[0][0]
        whole = {"pass": newest, "total": 2**62}
        reach = self._fetch("extent", whole)[0][2]
        below = {"pass": newest, "total": reach if total is None else total}
        covered, gap_count, _, exact = self._fetch("extent", below)[0]
        gaps = self._gaps(below)
        sums = self._fetch("sums", {})[0]
        rows, distinct = self._fetch("stored", {})[0]
        proofs = self._fetch("proofs", {})
        return Figures(
            source=source,
            total=total,
            total_said_by=said_by,
            covered=covered,
            frontier=gaps[0].first if gaps else max(reach, below["total"]),
            gaps=gap_count,
            first_gaps=tuple(gaps),
            received=sums[0],
            inserted=sums[1],
            duplicates=sums[2],
            changed=sums[3],
            rejected=sums[4],
            ranges=sums[5],
            unbalanced=self._fetch("unbalanced", {})[0][0],
            rows=rows,
            distinct=distinct,
            rejected_now=sums[6],
            rejections_astray=self._fetch("rejections_astray", {})[0][0],
            pass_no=newest,
            seams=self._seams(newest, exact),
            proof=ProofLine(*proofs[0]) if proofs else None,
            running=self._fetch("is_running", {"crashed_after_s": CRASHED_AFTER_S})[0][0],
        )

    def reasons(self) -> list[tuple[str, int]]:
        """The commonest reasons of rejections, with their numbers."""
        return [
            (row[0], row[1]) for row in self._fetch("rejection_reasons", {"most": MOST_REASONS})
        ]

    def runs(self) -> list[Run]:
        """The newest runs, newest first."""
        rows = self._fetch("last_runs", {"most": MOST_RUNS})
        return [
            Run(
                run_id,
                started,
                lasted_s,
                silent_s,
                reason,
                bool(complete),
                int(inserted),
                received / lasted_s if lasted_s > 0 else 0.0,
            )
            for run_id, started, lasted_s, silent_s, reason, complete, inserted, received in rows
        ]

    def _seams(self, newest: int, exact: int) -> dict[str, int]:
        if not self._fetch("has_seams", {"pass": newest})[0][0]:
            return {}
        return {"exact": exact, **dict(self._fetch("joined_seams", {"pass": newest}))}

    def events(self, ids: list[str]) -> list[tuple[Any, ...]]:
        """The stored events of these ids, in the order of `core.audit.rows_by_id`."""
        return self._fetch("stored_events", {"ids": ids})

    def chain(self) -> list[dict[str, Any]]:
        """The newest pass, piece by piece: enough for another program to check it."""
        newest = self._fetch("newest_pass", {})[0][0]
        names = (
            "first_offset", "received", "before_id", "first_id", "last_id", "left_last_id", "seam"
        )  # fmt: skip
        return [
            dict(zip(names, row, strict=True))
            for row in self._fetch("chain_rows", {"pass": newest})
        ]

    def _gaps(self, below: Mapping[str, Any]) -> list[Range]:
        rows = self._fetch("gap_list", {**below, "most": MOST_NAMED})
        return [Range(first, stop - first) for first, stop in rows]

    def _fetch(self, name: str, params: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        assert self._connection is not None  # entered
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(self._queries[name], params or None)  # None: see queries.load
                return cursor.fetchall()
        except (psycopg2.errors.UndefinedTable, psycopg2.errors.UndefinedColumn):
            if name == "known_source":
                return []
            raise DatabaseRefused(
                f"Schema {self._schema} lacks tables of the crawler, or they have another shape: "
                "check DB_SCHEMA, or run the crawl, which says what is wrong."
            ) from None
        except psycopg2.Error as error:
            if is_connection_lost(error):
                raise DatabaseUnreachable(
                    f"The database went away: {describe(error)}. Run this again when it is back."
                ) from None
            raise DatabaseRefused(
                f"The database refuses to be read (schema {self._schema}): {describe(error)}. "
                "Give this role the right to read all tables of that schema."
            ) from None
