"""The figures of `scrapy verify` and `scrapy status`, all from one snapshot.

The transaction is read-only and REPEATABLE READ, so that figures agree while a crawl runs. Must not
judge them: `monitor.report` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from datasync_crawler.crawl.values import Proof, Range
from datasync_crawler.errors import CrawlError, TablesMissing
from datasync_crawler.events.scan import printable
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.gaps import find_gaps
from datasync_crawler.store.reader import SILENT_AFTER_S, Process, RunLine, process_rows, run_lines
from datasync_crawler.store.statements import Statements

#: Reasons and runs that the status lists.
MOST_REASONS: Final = 10
MOST_RUNS: Final = 5
#: Gaps and rejections that a report names.
MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class ProofLine(Proof):
    """A proof and when it was stored, as text in UTC."""

    proved_at: str = ""


@dataclass(frozen=True, slots=True)
class LedgerFigures:
    """Ledger and tables at one instant, in events unless a name says otherwise.

    `total` is compared with the ledger, None when it isn't known; `total_said_by` names its source.
    `frontier`: all offsets below it are committed. `gaps`: their number, the first of them in
    `first_gaps`. `unbalanced`: ranges whose received isn't inserted + duplicates + rejected. `rows`
    and `distinct` count `events`; `rejected_now` counts `rejected_events`, and `rejections_astray`
    the ranges whose rejections aren't all there. `seams`: those of the newest pass, by what joins
    them; "doubt": nothing does. `proof`: the newest one. `page_size`: what the newest pass asked
    for, None when nothing is committed.
    """

    source: str
    total: int | None
    total_said_by: str
    covered: int
    frontier: int
    gaps: int
    first_gaps: tuple[Range, ...]
    ranges: int
    received: int
    inserted: int
    duplicates: int
    changed: int
    rejected: int
    unbalanced: int
    rows: int
    distinct: int
    rejected_now: int
    rejections_astray: int
    pass_no: int
    seams: Mapping[str, int]
    proof: ProofLine | None
    running: bool
    page_size: int | None = None

    @property
    def is_by_cursor(self) -> bool:
        """Whether the set was proved by cursor: there is no page at an offset."""
        return self.proof is not None and self.proof.method == "cursor"

    @property
    def is_proved(self) -> bool:
        """Whether a run has proved the newest pass."""
        return self.proof is not None and self.proof.pass_no == self.pass_no


class ProofReader:
    """A context manager over one connection and one snapshot.

    Entering it raises what `Connector.connect` raises; each call DatabaseRefused or DatabaseLost.
    """

    def __init__(self, connector: Connector, schema_name: str) -> None:
        self._connector = connector
        self._schema = schema_name
        self._statements = Statements.read_only(
            ("verify", "gaps", "runlist"), schema_name, connector, snapshot=True
        )

    def __enter__(self) -> Self:
        try:
            self._statements.open()
        except BaseException:
            self._connector.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._statements.close()
        self._connector.release()

    def source(self) -> tuple[str, int | None]:
        """The API of this schema and its last known total. Raises CrawlError before any crawl."""
        try:
            rows = self._statements.run("known_source")
        except TablesMissing:
            rows = []
        if not rows:
            raise CrawlError(f"Nothing has been crawled into schema {self._schema} yet.")
        return printable(rows[0][0] or ""), rows[0][1]

    def figures(self, source: str, total: int | None, said_by: str) -> LedgerFigures:
        """All figures, compared with *total* (in events)."""
        newest = self._statements.run("newest_pass")[0][0]
        whole = {"pass": newest, "total": 2**62}
        reach = self._statements.run("extent", **whole)[0][2]
        below = {"pass": newest, "total": reach if total is None else total}
        covered, gap_count, _, exact = self._statements.run("extent", **below)[0]
        gaps = find_gaps(self._statements, newest, below["total"], most=MOST_NAMED)
        sums = self._statements.run("sums")[0]
        rows, distinct = self._statements.run("stored")[0]
        proofs = self._statements.run("proofs")
        return LedgerFigures(
            source=source,
            total=total,
            total_said_by=said_by,
            covered=covered,
            frontier=gaps[0].first if gaps else max(reach, below["total"]),
            gaps=gap_count,
            first_gaps=tuple(Range(gap.first, gap.stop - gap.first) for gap in gaps[:MOST_NAMED]),
            received=sums[0],
            inserted=sums[1],
            duplicates=sums[2],
            changed=sums[3],
            rejected=sums[4],
            ranges=sums[5],
            unbalanced=self._statements.run("unbalanced")[0][0],
            rows=rows,
            distinct=distinct,
            rejected_now=sums[6],
            rejections_astray=self._statements.run("rejections_astray")[0][0],
            pass_no=newest,
            page_size=self._statements.run("page_size", **{"pass": newest})[0][0],
            seams=self._seams(newest, exact),
            proof=ProofLine(*proofs[0]) if proofs else None,
            running=self.is_running(),
        )

    def is_running(self) -> bool:
        """Whether a crawl's heartbeat is young."""
        return bool(self._statements.run("is_running", silent_after_s=SILENT_AFTER_S)[0][0])

    def reasons(self) -> list[tuple[str, int]]:
        """The commonest reasons of rejections, with their numbers; the rest as one."""
        rows = [
            (printable(row[0] or ""), row[1]) for row in self._statements.run("rejection_reasons")
        ]
        shown, rest = rows[:MOST_REASONS], rows[MOST_REASONS:]
        events = sum(number for _, number in rest)
        return [*shown, *([(f"… more in {len(rest):,} reasons", events)] if rest else [])]

    def runs(self) -> list[RunLine]:
        """The newest runs, newest first."""
        return run_lines(self._statements.run("runs", most=MOST_RUNS))

    def processes(self) -> list[Process]:
        """The processes that share the crawl now, oldest first; none before there were leases."""
        try:
            return process_rows(self._statements.run("processes"))
        except TablesMissing:
            return []

    def _seams(self, newest: int, exact: int) -> dict[str, int]:
        if not self._statements.run("has_seams", **{"pass": newest})[0][0]:
            return {}
        return {"exact": exact, **dict(self._statements.run("joined_seams", **{"pass": newest}))}

    def events(self, ids: list[str]) -> list[tuple[Any, ...]]:
        """The stored events of these ids, with the columns of the statement `stored_events`."""
        return self._statements.run("stored_events", ids=ids)

    def chain(self) -> list[dict[str, Any]]:
        """The pieces of the newest pass, with all that another program needs to check the chain."""
        newest = self._statements.run("newest_pass")[0][0]
        names = (
            "first_offset", "received", "before_id", "first_id", "last_id", "left_last_id", "seam"
        )  # fmt: skip
        return [
            dict(zip(names, row, strict=True))
            for row in self._statements.run("chain_rows", **{"pass": newest})
        ]
