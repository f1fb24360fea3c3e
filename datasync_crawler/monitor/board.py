"""The page's content: runs, figures and sentences from what the database holds.

Pure: values in, JSON-able values out. The API's text (raw events, reasons) stays text, and the page
puts it only into text nodes. Must not read, serve or format for HTML.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from datasync_crawler import stats as stat
from datasync_crawler.monitor import progress, summary
from datasync_crawler.store.reader import (
    SILENT_AFTER_S,
    Example,
    LedgerView,
    Process,
    Run,
    RunLine,
    TableView,
)

#: Cells of the strip, at most.
MOST_CELLS: Final = 500
#: Points of a plot, about.
POINTS: Final = 400
#: Samples that a quantile is computed over.
SPAN: Final = 10
#: Days and types whose rows are shown.
MOST_DAYS: Final = 60
MOST_TYPES: Final = 8
#: Characters of a rejected event that are shown.
EXAMPLE_CHARS: Final = 400
#: Prefixes of the stats that make up the histograms.
LATENCY: Final = stat.LATENCY_BUCKET
COMMIT: Final = stat.COMMIT_BUCKET
STATUS: Final = "downloader/response_status_count/"
#: Figures of a running crawl and their defaults: of the run, and of its requests.
_LIVE: Final = {"follows": "", "rate_now": 0, "left_s": None, "ends_at": None}
_TRAFFIC: Final = {
    "in_flight": 0, "limit": None, "remaining": None, "reset_in_s": None, "window_s": None,
    "paused_for_s": 0, "pause_reason": "",
}  # fmt: skip
#: Counts of the run by the name of their stat.
_COUNTS: Final = {
    "received": stat.RECEIVED,
    "inserted": stat.INSERTED,
    "rejected": stat.REJECTED,
    "paused_s": stat.PAUSED_S,
    "pauses": stat.PAUSES,
    "retries": stat.RETRIES,
    "failures": "downloader/exception_count",
}
MALFORMED: Final = (
    "The figures of this run in crawl_runs are malformed, as no crawl writes them. Look at which "
    "roles may write to that table."
)


def phase(run: Run | RunLine) -> str:
    """running, silent (crashed or cut off), complete, or stopped."""
    if run.finished_at is None:
        return "running" if run.silent_s < SILENT_AFTER_S else "silent"
    complete = run.complete if isinstance(run, RunLine) else run.stats.get(stat.COMPLETE)
    is_whole = run.finish_reason in {"finished", "too_many_rejected"}  # as far as it can be stored
    return "complete" if complete and is_whole else "stopped"


def words(run: Run) -> list[str]:
    """The run's state in sentences; none for a running one."""
    said = _words(run)
    return [MALFORMED, *said] if run.malformed else said


def _words(run: Run) -> list[str]:
    state = phase(run)
    if state == "running":
        trouble = str(run.stats.get("now", {}).get("trouble") or "")
        return [f"{trouble[0].upper()}{trouble[1:]}."] if trouble else []
    if state == "silent":
        silent = progress.duration(run.silent_s)
        return [
            f"No heartbeat for {silent}: the crawl has crashed or is cut off from the database.",
            "What was committed is safe. Run the same command again: it resumes where it stopped.",
        ]
    said = summary.verdict(summary.outcome(str(run.finish_reason), run.lasted_s, run.stats))
    return [text[0].upper() + text[1:] for text in said]


def run_state(run: Run, ledger: LedgerView | None) -> dict[str, Any]:
    """The run and its figures."""
    stats, now = run.stats, run.stats.get("now", {})
    running = phase(run) == "running"
    live = now if running else {}
    traffic = live.get("traffic", {})
    total, done = stats.get(stat.TOTAL), now.get("done", 0)
    if ledger is not None:
        total = ledger.total if total is None else total
        # The heartbeat is newer than the ledger's reading; after a crash the ledger is right.
        done = max(done, ledger.covered) if running else ledger.covered
    return {
        "id": run.id,
        "host": run.host,
        "pid": run.pid,
        "phase": phase(run),
        "reason": run.finish_reason,
        "words": words(run),
        "malformed": run.malformed,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "lasted_s": run.lasted_s,
        "silent_s": round(run.silent_s, 1),
        "total": total,
        "done": done if total is None else min(done, total),
        "rate_mean": now.get("rate_mean", 0),
        "gaps": now.get("gaps", 0) if running or ledger is None else ledger.gaps,
        **{name: live.get(name, default) for name, default in _LIVE.items()},
        **{name: traffic.get(name, default) for name, default in _TRAFFIC.items()},
        **{name: stats.get(stat, 0) for name, stat in _COUNTS.items()},
        "duplicates": stats.get(stat.DUPLICATES, 0) - stats.get(stat.REREAD, 0),
        "ranges": stats.get("ranges", {}) if running else {},
        "statuses": grouped(stats, STATUS),
        "latency": times(stats, LATENCY),
        "commits": times(stats, COMMIT),
    }


def grouped(stats: Mapping[str, Any], prefix: str) -> dict[str, int]:
    """The stats below *prefix*, by the rest of their name, sorted by it."""
    found = {
        name.removeprefix(prefix): int(value)
        for name, value in stats.items()
        if name.startswith(prefix) and value
    }
    return dict(sorted(found.items()))


