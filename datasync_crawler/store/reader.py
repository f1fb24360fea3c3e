"""Readings for the dashboard, the metrics and the status: runs, samples, ledger, rejections.

Reads only: its connection is read-only and can make nothing. Must not decide how it is shown.
"""

from typing import Any, Final

import msgspec
import psycopg2

from datasync_crawler.errors import DatabaseLost, DatabaseRefused, TablesMissing
from datasync_crawler.events.scan import printable
from datasync_crawler.store import runstats
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.statements import Rows, Statements

#: A statement that takes longer is cancelled, in milliseconds: the page must not burden the server.
STATEMENT_TIMEOUT_MS: Final = 20_000
#: Rows of the table that are read for its history, about; of a larger one, a sample.
MOST_ROWS: Final = 4_000_000
#: Characters of a host or a finish reason; another role may have written them.
MOST_TEXT: Final = 255
#: Runs in the page's list.
MOST_RUNS: Final = 50
#: Seconds without a heartbeat after which a run has crashed or lost the database. Ten beats.
SILENT_AFTER_S: Final = 10.0


class RunRow(msgspec.Struct, frozen=True):
    """A row of ``crawl_runs``. Times: epoch seconds; `silent_s`: since the last heartbeat."""

    id: int
    host: str
    pid: int
    started_at: float
    finished_at: float | None
    lasted_s: float
    silent_s: float
    finish_reason: str | None


class RunLine(RunRow, frozen=True):
    """A run in a list of runs."""

    complete: bool
    inserted: int
    rejected: int
    received: int


class Run(RunRow, frozen=True):
    """A run with the stats of its last heartbeat; `malformed`: they are no crawl's, so left out."""

    stats: dict[str, Any]
    malformed: bool = False


class Process(msgspec.Struct, frozen=True):
    """A process that has no end yet. `received`: events; `plans`: holds the lease of the proof;
    `holds`: its chunks, as (first offset, stop).
    """

    run: int
    host: str
    pid: int
    silent_s: float
    received: int
    plans: bool
    holds: list[tuple[int, int]]

    @property
    def is_alive(self) -> bool:
        """Whether its heartbeat is fresh."""
        return self.silent_s < SILENT_AFTER_S


class LedgerView(msgspec.Struct, frozen=True):
    """The ledger over [0, total) in cells of `width` offsets.

    `cells`: committed offsets by cell; `rejected`: rejections by cell; both leave out zeros.
    `gaps`: uncommitted ranges below `reach`, the first of them in `first_gaps` as (first, stop).
    `runs`: the newest run that committed into each cell. `doubts`: the first seams in doubt.
    """

    source: str
    total: int | None
    width: int
    cells: dict[int, int]
    rejected: dict[int, int]
    covered: int
    reach: int
    gaps: int
    first_gaps: list[tuple[int, int]]
    stored: int
    duplicates: int
    rejections: int
    ranges: int
    runs: dict[int, int]
    doubts: list[int]


class Example(msgspec.Struct, frozen=True):
    """A rejected event: its reason, how many share it, its offset, the beginning of its bytes."""

    reason: str
    events: int
    position: int
    raw: bytes


class TableView(msgspec.Struct, frozen=True):
    """The table events: bytes, rows by day (UTC) and by type, its newest five events.

    `percent`: the share of its blocks that the counts and the events are of. `unread`: why neither
    could be read; "" when they were.
    """

    heap: int
    indexes: int
    percent: float
    days: list[tuple[str, int]]
    types: list[tuple[str, int]]
    newest: list[tuple[float, str, str | None, str | None, str | None]]
    unread: str = ""


def run_lines(rows: Rows) -> list[RunLine]:
    """Rows of the statement `runs`."""
    read = [(*_run_row(row), row[8] == "true", *map(runstats.read_count, row[9:])) for row in rows]
    return [RunLine(*values) for values in read]


