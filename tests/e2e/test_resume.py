"""Killed and stopped crawls, with and without JOBDIR: they go on where they were."""

from __future__ import annotations

import math
import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest
from crawling import assert_equals_truth, crawl, pages_fetched, start_crawl
from faults.truth import truths
from mockserver import MockServer

if TYPE_CHECKING:
    from pathlib import Path

    from databases import Database

#: SIGKILLs before the crawl that may end; DATASYNC_KILLS sets another number.
KILLS = int(os.environ.get("DATASYNC_KILLS", "5"))
EVENTS = 20_000
PAGE = 250
BATCH_ROWS = 2500
#: Each page behind the first is asked for with the last event of the one before.
PAGES = 1 + math.ceil((EVENTS - PAGE) / (PAGE - 1))
#: Slow enough (20 ms an answer) that a crawl of 80 pages can be hit in its middle.
SLOW = ("--events", str(EVENTS), "--latency-ms", "20")
SETTINGS = (
    "-s", f"BULK_PAGE_SIZE={PAGE}", "-s", f"BATCH_ROWS={BATCH_ROWS}", "-s", "WORKERS=4",
)  # fmt: skip


def committed(database: Database) -> int:
    """Pages in the ledger; 0 while there is no ledger."""
    if database.value("SELECT to_regclass('checkpoint')") is None:
        return 0
    return int(database.value("SELECT count(*) FROM checkpoint"))


def hit(mock: MockServer, database: Database, pages: int, signal_: int, *args: str) -> str:
    """Starts a crawl, sends *signal_* once *pages* more are committed; gives its log."""
    goal = committed(database) + pages
    process = start_crawl(mock, database, *SETTINGS, *args)
    deadline = time.monotonic() + 60
    while committed(database) < goal and process.poll() is None:
        assert time.monotonic() < deadline, "the crawl doesn't move"
        time.sleep(0.01)
    process.send_signal(signal_)
    log, _ = process.communicate(timeout=30)
    return log


@pytest.mark.parametrize("with_jobdir", [False, True], ids=["ledger alone", "with JOBDIR"])
def test_kills_lose_and_invent_nothing(
    database: Database, tmp_path: Path, with_jobdir: bool
) -> None:
    """SIGKILLs at random moments, then completion: missing 0, extra 0, altered 0."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    args = ("-s", f"JOBDIR={tmp_path / 'state'}") if with_jobdir else ()
    with MockServer(*SLOW) as mock:
        for _ in range(KILLS):
            hit(mock, database, moments.randrange(1, 8), signal.SIGKILL, *args)
        done = crawl(mock, database, *SETTINGS, *args)
        assert done.status == 0, done.log
        assert_equals_truth(database, truths(1, 0, EVENTS))
        needed = PAGES
        # Each start reads the first page again; each kill loses what was in flight, in the
        # scraper or in a writer: at most WORKERS + two batches of BATCH_ROWS.
        assert pages_fetched(mock) <= needed + KILLS + 1 + KILLS * (4 + 2 * BATCH_ROWS // PAGE)
        print(f"pages fetched {pages_fetched(mock)}, needed {needed}")


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_stop_fetches_nothing_committed_again(
    database: Database, tmp_path: Path, signal_: int
) -> None:
    """After SIGTERM or SIGINT with JOBDIR, the next run asks for the rest, and little else."""
    jobdir = ("-s", f"JOBDIR={tmp_path / 'state'}")
    with MockServer(*SLOW) as mock:
        log = hit(mock, database, 10, signal_, *jobdir)
        assert "stopped by a signal" in log
        rest = PAGES - committed(database)
        before = pages_fetched(mock)
        done = crawl(mock, database, *SETTINGS, *jobdir)
        assert done.status == 0, done.log
        # The first page again (new events?) and a look behind the end.
        assert pages_fetched(mock) - before == rest + 2
        assert_equals_truth(database, truths(1, 0, EVENTS))


def test_a_stop_during_a_pause_is_quick(database: Database) -> None:
    """SIGTERM while all requests wait for the rate limit ends the crawl within five seconds."""
    with MockServer("--events", "5000", "--rate-limit", "3", "--rate-window", "60") as mock:
        process = start_crawl(mock, database, *SETTINGS)
        deadline = time.monotonic() + 30
        while committed(database) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        log, _ = process.communicate(timeout=5)
        assert process.returncode == 1
        assert "stopped by a signal" in log
