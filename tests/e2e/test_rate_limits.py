"""Rate limits, met by whole crawls: what the mock's journal and the user's log say of them.

Counts and order only: how near the ideal a crawl comes is benchmarks/rate_limits.py's. Windows are
short, and pages few.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from crawling import PROJECT, Crawled, assert_equals_truth, crawl, environment, start_crawl
from faults.truth import truths
from mockserver import MockServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from databases import Database

PAGE = 50
SETTINGS = ("-s", f"BULK_PAGE_SIZE={PAGE}")


def events(pages: int) -> int:
    """So many that the last page is short: nobody looks behind the end, it's a request a page."""
    return pages * PAGE - 1


def mock(pages: int, *options: str) -> MockServer:
    return MockServer("--events", str(events(pages)), "--latency-ms", "10", *options)


def statuses(server: MockServer) -> list[int]:
    return [entry["status"] for entry in server.stats()["entries"]]


def assert_complete(done: Crawled, database: Database, pages: int) -> None:
    assert done.status == 0, done.log
    assert_equals_truth(database, truths(1, 0, events(pages)))


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it doesn't happen"
        time.sleep(0.02)


def learned(database: Database) -> list[tuple[str, dict[str, Any]]]:
    if database.value("SELECT to_regclass('rate_limits')") is None:
        return []
    return [tuple(row) for row in database.execute("SELECT key_hash, learnt FROM rate_limits")]


def is_pause_written(database: Database) -> bool:
    if database.value("SELECT to_regclass('rate_limits')") is None:
        return False
    return bool(database.value("SELECT bool_or(paused_until > now()) FROM rate_limits"))


@pytest.mark.parametrize("headers", ["full", "ietf"])
@pytest.mark.parametrize("limiter", ["fixed", "sliding", "token-bucket"])
def test_with_full_headers_nothing_is_refused(
    database: Database, limiter: str, headers: str
) -> None:
    """A request a page, and not one 429, in three windows of every kind of limiter."""
    limit = ("--rate-limit", "4", "--rate-window", "2")
    with mock(12, *limit, "--limiter", limiter, "--rate-headers", headers) as server:
        assert_complete(crawl(server, database, *SETTINGS), database, 12)
        assert statuses(server) in ([200] * 13, [200] * 14)  # the overlap, and the end


@pytest.mark.parametrize("form", ["seconds", "http-date", "body-only", "none", "absurd", "text"])
def test_every_way_to_say_too_many_loses_no_page(database: Database, form: str) -> None:
    """429 twice in mid-crawl, however it says when to come back, or doesn't."""
    with mock(8, "--fault", f"429:start=4,times=2,form={form}") as server:
        done = crawl(server, database, *SETTINGS, "-s", "RETRY_TIMES=0")
        assert_complete(done, database, 8)
        assert statuses(server).count(429) == 2


def test_fifty_refusals_in_a_row_lose_no_page(database: Database) -> None:
    """Waiting never uses up a page's retries. Half a second each: the API says 0 s, and again."""
    with mock(6, "--fault", "429:start=3,times=50,retry_after=0") as server:
        done = crawl(server, database, *SETTINGS, "-s", "RETRY_TIMES=0")
        assert_complete(done, database, 6)
        assert statuses(server).count(429) == 50


def test_a_refusal_pauses_all_and_one_probe_goes_first(database: Database) -> None:
    """After the 429 and those in flight with it, nothing is sent until the time is up; then one
    request goes alone until its answer is there.
    """
    with mock(30, "--fault", "429:start=6,times=1,retry_after=2", "--latency-ms", "100") as server:
        done = crawl(server, database, *SETTINGS, "-s", "WORKERS=4")
        assert_complete(done, database, 30)
        times = [entry["time"] for entry in server.stats()["entries"]]
    gaps = [after - before for before, after in pairwise(times)]
    # 2 s, less the way of the answer. Later ones are our own: it could have been a bucket's token.
    pause = next(number for number, gap in enumerate(gaps) if gap >= 1.9)
    assert gaps[pause + 1] >= 0.1  # the probe's own latency: nobody goes beside it
    assert pause <= 5 + 4  # the 429 and what was in flight with it
    assert "Paused" not in done.log  # shorter than 10 s