def _run_row(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of a RunRow. Where a planted table has NULL, they are 0 and empty."""
    number, host, pid, started_at, finished_at, lasted_s, silent_s, reason = row[:8]
    return (
        number,
        _printable(host or ""),
        pid or 0,
        runstats.read_seconds(started_at) or 0.0,
        runstats.read_seconds(finished_at),
        runstats.read_seconds(lasted_s) or 0.0,
        runstats.read_seconds(silent_s) or 0.0,
        None if reason is None else _printable(reason),
    )


def _printable(text: str) -> str:
    """Another role's text on a line of its own length at most."""
    return printable(text[:MOST_TEXT])


def process_rows(rows: Rows) -> list[Process]:
    """Rows of the statement `processes`."""
    return [
        Process(run, _printable(host or ""), pid or 0, runstats.read_seconds(silent_s) or 0.0,
                runstats.read_count(received), plans,
                [(first, stop) for first, stop in holds])
        for run, host, pid, silent_s, received, plans, holds in rows
    ]  # fmt: skip


class DashboardReader:
    """Reads on a connection of its own, from one thread at a time.

    Each call raises CrawlError when the database is away; the next one opens a new connection.
    Before the first crawl there are no tables: then results are empty.
    """

    def __init__(self, connector: Connector, schema_name: str) -> None:
        self._connector = connector
        self._schema = schema_name
        self._statements = Statements.read_only(
            ("runlist", "dashboard"), schema_name, connector, timeout_ms=STATEMENT_TIMEOUT_MS
        )

    def runs(self) -> list[RunLine]:
        """The newest runs, newest first."""
        return run_lines(self._fetch("runs", most=MOST_RUNS))

    def processes(self) -> list[Process]:
        """The processes that share the crawl now, oldest first."""
        return process_rows(self._fetch("processes"))

    def run(self, run_id: int | None) -> Run | None:
        """One run; for None the newest one that is alive, else the one that ended last."""
        rows = self._fetch("run", run_id=run_id, silent_after_s=SILENT_AFTER_S)
        if not rows:
            return None
        stats = runstats.read_stats(rows[0][8])
        values = (*_run_row(rows[0]), stats or {}, stats is None)
        return Run(*values)

    def series(self, run_id: int, points: int) -> list[tuple[float, dict[str, Any]]]:
        """About *points* samples of a run at most: seconds since its start, and figures."""
        rows = self._fetch("series", run_id=run_id, points=points)
        read = [(at_s, runstats.read_sample(text)) for at_s, text in rows]
        return [
            (at_s, figures)
            for at_s, figures in read
            if figures is not None and runstats.read_seconds(at_s) == at_s
        ]

    def ledger(self, most_cells: int) -> LedgerView | None:
        """The ledger in at most *most_cells* cells; None before the first crawl."""
        sources, sums = self._fetch("source"), self._fetch("ledger_sums")
        if not sources or not sums:
            return None
        (source, total), (stored, duplicates, rejections, ranges, newest) = sources[0], sums[0]
        reach = self._fetch("reach", **{"pass": newest})[0][0]
        whole = max(reach if total is None else total, 1)
        width = -(-whole // most_cells)
        params = {"total": whole, "width": width, "pass": newest}
        cells, covered, view_reach, gaps, first_gaps = self._fetch("ledger", **params)[0]
        return LedgerView(
            source=source,
            total=total,
            width=width,
            cells={cell: int(count) for cell, count in cells},
            rejected=dict(self._fetch("rejected_cells", **params)),
            covered=covered,
            reach=view_reach,
            gaps=gaps,
            first_gaps=[(first, stop) for first, stop in first_gaps],
            stored=stored,
            duplicates=duplicates,
            rejections=rejections,
            ranges=ranges,
            runs=dict(self._fetch("cell_runs", **params)),
            doubts=[first for (first,) in self._fetch("doubts", **params)],
        )

    def table(self) -> TableView | None:
        """What is stored, of a sample if the table is large; None before the first crawl."""
        heap, indexes, rows = self._fetch("sizes", schema=self._schema)[0]
        percent = min(100.0, 100.0 * MOST_ROWS / max(rows, 1))
        try:
            counts = self._fetch("rows_by", percent=percent)
            newest = self._fetch("newest_events", percent=percent)
        except (DatabaseRefused, _TooSlow) as error:
            return TableView(heap, indexes, percent, [], [], [], unread=str(error))
        return TableView(
            heap=heap,
            indexes=indexes,
            percent=percent,
            days=[(name, count) for is_day, name, count in counts if is_day],
            types=[(name, count) for is_day, name, count in counts if not is_day],
            newest=[(runstats.read_seconds(at) or 0.0, *event) for at, *event in newest],
        )

    def rejections(self, most: int) -> list[Example]:
        """Up to three examples of each of the *most* commonest reasons, commonest first."""
        rows = self._fetch("rejections", most=most)
        return [
            Example(reason, events, position, bytes(raw)) for reason, events, position, raw in rows
        ]

    def close(self) -> None:
        """Closes the connection and releases the embedded server."""
        self._statements.close()
        self._connector.release()

    def cut(self) -> None:
        """From another thread: ends a call that a hanging server would never end."""
        self._statements.cut()

    def _fetch(self, name: str, /, **params: Any) -> Rows:
        try:
            return self._statements.run(name, **params)
        except TablesMissing:
            return []
        except DatabaseRefused as error:
            if isinstance(error.__cause__, psycopg2.errors.QueryCanceled):
                raise _TooSlow(
                    f"The statement {name} took longer than {STATEMENT_TIMEOUT_MS // 1000} s."
                ) from None
            raise


class _TooSlow(DatabaseLost):
    """A statement was cancelled for its time: the server is busy, and may answer the next one."""
