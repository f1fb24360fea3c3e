"""What is there, for a person and for a program: the proof's verdict, its report, the status.

Pure: figures in, lines and plain values out. Owns what counts as complete when nobody crawls; must
not read figures nor decide exit statuses beyond true or false.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from datasync_crawler.core.progress import duration
from datasync_crawler.core.ranges import Range

#: Without a heartbeat for so long a run has crashed or is cut off from the database, in seconds.
CRASHED_AFTER_S: Final = 10.0
#: Holes and rejections that a report names.
MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Figures:
    """Ledger and tables at one instant, in events unless a name says otherwise.

    `total` is what the ledger is held against, None when it isn't known; `total_said_by` says
    whose word it is. `frontier`: below it all is committed. `holes`: how many there are, the first
    of them in `first_holes`. `unbalanced`: ranges whose received isn't inserted + duplicates +
    rejected. `rows` and `distinct` count `events`; `rejected_now` counts `rejected_events`, and
    `rejections_astray` the ranges whose rejections aren't all there. `in_doubt`: a run
    found events moving, and none has proved since that nothing was missed.
    """

    source: str
    total: int | None
    total_said_by: str
    covered: int
    frontier: int
    holes: int
    first_holes: tuple[Range, ...]
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
    in_doubt: bool
    running: bool


@dataclass(frozen=True, slots=True)
class Run:
    """A run for the status; times in seconds, `started` as text in UTC."""

    id: int
    started: str
    lasted_s: float
    silent_s: float
    finish_reason: str | None
    complete: bool
    inserted: int
    rate: float

    @property
    def outcome(self) -> str:
        """How it ended, in a word or two."""
        if self.finish_reason is None:
            return "crashed" if self.silent_s >= CRASHED_AFTER_S else "running"
        if self.complete and self.finish_reason == "finished":
            return "complete"
        return f"not complete ({self.finish_reason})"


def problems(figures: Figures) -> list[str]:
    """What speaks against "complete", each a sentence with its remedy; none: it is proved."""
    f = figures
    again = "Run the crawl again: it fetches just them."
    found = []
    if f.total is None:
        found.append(
            "The API's total isn't known, so there is nothing to hold the ledger against: run the "
            "crawl to its end."
        )
    elif f.covered < f.total:
        found.append(
            f"{f.total - f.covered:,} of {f.total:,} offsets were never committed "
            f"({_holes(f)}). {again}"
        )
    if f.unbalanced or f.received != f.inserted + f.duplicates + f.rejected:
        found.append(
            f"{f.unbalanced:,} ranges of the ledger don't add up (received is inserted + "
            "duplicates + rejected): somebody has changed the table checkpoint. Crawl into a new "
            "DB_SCHEMA."
        )
    if f.distinct < f.inserted:
        found.append(
            f"{f.inserted - f.distinct:,} stored events are gone: the ledger says that "
            f"{f.inserted:,} were inserted, the table holds {f.distinct:,}. Somebody has deleted "
            "them: restore them from a backup, or crawl into a new DB_SCHEMA."
        )
    elif f.distinct > f.inserted:
        found.append(
            f"The table holds {f.distinct - f.inserted:,} events that no crawl has inserted: "
            f"{f.distinct:,}, and the ledger says {f.inserted:,}. Somebody else has written them."
        )
    if f.rows != f.distinct:
        found.append(f"{f.rows - f.distinct:,} rows repeat an id: events has lost its primary key.")
    if f.rejections_astray:
        found.append(
            f"Of {f.rejections_astray:,} ranges not every rejection is in rejected_events: "
            "somebody has deleted them. Crawl into a new DB_SCHEMA to have them again."
        )
    if f.in_doubt:
        found.append(
            "A crawl has seen the API's events moving while it read them, and hasn't made sure yet "
            "that it has missed none: run it again."
        )
    return found


def proof_lines(figures: Figures) -> list[str]:
    """The report of `scrapy verify`: figures first, the verdict last."""
    f = figures
    wrong = problems(f)
    total = "unknown" if f.total is None else f"{f.total:,}"
    lines = [
        f"source            {f.source}",
        f"total             {total} ({f.total_said_by})",
        f"committed         {f.covered:,}{_share(f.covered, f.total)}"
        + (f", {f.holes:,} {_plural(f.holes, 'hole')}" if f.holes else ", without a hole"),
        f"received          {f.received:,} in {f.ranges:,} {_plural(f.ranges, 'range')}",
        f"= inserted        {f.inserted:,}",
        f"+ duplicates      {f.duplicates:,}"
        + (f" ({f.changed:,} with other content)" if f.changed else ""),
        f"+ rejected        {f.rejected:,} (rejected now: {f.rejected_now:,})",
        f"events stored     {f.distinct:,} distinct ids in {f.rows:,} rows",
    ]
    if f.running:
        lines.append("A crawl is running: these are the figures of this instant.")
    if not wrong:
        lines.append(f"COMPLETE: every offset below {total} is committed, and all of it is there.")
        lines += _asides(f)
    else:
        lines.append("NOT COMPLETE:")
        lines += [f"- {sentence}" for sentence in wrong]
    return lines


def _asides(f: Figures) -> list[str]:
    """What is to be known beside the proof."""
    said = []
    if f.rejected_now:
        said.append(
            f"{f.rejected_now:,} events couldn't be stored; scrapy status says why, scrapy redrive "
            "fetches them again."
        )
    assert f.total is not None  # else it isn't complete
    short = f.total - f.distinct - f.rejected_now
    if short > 0:
        said.append(f"{short:,} of the {f.total:,} were ids that the API served before.")
    return said


def proof_values(figures: Figures) -> dict[str, Any]:
    """The report for `--json`."""
    wrong = problems(figures)
    return {"complete": not wrong, "problems": wrong, **asdict(figures)}


def status_lines(
    figures: Figures, reasons: Sequence[tuple[str, int]], runs: Sequence[Run]
) -> list[str]:
    """What `scrapy status` says: *reasons* of rejections with numbers, *runs* newest first."""
    f = figures
    total = "unknown" if f.total is None else f"{f.total:,}"
    lines = [
        f"source        {f.source}",
        f"total         {total} ({f.total_said_by})",
        f"done          {f.covered:,}{_share(f.covered, f.total)}",
        f"holes         {_holes(f) if f.holes else 'none'}",
        f"frontier      {f.frontier:,}",
        f"stored        {f.distinct:,} events",
        f"duplicates    {f.duplicates:,}",
        f"rejections    {f.rejected_now:,}",
        *(f"              {number:,} × {reason}" for reason, number in reasons),
    ]
    if runs:
        lines.append(f"rate          {runs[0].rate:,.0f} events/s in the last run")
    lines.append(f"runs          {'the last of them:' if runs else 'none yet'}")
    lines += [
        f"              {run.id}: {run.started}, {duration(run.lasted_s)}, {run.inserted:,} new, "
        f"{run.outcome}"
        for run in runs
    ]
    return lines


def status_values(
    figures: Figures, reasons: Sequence[tuple[str, int]], runs: Sequence[Run]
) -> dict[str, Any]:
    """The status for `--json`."""
    return {
        **asdict(figures),
        "rejections": [{"reason": reason, "events": number} for reason, number in reasons],
        "runs": [{**asdict(run), "outcome": run.outcome} for run in runs],
    }


def _holes(f: Figures) -> str:
    shown = ", ".join(f"{hole.first}–{hole.stop - 1}" for hole in f.first_holes[:MOST_NAMED])
    more = ", …" if f.holes > MOST_NAMED else ""
    return f"{f.holes:,} {_plural(f.holes, 'hole')}: {shown}{more}"


def _plural(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"


def _share(part: int, whole: int | None) -> str:
    """A percentage that never says 100 of less than all."""
    if not whole:
        return ""
    return f" ({min(100.0 * part / whole, 99.9 if part < whole else 100.0):.1f} %)"