@pytest.mark.parametrize("after", [12, 2])
def test_a_limit_that_changes_in_mid_crawl_is_followed(database: Database, after: int) -> None:
    """Up and down: the new limit is said in the log, and costs one 429 at most."""
    with mock(30, "--rate-limit", "4", "--rate-window", "2") as server:
        process = start_crawl(server, database, *SETTINGS)
        wait_for(lambda: len(statuses(server)) >= 8, process)
        server.config(rate_limit=after)
        log, _ = process.communicate(timeout=120)
        assert_complete(Crawled(process.returncode, log), database, 30)
        assert f"Rate limit changed from 4 to {after} requests per" in log
        assert statuses(server).count(429) <= 1


def test_a_stop_during_a_long_pause_is_quick_and_resumable(database: Database) -> None:
    """SIGTERM in a pause of 300 s: over in five seconds, exit 1; the pause is remembered."""
    with mock(8, "--fault", "429:start=5,times=1,retry_after=300") as server:
        process = start_crawl(server, database, *SETTINGS, "-s", "WORKERS=1")
        wait_for(lambda: 429 in statuses(server), process)
        process.send_signal(signal.SIGTERM)
        log, _ = process.communicate(timeout=5)
        assert process.returncode == 1, log
        assert "stopped by a signal" in log
        assert database.value("SELECT count(*) FROM checkpoint") == 4
        asked = len(statuses(server))
        too_long = crawl(server, database, *SETTINGS, "-s", "RATE_LIMIT_MAX_WAIT=10")
        assert too_long.status == 1
        assert "longer than RATE_LIMIT_MAX_WAIT (10 s)" in too_long.log
        assert len(statuses(server)) == asked


def test_a_pause_beyond_the_longest_ends_the_crawl(database: Database) -> None:
    """With a sentence that says when to come back, and all that was fetched committed."""
    with mock(8, "--fault", "429:start=5,times=1,retry_after=500") as server:
        done = crawl(server, database, *SETTINGS, "-s", "RATE_LIMIT_MAX_WAIT=100")
        assert done.status == 1
        assert "longer than RATE_LIMIT_MAX_WAIT (100 s). Run the same command again after" in (
            done.log
        )
        pages = server.stats()["pages"]
        assert database.value("SELECT count(*) FROM checkpoint") == pages


@pytest.mark.parametrize("headers", ["full", "retry-after"])
def test_a_pause_is_remembered_over_a_kill(database: Database, headers: str) -> None:
    """The process is killed while it waits; the next one sends nothing into the closed window."""
    limit = ("--rate-limit", "4", "--rate-window", "6", "--rate-headers", headers)
    with mock(8, *limit) as server:
        process = start_crawl(server, database, *SETTINGS)
        wait_for(lambda: is_pause_written(database), process)
        process.kill()
        process.communicate()
        before = server.stats()["entries"]
        done = crawl(server, database, *SETTINGS)
        assert done.status == 0, done.log
        assert_equals_truth(database, truths(1, 0, events(8)))
        entries = server.stats()["entries"][len(before) :]
        assert entries[0]["status"] == 200
        assert entries[0]["time"] - before[0]["time"] >= 5.9  # the window's length
        if headers == "full":
            assert 429 not in [entry["status"] for entry in entries]


