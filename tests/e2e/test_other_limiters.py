"""Crawls through rate limiters that people run, from npm and PyPI, in front of the mock API.

Counts only; how near the ideal they come is benchmarks/rate_limits.py's. Left out where npm isn't
there, or nothing can be installed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from crawling import crawl
from mockserver import MockServer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import other_limiters

if TYPE_CHECKING:
    from databases import Database

LIMIT, WINDOW_S, PAGES, PAGE = 5, 4, 15, 50


def refusals(database: Database, kind: str) -> int:
    """A whole crawl through the limiter; how many requests it refused."""
    with MockServer("--events", str(PAGES * PAGE - 1), "--latency-ms", "10") as mock:
        upstream = f"http://{urlsplit(mock.url).netloc}"
        try:
            with other_limiters.in_front(kind, upstream, LIMIT, WINDOW_S) as address:
                env = {"API_BASE_URL": f"{address}/api/v1"}
                done = crawl(mock, database, "-s", f"BULK_PAGE_SIZE={PAGE}", env=env)
        except other_limiters.Missing as missing:
            pytest.skip(str(missing))
        assert done.status == 0, done.log
        assert PAGES <= mock.stats()["pages"] <= PAGES + 2  # the overlap, and the end
    refused = database.value("SELECT stats->'rate_limit/answers_429' FROM crawl_runs")
    return int(refused or 0)


@pytest.mark.parametrize("kind", ["express-legacy", "express-draft-6", "express-draft-7",
                                  "express-draft-8", "flexible", "flask-fixed"])  # fmt: skip
def test_what_headers_state_is_never_exceeded(database: Database, kind: str) -> None:
    """Three windows, and not one request is refused, in whatever form the limit is stated."""
    assert refusals(database, kind) == 0


def test_two_limits_with_one_set_of_headers(database: Database) -> None:
    """Of two stacked limits only one is stated at a time: the other one costs a refusal or two, not
    one for each request that is sent while the stated one has some left.
    """
    assert 1 <= refusals(database, "express-two") <= 8
