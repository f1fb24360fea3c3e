"""The reports of `scrapy verify` and `scrapy status`, as lines and as plain values.

Pure: figures in. Owns what counts as complete while no crawl runs. Must not read figures or decide
exit statuses.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from datasync_crawler.api import shapes
from datasync_crawler.monitor.board import phase
from datasync_crawler.monitor.progress import duration, utc
from datasync_crawler.monitor.summary import EDITED, kept
from datasync_crawler.store.reader import Process, RunLine
from datasync_crawler.store.verify import MOST_NAMED, LedgerFigures


def too_many_rejected(figures: LedgerFigures, most: float) -> str:
    """The sentence for more rejections than MAX_REJECTED, *most*; "" when there are no more."""
    received = figures.distinct + figures.rejected_now
    return shapes.too_many_rejected(figures.rejected_now, received, most)


def run_outcome(run: RunLine) -> str:
    """How a run ended, in a word or two."""
    state = phase(run)
    if state == "complete" and run.finish_reason == "too_many_rejected":
        return "complete, with too many rejected"
    if state in {"running", "complete"}:
        return state
    if state == "silent":
        return "crashed"
    return f"not complete ({run.finish_reason})"


def _rate(run: RunLine) -> float:
    """New events per second."""
    return run.inserted / run.lasted_s if run.lasted_s > 0 else 0.0


def problems(figures: LedgerFigures) -> list[str]:
    """What contradicts "complete", each a sentence with its remedy; none: it is proved."""
    found = [*_uncommitted(figures), *_inconsistent(figures)]
    if doubts := figures.seams.get("doubt"):
        found.append(
            f"{doubts:,} {_plural(doubts, 'seam')} between neighbouring ranges can't be joined: "
            "events between them may be missing. Run the crawl again: it reads around them."
        )
    if not figures.is_proved and not found:
        found.append(
            "No run has proved this pass yet (front, end and count): run the crawl to its end."
        )
    return found


def _uncommitted(f: LedgerFigures) -> list[str]:
    sentence = ""
    if f.total is None:
        sentence = (
            "The API's total isn't known, so the ledger can't be compared with it: run the crawl "
            "to its end."
        )
    elif f.covered < f.total:
        sentence = (
            f"{f.total - f.covered:,} of {f.total:,} offsets were never committed ({_gaps(f)}). "
            "Run the crawl again: it fetches just them."
        )
    return [sentence] if sentence else []


def _inconsistent(f: LedgerFigures) -> list[str]:
    """Where ledger and tables contradict each other: something else has changed them."""
    found = []
    if f.unbalanced or f.received != f.inserted + f.duplicates + f.rejected:
        found.append(
            f"{f.unbalanced:,} ranges of the ledger don't add up (received is inserted + "
            "duplicates + rejected): the table checkpoint was changed. Crawl into a new DB_SCHEMA."
        )
    if f.distinct < f.inserted:
        found.append(
            f"{f.inserted - f.distinct:,} stored events are gone: the ledger counts {f.inserted:,} "
            f"inserted ones, the table holds {f.distinct:,}. They were deleted: restore them from "
            "a backup, or crawl into a new DB_SCHEMA."
        )
    elif f.distinct > f.inserted:
        found.append(
            f"The table holds {f.distinct - f.inserted:,} events that no crawl has inserted: "
            f"{f.distinct:,}, and the ledger counts {f.inserted:,}. Another program wrote them."
        )
    if f.rows != f.distinct:
        found.append(f"{f.rows - f.distinct:,} rows repeat an id: events has lost its primary key.")
    if f.rejections_astray:
        found.append(
            f"Rejections of {f.rejections_astray:,} ranges are missing from rejected_events: they "
            "were deleted. Crawl into a new DB_SCHEMA to have them again."
        )
    return found


def proof_lines(figures: LedgerFigures) -> list[str]:
    """The report of `scrapy verify`: figures first, the verdict last."""
    f = figures
    wrong = problems(f)
    total = "unknown" if f.total is None else f"{f.total:,}"
    lines = [
        f"source            {f.source}",
        f"total             {total} ({f.total_said_by})",
        f"committed         {f.covered:,}{_share(f.covered, f.total)}"
        + (f", {f.gaps:,} {_plural(f.gaps, 'gap')}" if f.gaps else ", without a gap"),
        f"seams             {_seams(f)}",
        *_proof(f),
        f"all runs          {f.received:,} events in {f.ranges:,} {_plural(f.ranges, 'range')}",
        f"= new             {f.inserted:,}",
        f"+ already stored  {f.duplicates:,} (with those that were re-read to check)",
        *([f"  edited          {f.changed:,} ({EDITED})"] if f.changed else []),
        f"+ rejected        {f.rejected:,}",
        f"table             {f.distinct:,} stored in {f.rows:,} rows, {f.rejected_now:,} rejected",
    ]
    if f.running:
        lines.append("A crawl is running: these are the figures of this instant.")
    if not wrong:
        rejected = f", with {f.rejected_now:,} rejected" if f.rejected_now else ""
        lines.append(
            f"COMPLETE{rejected}: every offset below {total} is committed, and all of it is there."
        )
        lines += _asides(f)
    else:
        lines.append("NOT COMPLETE:")
        lines += [f"- {sentence}" for sentence in wrong]
    return lines


def _asides(f: LedgerFigures) -> list[str]:
    """Notes beside the proof."""
    said = []
    if f.rejected_now:
        said.append(
            f"{f.rejected_now:,} events couldn't be stored: scrapy status lists the reasons, "
            "scrapy redrive fetches them again."
        )
    assert f.total is not None  # else it isn't complete
    short = f.total - f.distinct - f.rejected_now
    if short > 0:
        said.append(f"{short:,} of the {f.total:,} were ids that the API served before.")
    return said + kept(f.distinct + f.rejected_now, f.total)


def proof_values(figures: LedgerFigures, excess: str = "") -> dict[str, Any]:
    """The report for `--json`. *excess*: the sentence on more than MAX_REJECTED; it is a problem
    like any other, so that `complete` is what the exit status says.
    """
    wrong = problems(figures) + [excess] * bool(excess)
    return {"complete": not wrong, "problems": wrong, **asdict(figures)}


def status_lines(
    figures: LedgerFigures,
    reasons: Sequence[tuple[str, int]],
    runs: Sequence[RunLine],
    processes: Sequence[Process] = (),
) -> list[str]:
    """The lines of `scrapy status`; *reasons* of rejections with numbers, *runs* newest first,
    *processes* that share the crawl now.
    """
    f = figures
    total = "unknown" if f.total is None else f"{f.total:,}"
    lines = [
        f"source        {f.source}",
        f"total         {total} ({f.total_said_by})",
        f"done          {f.covered:,}{_share(f.covered, f.total)}",
        f"gaps          {_gaps(f) if f.gaps else 'none'}",
        f"frontier      {f.frontier:,}",
        f"table         {f.distinct:,} events stored, {f.rejected_now:,} rejected",
        *(f"              {number:,} × {reason}" for reason, number in reasons),
    ]
    lines += [
        f"{'' if number else 'processes':<14}{_process(one)}"
        for number, one in enumerate(processes)
    ]
    if runs:
        lines.append(f"last run      {_rate(runs[0]):,.0f} new events/s")
    lines.append(f"runs          {'the last of them:' if runs else 'none yet'}")
    lines += [
        f"              {run.id}: {utc(run.started_at)}, {duration(run.lasted_s)}, "
        f"{run.inserted:,} new, {run_outcome(run)}"
        for run in runs
    ]
    return lines


def _process(one: Process) -> str:
    """Who it is, what it has received, what it holds, and whether it lives."""
    state = "" if one.is_alive else f", dead: no heartbeat for {duration(one.silent_s)}"
    held = ", ".join(f"{first:,}–{stop - 1:,}" for first, stop in one.holds[:MOST_NAMED])
    plans = ", plans and proves" if one.plans else ""
    holds = f", holds {held}" if held else ""
    return f"{one.pid} on {one.host}: {one.received:,} received{plans}{holds}{state}"


def status_values(
    figures: LedgerFigures,
    reasons: Sequence[tuple[str, int]],
    runs: Sequence[RunLine],
    processes: Sequence[Process] = (),
) -> dict[str, Any]:
    """The status for `--json`."""
    return {
        **asdict(figures),
        "rejections": [{"reason": reason, "events": number} for reason, number in reasons],
        "processes": [{**msgspec.to_builtins(one), "alive": one.is_alive} for one in processes],
        "runs": [
            {
                "id": run.id,
                "started": utc(run.started_at),
                "lasted_s": run.lasted_s,
                "silent_s": run.silent_s,
                "finish_reason": run.finish_reason,
                "complete": run.complete,
                "inserted": run.inserted,
                "rate": _rate(run),
                "outcome": run_outcome(run),
            }
            for run in runs
        ],
    }


def _gaps(f: LedgerFigures) -> str:
    shown = ", ".join(f"{gap.first}–{gap.stop - 1}" for gap in f.first_gaps[:MOST_NAMED])
    more = ", …" if f.gaps > MOST_NAMED else ""
    return f"{f.gaps:,} {_plural(f.gaps, 'gap')}: {shown}{more}"


def _seams(f: LedgerFigures) -> str:
    """The seams of the newest pass: how many are exact, joined in another way, or in doubt."""
    names = {
        "exact": "exact",
        "deep": "deep (the set moved)",
        "overlap": "by a wide overlap",
        "reread": "read again",
        "anchor": "at what was proved before",
        "doubt": "in doubt",
    }
    said = [f"{f.seams[kind]:,} {name}" for kind, name in names.items() if f.seams.get(kind)]
    if f.proof is not None and f.proof.method != "seams":
        said.append({"cursor": "none: read by cursor"}.get(f.proof.method, "none: counted"))
    return ", ".join(said) or "none"


def _proof(f: LedgerFigures) -> list[str]:
    if f.proof is None:
        return []
    return [
        f"proved            {f.proof.count:,} events from head to tail, {f.proof.proved_at}",
        f"  head            {f.proof.head_id}",
        f"  tail            {f.proof.tail_id}",
    ]


def _plural(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"


def _share(part: int, whole: int | None) -> str:
    """A percentage; 100 only for all."""
    if not whole:
        return ""
    return f" ({min(100.0 * part / whole, 99.9 if part < whole else 100.0):.1f} %)"