def test_a_wait_that_was_found_by_trying_is_remembered_over_a_kill(database: Database) -> None:
    """Killed in the second window of an unadvertised limit, while answers were on their way as the
    wait was stored: the next process sends nothing into the rest of that window.
    """
    limit = ("--rate-limit", "10", "--rate-window", "6", "--rate-headers", "none")
    with mock(30, *limit, "--latency-ms", "200") as server:
        process = start_crawl(server, database, *SETTINGS)
        wait_for(lambda: statuses(server).count(200) >= 20, process)
        time.sleep(0.5)  # the last answers arrive
        process.kill()
        process.communicate()
        before = server.stats()["entries"]
        done = crawl(server, database, *SETTINGS)
        assert done.status == 0, done.log
        entries = server.stats()["entries"][len(before) :]
    served = [entry["time"] for entry in before if entry["status"] == 200]
    assert [entry["status"] for entry in entries[:10]] == [200] * 10
    assert entries[0]["time"] - served[10] >= 5.9


def test_an_unadvertised_limit_is_remembered_for_the_next_run(database: Database) -> None:
    """What was found by trying costs a burst of 429s once: the next run tries one more at most."""
    limit = ("--rate-limit", "4", "--rate-window", "2", "--rate-headers", "none")
    with mock(12, *limit) as server:
        assert_complete(crawl(server, database, *SETTINGS), database, 12)
        first = statuses(server)
        ((_, known),) = learned(database)
        assert known["limit"] == 4
        server.config(grow=12 * PAGE)
        done = crawl(server, database, *SETTINGS)
        assert done.status == 0, done.log
        second = statuses(server)[len(first) :]
    assert second.count(200) >= 12
    assert second[:4] == [200] * 4
    # A trial for more now and then: never a burst, as there was when nothing was known.
    assert ", 429, 429, 429" not in str(second)


@pytest.mark.parametrize("say", ["text", "negative", "absurd"])
def test_nonsense_in_the_headers_costs_a_log_line(database: Database, say: str) -> None:
    """Ignored, said once, and never an endless wait: also where there is a limit behind it."""
    options = ("--rate-limit", "4", "--rate-window", "2", "--fault", f"bad-rate-headers:say={say}")
    with mock(8, *options) as server:
        done = crawl(server, database, *SETTINGS)
        assert_complete(done, database, 8)
    assert done.log.count("Ignored invalid rate-limit fields: x-ratelimit-limit") == 1
    assert done.log.count("Ignored invalid rate-limit fields") == 1


def test_503_with_retry_after_is_a_pause(database: Database) -> None:
    """As a 429: everything waits, and no retry is used up."""
    with mock(12, "--fault", "503:start=4,times=1,retry_after=2") as server:
        done = crawl(server, database, *SETTINGS, "-s", "RETRY_TIMES=0")
        assert_complete(done, database, 12)
        times = [entry["time"] for entry in server.stats()["entries"]]
    assert max(after - before for before, after in pairwise(times)) >= 1.9


def test_503_with_a_senseless_retry_after_is_a_failure(database: Database) -> None:
    """It says nothing: the page backs off and is given up, instead of being asked for for ever."""
    with mock(4, "--fault", "503:offset=60,retry_after=1,form=text") as server:
        quick = ("-s", "RETRY_TIMES=2", "-s", "RETRY_BACKOFF_BASE=0.01")
        done = crawl(server, database, *SETTINGS, *quick)
        assert done.status == 1
        assert "offsets 50–98 couldn't be fetched: HTTP 503" in done.log
        # The first round and two stalled ones, each of which looks for the end at the gap as well.
        # Two 503s in a row could be a limit's (nginx sends no Retry-After), so each is probed a few
        # times more.
        assert 3 * 3 <= statuses(server).count(503) <= 2 * 3 * 3 + 15


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_stops_at_once(database: Database, status: int) -> None:
    """In mid-crawl: at most the requests in flight are refused, what came before is committed."""
    with mock(60, "--fault", f"{status}:start=20") as server:
        done = crawl(server, database, *SETTINGS, "-s", "WORKERS=4")
        assert done.status == 1
        assert f"The API rejects the key (HTTP {status})" in done.log
        assert "Set API_KEY" in done.log
        assert 1 <= statuses(server).count(status) <= 4
        assert database.value("SELECT count(*) FROM checkpoint") == server.stats()["pages"]


