"""store/runstats.py: a heartbeat's stats are read whole, or not at all."""

from __future__ import annotations

import json

import pytest

from datasync_crawler import stats as stat
from datasync_crawler.store.runstats import read_stats


@pytest.mark.parametrize(
    "stats",
    [{stat.TROUBLE: "can't reach h: try 2 of 4", stat.NEXT_TRY_AT: 1e9, stat.RETRIES: 1},
     {stat.PAUSE_REASON: "HTTP 429", stat.PAUSED_UNTIL: 1e9},
     {"now": {"done": 1, "trouble": "can't reach h"}}],
)  # fmt: skip
def test_what_a_crawl_writes_is_read(stats: dict[str, object]) -> None:
    """Also the few texts that stand among numbers."""
    assert read_stats(json.dumps(stats)) == stats


@pytest.mark.parametrize(
    "stats", [{stat.RETRIES: "1"}, {"events/received": []}, {"now": {"trouble": 1}}]
)
def test_another_kind_of_value_spoils_them_all(stats: dict[str, object]) -> None:
    """A text where a number belongs wasn't written by a crawl."""
    assert read_stats(json.dumps(stats)) is None