def times(stats: Mapping[str, Any], prefix: str) -> dict[str, float | None]:
    """Median, 95th and 99th percentile of a histogram, in seconds."""
    counts = grouped(stats, prefix)
    return {
        name: progress.quantile(counts, share)
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }


def series(
    started_at: float, samples: Sequence[tuple[float, Mapping[str, Any]]]
) -> dict[str, list[Any]]:
    """The plots, by column: `at` in epoch seconds, counts, times in ms over `SPAN` samples."""
    names = ("at", "done", "requests", "remaining", "limit", "paused")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for name in ("latency", "commit"):
        columns |= {f"{name}_p50": [], f"{name}_p95": []}
    for number, (at_s, figures) in enumerate(samples):
        columns["at"].append(round(started_at + at_s, 1))
        # Samples of version 0.1.0 have no "done".
        columns["done"].append(figures.get("done", figures.get("received")))
        columns["requests"].append(figures.get("responses", 0))
        for name in ("remaining", "limit", "paused"):
            columns[name].append(figures.get(name))
        before = samples[number - SPAN][1] if number >= SPAN else {}
        for name, prefix in (("latency", LATENCY), ("commit", COMMIT)):
            new = grouped(figures, prefix)
            for bucket, count in grouped(before, prefix).items():
                new[bucket] = new.get(bucket, 0) - count
            for label, share in (("p50", 0.5), ("p95", 0.95)):
                seconds = progress.quantile(new, share)
                columns[f"{name}_{label}"].append(seconds and round(1000 * seconds, 1))
    return {**columns, "windows": windows(columns)}


def windows(columns: Mapping[str, Sequence[Any]]) -> list[tuple[float, float, int]]:
    """(begin, end, requests used) of each window in the samples. One begins where the remaining
    quota rises, or is known again.
    """
    found: list[tuple[float, float, int]] = []
    before = None
    for at, limit, left in zip(columns["at"], columns["limit"], columns["remaining"], strict=True):
        if limit and left is not None:
            used = max(int(limit - left), 0)
            if before is None or left > before:
                found.append((at, at, used))
            else:
                begin, _, most = found[-1]
                found[-1] = (begin, at, max(most, used))
        before = left if limit else None
    return found


def ledger_view(ledger: LedgerView) -> dict[str, Any]:
    """The strip: committed offsets in each cell, and the cells with rejections."""
    whole = max(ledger.reach if ledger.total is None else ledger.total, 1)
    number = -(-whole // ledger.width)
    return {
        "source": ledger.source,
        "total": ledger.total,
        "whole": whole,
        "width": ledger.width,
        "cells": [ledger.cells.get(cell, 0) for cell in range(number)],
        "rejected": sorted(ledger.rejected.items()),
        "covered": ledger.covered,
        "reach": ledger.reach,
        "frontier": ledger.first_gaps[0][0] if ledger.first_gaps else ledger.reach,
        "gaps": ledger.gaps,
        "first_gaps": ledger.first_gaps,
        "stored": ledger.stored,
        "rejections": ledger.rejections,
        "ranges": ledger.ranges,
        "runs": sorted(ledger.runs.items()),
        "doubts": ledger.doubts,
    }


def table_view(table: TableView) -> dict[str, Any]:
    """The table, with its newest days and its commonest types."""
    return {
        **msgspec.to_builtins(table),
        "days": table.days[-MOST_DAYS:],
        "types": sorted(table.types, key=lambda of: -of[1])[:MOST_TYPES],
    }


def rejections_view(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Reasons, commonest first, each with its examples as text."""
    reasons: dict[str, dict[str, Any]] = {}
    for example in examples:
        entry = reasons.setdefault(
            example.reason, {"reason": example.reason, "events": example.events, "examples": []}
        )
        text = example.raw.decode("utf-8", "replace")
        cut = "…" if len(text) > EXAMPLE_CHARS else ""
        entry["examples"].append({"offset": example.position, "raw": text[:EXAMPLE_CHARS] + cut})
    return list(reasons.values())


def process_lines(processes: Sequence[Process]) -> list[dict[str, Any]]:
    """The processes that share the crawl, each with its share of what they have received."""
    received = sum(process.received for process in processes)
    return [
        {
            "run": process.run,
            "host": process.host,
            "pid": process.pid,
            "alive": process.is_alive,
            "silent_s": round(process.silent_s, 1),
            "received": process.received,
            "share": round(process.received / received, 3) if received else 0.0,
            "plans": process.plans,
            "holds": process.holds,
        }
        for process in processes
    ]


def run_lines(runs: Sequence[RunLine]) -> list[dict[str, Any]]:
    """The list of runs."""
    return [
        {
            "id": run.id,
            "host": run.host,
            "phase": phase(run),
            "reason": run.finish_reason,
            "started_at": run.started_at,
            "finished_at": run.finished_at,
            "lasted_s": round(run.lasted_s) if run.finished_at is None else run.lasted_s,
            "inserted": run.inserted,
            "rejected": run.rejected,
        }
        for run in runs
    ]