def test_a_limit_and_a_long_pause_get_one_line_each(database: Database) -> None:
    """The limit with its window, from which fields; how long all wait, and until when."""
    with mock(12, "--rate-limit", "6", "--rate-window", "11") as server:
        done = crawl(server, database, *SETTINGS)
        assert_complete(done, database, 12)
    lines = [line for line in done.log.splitlines() if "[report]" in line]
    assert len(lines) == 2, done.log
    source = "(x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset)"
    assert lines[0].endswith(f"Rate limit: 6 requests per 11 s {source}")
    assert "Paused for 1" in lines[1]
    assert lines[1].endswith(": rate limit")


def test_a_stated_limit_is_kept_from_the_first_request_on(database: Database) -> None:
    """RATE_LIMIT: the API says nothing and refuses nothing, since it is never asked too often."""
    limit = ("--rate-limit", "4", "--rate-window", "3", "--rate-headers", "none")
    with mock(12, *limit) as server:
        done = crawl(server, database, *SETTINGS, "-s", "RATE_LIMIT=4/3s")
        assert_complete(done, database, 12)
        assert statuses(server) in ([200] * 13, [200] * 14)  # the overlap, and the end


def test_a_share_leaves_room(database: Database) -> None:
    """Half of eight in four seconds: one a second, and half of each window stays free."""
    with mock(6, "--rate-limit", "8", "--rate-window", "4") as server:
        done = crawl(server, database, *SETTINGS, "-s", "RATE_LIMIT_SHARE=0.5")
        assert_complete(done, database, 6)
        times = [entry["time"] for entry in server.stats()["entries"]]
    assert all(after - before >= 0.9 for before, after in pairwise(times))


def test_refusals_for_ever_end_the_crawl(database: Database) -> None:
    """However short each wait is: refused for longer than RATE_LIMIT_MAX_WAIT in total."""
    with mock(4, "--fault", "429:start=2,times=100000,retry_after=1") as server:
        done = crawl(server, database, *SETTINGS, "-s", "RATE_LIMIT_MAX_WAIT=4")
        assert done.status == 1
        assert "The API has let no request through for" in done.log
        assert "longer than RATE_LIMIT_MAX_WAIT (4 s). Run the same command again after" in done.log
        assert statuses(server).count(429) <= 8


@pytest.mark.parametrize("command", ["verify", "source"])
def test_commands_respect_the_pause(database: Database, command: str) -> None:
    """In a pause of ten minutes that a crawl met, they don't ask the API, and say until when."""
    with mock(4, "--fault", "429:start=3,times=1,retry_after=600") as server:
        crawl(server, database, *SETTINGS, "-s", "RATE_LIMIT_MAX_WAIT=60")
        asked = len(statuses(server))
        moved = ["--move-to", server.url.replace("127.0.0.1", "localhost")]
        done = subprocess.run(
            [sys.executable, "-m", "scrapy", command, *(moved if command == "source" else [])],
            cwd=PROJECT,
            env=environment(server, database),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "asks for a pause of" in done.stderr
        assert "Run the same command again after" in done.stderr
        assert len(statuses(server)) == asked


def test_the_memory_doesnt_know_the_key(database: Database) -> None:
    """`rate_limits` holds a salted hash: neither the key nor a hash that could be looked up."""
    with mock(2, "--rate-limit", "4", "--rate-window", "2") as server:
        assert_complete(crawl(server, database, *SETTINGS), database, 2)
        key = server.key
    ((key_hash, known),) = learned(database)
    assert len(key_hash) == 64
    plain = [hashlib.new(name, key.encode()).hexdigest() for name in ("sha256", "sha1", "md5")]
    said = key_hash + json.dumps(known)
    assert not any(secret in said for secret in (key, *plain))
