"""monitor/metrics.py, and the Grafana file that shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from datasync_crawler.monitor import metrics
from datasync_crawler.store.reader import LedgerView, Run

GRAFANA = Path(__file__).resolve().parents[3] / "deploy" / "grafana" / "datasync-crawler.json"
RUN = Run(
    id=7, host="h", pid=1, started_at=100.0, finished_at=None, lasted_s=100.0, silent_s=0.5,
    finish_reason=None,
    stats={
        "crawl/total": 10, "events/received": 9, "latency/bucket/0.1": 3, "latency/bucket/inf": 1,
        "latency/sum_s": 61.0, "downloader/response_status_count/200": 4,
        "now": {"done": 9, "traffic": {"limit": 10, "remaining": 3, "reset_in_s": 4.5,
                                       "paused_for_s": 0.0, "in_flight": 2}},
    },
)  # fmt: skip
LEDGER = LedgerView(
    source="s", total=10, width=1, cells={}, rejected={}, covered=9, reach=9, gaps=0, first_gaps=[],
    stored=9, duplicates=0, rejections=0, ranges=2,
)  # fmt: skip


def exposed(run: Run | None, *, up: bool = True) -> str:
    body, content_type = metrics.exposition(run, LEDGER, up=up)
    assert content_type.startswith("text/plain; version=0.0.4")
    return body.decode()


def test_names_follow_prometheus_conventions() -> None:
    """One prefix, counters end in _total, units are base units, each has a help text."""
    families = list(text_string_to_metric_families(exposed(RUN)))
    assert len(families) > 20
    for family in families:
        assert family.name.startswith("datasync_")
        assert family.documentation.endswith(".")
        assert not re.search(r"(_ms|_minutes|_percent|_count)$", family.name)
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


def test_a_histogram_is_cumulative() -> None:
    """Each bucket counts all below its bound; the last is the count; the sum is in seconds."""
    text = exposed(RUN)
    assert 'latency_seconds_bucket{le="0.05"} 0.0' in text
    assert 'latency_seconds_bucket{le="0.1"} 3.0' in text
    assert 'latency_seconds_bucket{le="30"} 3.0' in text
    assert 'latency_seconds_bucket{le="+Inf"} 4.0' in text
    assert "latency_seconds_count 4.0" in text
    assert "latency_seconds_sum 61.0" in text


def test_what_isnt_known_isnt_exposed() -> None:
    """No 0 where the API has said nothing: a missing sample is the honest one."""
    silent = msgspec.structs.replace(RUN, stats={})
    text = exposed(silent)
    assert "rate_limit_remaining" in exposed(RUN)
    assert "rate_limit_remaining" not in text
    assert "datasync_database_up 0.0" in exposed(None, up=False)


def test_grafana_asks_for_metrics_that_there_are() -> None:
    """Every metric of every panel is exposed, and no panel is without a query."""
    text = exposed(RUN)
    board = json.loads(GRAFANA.read_text(encoding="utf-8"))
    for panel in board["panels"]:
        assert panel["targets"]
        for target in panel["targets"]:
            for name in re.findall(r"datasync_\w+", target["expr"]):
                assert re.search(rf"^{name}[ {{]", text, flags=re.MULTILINE), name
