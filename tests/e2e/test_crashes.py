"""Crashes at chosen points of a transaction, and two processes at once: nothing lost or twice."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from crawling import assert_equals_truth, crawl, start_crawl
from faults.crashes import CRAWL_ARGUMENTS, POINTS, crash_environment
from faults.truth import truths
from mockserver import MockServer

if TYPE_CHECKING:
    from pathlib import Path

    from databases import Database

EVENTS = 4000
SETTINGS = ("-s", "BULK_PAGE_SIZE=200", "-s", "BATCH_ROWS=400", "-s", "WORKERS=4")


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_point_twice_and_while_resuming(
    database: Database, tmp_path: Path, point: str
) -> None:
    """SIGKILL there in the third transaction, in the first of the resume, and once more: complete.

    What was committed up to the COMMIT is there, what wasn't isn't; the ledger says which.
    """
    jobdir = ("-s", f"JOBDIR={tmp_path / 'state'}")
    with MockServer("--events", str(EVENTS)) as mock:
        for occurrence in (3, 1, 2):
            crash = crash_environment(point, occurrence)
            killed = crawl(mock, database, *SETTINGS, *jobdir, *CRAWL_ARGUMENTS, env=crash)
            assert killed.status == -signal.SIGKILL, killed.log
            inserted = database.value("SELECT coalesce(sum(inserted), 0) FROM checkpoint")
            assert database.value("SELECT count(*) FROM events") == inserted
        done = crawl(mock, database, *SETTINGS, *jobdir)
        assert done.status == 0, done.log
        assert_equals_truth(database, truths(1, 0, EVENTS))


def test_a_second_process_with_the_same_jobdir_helps(database: Database, tmp_path: Path) -> None:
    """With the JOBDIR and the schema of a running crawl both end with 0 and the same verdict."""
    jobdir = ("-s", f"JOBDIR={tmp_path / 'state'}")
    with MockServer("--events", "30000", "--latency-ms", "1500") as mock:
        first = start_crawl(mock, database, *SETTINGS, *jobdir)
        deadline = time.monotonic() + 60
        while database.value("SELECT to_regclass('checkpoint')") is None or not database.value(
            "SELECT count(*) FROM checkpoint"
        ):
            assert time.monotonic() < deadline, "the first crawl doesn't begin"
        second = crawl(mock, database, *SETTINGS, *jobdir)
        log, _ = first.communicate(timeout=120)
    assert second.status == 0, second.log
    assert "this one helps it to fetch" in second.log
    assert first.returncode == 0, log
    assert "Traceback" not in log
    assert_equals_truth(database, truths(1, 0, 30_000))
