"""Whole crawls of servers whose sets move while they are read, killed and resumed on the way."""

from __future__ import annotations

import os
import signal
import time
from random import Random
from typing import TYPE_CHECKING

import pytest
from crawling import crawl, start_crawl
from support_servers import serving, serving_virtual
from virtual import Server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from databases import Database
    from support_servers import Answer

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


def test_a_page_cache_in_front_of_the_api_hides_nothing(database: Database) -> None:
    """The second run's first page comes from the cache, without the event that came in meanwhile:
    it is read again when the cache has forgotten it.
    """
    server = Server(Random(1), 450, PAGE)
    kept: dict[str, tuple[float, Answer]] = {}

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        if path != "/events/bulk":
            return None
        name, now = f"{query['offset']} {query['limit']}", time.monotonic()
        if name in kept and now - kept[name][0] < 2:
            headers, body = kept[name][1]
            return {**headers, "X-Cache": "HIT", "X-Cache-TTL": "2"}, body
        ids, total = server.get(int(query["offset"]), int(query["limit"]))
        events = [{"id": one, "type": "click", "timestamp": 1_769_541_612_369} for one in ids]
        kept[name] = now, ({}, {"data": events, "meta": {"total": total}})
        return kept[name][1]

    with serving(answer) as url:
        env = {"API_BASE_URL": url, "API_KEY": "unused"}
        assert crawl(None, database, *SETTINGS, env=env).status == 0
        # As if another client had asked for the front page just before the event came in.
        kept[f"0 {PAGE}"] = time.monotonic() + 3, kept[f"0 {PAGE}"][1]
        server.insert(0)
        done = crawl(None, database, *SETTINGS, env=env)
    assert done.status == 0, done.log
    assert {row[0] for row in database.execute("SELECT id FROM events")} == set(server.ids)
