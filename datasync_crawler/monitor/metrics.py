"""The newest run in Prometheus' text format, by prometheus_client, in a registry of our own.

Names follow its conventions: base units, _total for counters (a new run begins at 0 again). Labels
hold nothing from the API but HTTP statuses. Must not read the database.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from datasync_crawler import stats as stat
from datasync_crawler.monitor import board, progress
from datasync_crawler.store.freshness import Freshness
from datasync_crawler.store.reader import LedgerView, Process, Run

#: name, stat, help.
COUNTERS: Final = (
    ("events_received", stat.RECEIVED, "Events read from the API in this run."),
    ("events_stored", stat.INSERTED, "New events of this run."),
    (
        "events_duplicate",
        stat.DUPLICATES,
        "Events of this run that were already stored, re-read ones included.",
    ),
    ("events_reread", stat.REREAD, "Of these, events that this run re-read to check."),
    ("events_rejected", stat.REJECTED, "Events that this run has rejected."),
    ("pages_committed", stat.PAGES_COMMITTED, "Pages committed with their ledger row."),
    ("commits", stat.TRANSACTIONS, "Transactions committed."),
    ("database_reconnects", stat.RECONNECTS, "Connections that were lost and made again."),
    ("request_failures", "downloader/exception_count", "Requests without a response."),
    ("retries", stat.RETRIES, "Requests sent again after a failure."),
    ("pauses", stat.PAUSES, "Pauses for the API's rate limit."),
    ("paused_seconds", stat.PAUSED_S, "Time spent in pauses for the rate limit."),
)


def exposition(
    run: Run | None,
    ledger: LedgerView | None,
    *,
    up: bool,
    fresh: Freshness | None = None,
    processes: Sequence[Process] = (),
) -> tuple[bytes, str]:
    """The metrics as text, and its content type. If not *up*, the figures are the last known."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(run, ledger, fresh, processes, up=up))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Snapshot:
    """prometheus_client's collector over given values."""

    def __init__(
        self,
        run: Run | None,
        ledger: LedgerView | None,
        fresh: Freshness | None,
        processes: Sequence[Process],
        *,
        up: bool,
    ) -> None:
        self._run, self._ledger, self._fresh, self._up = run, ledger, fresh, up
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        yield _gauge("database_up", "Whether the database could be read just now.", self._up)
        if self._run is not None:
            yield from _run(self._run, board.run_state(self._run, self._ledger))
            yield from _processes(self._processes)
        if self._ledger is not None:
            yield from _ledger(self._ledger)
        if self._fresh is not None:
            yield from _freshness(self._fresh)


def _run(run: Run, state: Mapping[str, Any]) -> Iterator[Metric]:
    phases = GaugeMetricFamily(
        "datasync_run_phase", "1 for the phase that the newest run is in.", labels=["phase"]
    )
    for name in ("running", "silent", "complete", "stopped"):
        phases.add_metric([name], float(state["phase"] == name))
    yield phases
    yield _gauge("run_id", "Number of the newest run.", run.id)
    yield _gauge("run_start_time_seconds", "When the newest run began.", run.started_at)
    yield _gauge("run_duration_seconds", "How long it has lasted.", run.lasted_s)
    if run.finished_at is None:
        yield _gauge("heartbeat_age_seconds", "Time since its last heartbeat.", run.silent_s)
    for name, counted, text in COUNTERS:
        yield CounterMetricFamily(f"datasync_{name}", text, value=run.stats.get(counted, 0))
    yield _gauge("offsets_done", "Offsets below the total that are committed.", state["done"])
    yield _gauge("gaps", "Uncommitted ranges that have to be requested again.", state["gaps"])
    yield _gauge("requests_in_flight", "Requests sent and not answered yet.", state["in_flight"])
    for name, key, text in (
        ("source_events", "total", "The API's total."),
        ("rate_limit_requests", "limit", "Requests per window of the API's rate limit."),
        ("rate_limit_remaining_requests", "remaining", "Requests left in this window."),
        ("rate_limit_reset_seconds", "reset_in_s", "Time until the window ends."),
        ("pause_remaining_seconds", "paused_for_s", "Time until the present pause ends."),
    ):
        if state[key] is not None:
            yield _gauge(name, text, state[key])
    yield _responses(state["statuses"])
    yield _histogram(
        "response_latency_seconds", "Time from a request to its answer's first byte.",
        run.stats, board.LATENCY, run.stats.get(stat.LATENCY_SUM_S, 0.0),
    )  # fmt: skip
    yield _histogram(
        "commit_duration_seconds", "Time to write and commit a batch.",
        run.stats, board.COMMIT, run.stats.get(stat.WRITE_S, 0.0),
    )  # fmt: skip


def _ledger(ledger: LedgerView) -> Iterable[Metric]:
    yield _gauge("ledger_ranges", "Rows of the ledger.", ledger.ranges)
    yield _gauge("ledger_covered_offsets", "Offsets that the ledger covers.", ledger.covered)
    yield _gauge("ledger_stored_events", "Events stored by all runs.", ledger.stored)


def _processes(processes: Sequence[Process]) -> Iterator[Metric]:
    """Of all processes that share the crawl; the metrics of the run are of one of them."""
    alive = [one for one in processes if one.is_alive]
    yield _gauge("processes", "Processes that share the crawl now.", len(alive))
    dead = len(processes) - len(alive)
    yield _gauge("processes_dead", "Processes that ended without a word lately.", dead)
    held = sum(len(one.holds) for one in processes)
    yield _gauge("leases_held", "Chunks that processes hold now.", held)
    received = GaugeMetricFamily(
        "datasync_process_received_events",
        "Events that a process has received.",
        labels=["host", "pid"],
    )
    for one in processes:
        received.add_metric([one.host, str(one.pid)], float(one.received))
    yield received


def _freshness(fresh: Freshness) -> Iterable[Metric]:
    """A moment that never was is left out: absent(…) is the alarm for it."""
    for name, text, when in (
        ("last_complete", "When the set was last proved complete.", fresh.last_complete_at),
        ("newest_event", "The newest stored event's own timestamp.", fresh.newest_event_at),
    ):
        if when is not None:
            yield _gauge(f"{name}_timestamp_seconds", text, when)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"datasync_{name}", text, value=float(value))


def _responses(statuses: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(
        "datasync_responses", "Responses by HTTP status.", labels=["status"]
    )
    for status, count in statuses.items():
        family.add_metric([status], count)
    return family


def _histogram(
    name: str, text: str, stats: Mapping[str, Any], prefix: str, total_s: float
) -> HistogramMetricFamily:
    counts = board.grouped(stats, prefix)
    buckets, below = [], 0
    for bound in (*(f"{bound:g}" for bound in progress.HISTOGRAM_S), "inf"):
        below += counts.get(bound, 0)
        buckets.append(("+Inf" if bound == "inf" else bound, float(below)))
    return HistogramMetricFamily(f"datasync_{name}", text, buckets=buckets, sum_value=total_s)
