"""Whole crawls of servers whose sets move while they are read, killed and resumed on the way."""

from __future__ import annotations

import os
import signal
import time
from random import Random
from typing import TYPE_CHECKING

import pytest
from crawling import crawl, start_crawl
from support_servers import serving_virtual
from virtual import Server

if TYPE_CHECKING:
    from databases import Database

#: SIGKILLs before the crawl that may end; DATASYNC_KILLS sets another number.
KILLS = int(os.environ.get("DATASYNC_KILLS", "2"))
PAGE = 100
SETTINGS = (
    "-s", f"BULK_PAGE_SIZE={PAGE}", "-s", "WORKERS=4", "-s", "RETRY_BACKOFF_BASE=0.02",
    "-s", "RETRY_BACKOFF_CAP=0.1", "-s", "RETRY_TIMES=2",
)  # fmt: skip
#: How the set moves, how the server answers, and what the exit status must be (None: either).
KINDS = (
    ("still", "ties", 0), ("still", "random", 1), ("roll", "plain", None),
    ("still", "replica", None), ("head", "plain", None), ("middle", "plain", None),
    ("still", "twice", 0),
)  # fmt: skip


@pytest.mark.parametrize(("moving", "answering", "status"), KINDS)
def test_what_was_there_all_the_time_is_stored(
    database: Database, moving: str, answering: str, status: int | None
) -> None:
    """Exit 0 only with every event that was there all the time, once; else 1, and the cause."""
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")
    moments = Random(seed)
    server = Server(Random(seed), 8000, PAGE, moving=moving, answering=answering)
    with serving_virtual(server) as url:
        env = {"API_BASE_URL": url, "API_KEY": "unused"}
        for _ in range(KILLS):
            process = start_crawl(None, database, *SETTINGS, env=env)
            before, goal = server.requests, moments.randrange(5, 60)
            while server.requests < before + goal and process.poll() is None:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        done = crawl(None, database, *SETTINGS, env=env)
    stored = {row[0] for row in database.execute("SELECT id FROM events")}
    missing = server.wanted - stored
    print(f"exit {done.status}, missing {len(missing)}, requests {server.requests}, pages 80")
    assert "Traceback" not in done.log, done.log
    assert done.status == (1 if missing else done.status), done.log
    assert status is None or done.status == status, done.log
    if done.status:
        assert "NOT complete: " in done.log
