"""Hostile servers: whatever comes, the table is the truth or the exit status says it isn't."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from crawling import assert_equals_truth, crawl
from faults.truth import truths
from mockserver import MockServer

if TYPE_CHECKING:
    from databases import Database

EVENTS = 3000
SETTINGS = (
    "-s", "BULK_PAGE_SIZE=100", "-s", "WORKERS=4", "-s", "RETRY_BACKOFF_BASE=0.02",
    "-s", "RETRY_BACKOFF_CAP=0.1", "-s", "DOWNLOAD_TIMEOUT=2",
)  # fmt: skip

#: Faults that strike about every tenth request and go away: nothing may be lost.
PASSING = (
    "429:form=seconds", "429:form=none", "500", "502", "503", "503:retry_after=1", "504",
    "reset-before", "reset-mid", "cut-length", "cut-chunked", "chunked", "html", "empty-body",
    "half-json", "null-body", "error-object", "short-page", "empty-page", "capped-limit:limit=90",
    "hang:times=2", "slow:delay_ms=50", "has-more", "extra-envelope", "other-format",
    "nan:times=3", "huge-string:megabytes=5,times=1", "deep-nesting:levels=100000,times=1",
    "gzip-bomb:megabytes=200,times=1", "bad-rate-headers",
    "total:say=missing,where=header", "total:say=missing,where=body", "total:say=negative",
    "total:say=text", "total:say=null", "total:say=stale,every=3",
)  # fmt: skip


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_loses_nothing(database: Database, fault: str) -> None:
    """The crawl rides it out: complete, exit 0, the table is the truth."""
    with MockServer("--events", str(EVENTS), "--fault", fault) as mock:
        done = crawl(mock, database, *SETTINGS)
    print(done.log)
    assert done.status == 0
    assert "Traceback" not in done.log
    if not fault.startswith(("nan", "deep-nesting", "huge-string")):  # that event is bad for good
        assert_equals_truth(database, truths(1, 0, EVENTS))
    else:
        assert database.value("SELECT count(*) FROM events") >= EVENTS - 3
