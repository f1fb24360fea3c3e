"""FOLLOW: one process that keeps the table up to date, however it is ended, and what it says."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from crawling import assert_equals_truth, crawl, start_crawl, stored_events
from faults.truth import truths
from mockserver import MockServer
from test_verify import scrapy

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from databases import Database

EVENTS = 3000
SETTINGS = (
    "-s", "BULK_PAGE_SIZE=200", "-s", "FOLLOW=0.2", "-s", "RETRY_BACKOFF_BASE=0.02",
    "-s", "RETRY_BACKOFF_CAP=0.05", "-s", "RETRY_TIMES=2", "-s", "HEARTBEAT_INTERVAL=0.1",
)  # fmt: skip


class Follower:
    """A crawl that follows, and what of it can be seen in the database."""

    def __init__(self, process: subprocess.Popen[str], database: Database) -> None:
        self.process, self._database = process, database

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits for it, while the process lives."""
        deadline = time.monotonic() + 60
        while not condition():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline, "it doesn't come to that"
            time.sleep(0.02)

    def until_stored(self, events: int) -> None:
        """So many events are proved complete."""
        self.until(lambda: self.proved() == events)

    def until_looked(self, looks: int = 2) -> None:
        """So many looks more are proved."""
        goal = self.proofs() + looks
        self.until(lambda: self.proofs() >= goal)

    def proved(self) -> int:
        if self._database.value("SELECT to_regclass('proofs')") is None:
            return 0
        found = self._database.execute("SELECT count FROM proofs ORDER BY pass DESC LIMIT 1")
        return int(found[0][0]) if found else 0

    def proofs(self) -> int:
        return int(self._database.value("SELECT count(*) FROM proofs"))

    def says(self, text: str) -> bool:
        """Whether the heartbeat says so of now."""
        return text in str(
            self._database.value(
                "SELECT stats->'now'->>'follows' FROM crawl_runs ORDER BY id DESC LIMIT 1"
            )
        )

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit status and log."""
        self.process.send_signal(number)
        log, _ = self.process.communicate(timeout=30)
        assert "Traceback" not in log, log
        return self.process.returncode, log


@contextmanager
def following(mock: MockServer, database: Database, *args: str) -> Iterator[Follower]:
    process = start_crawl(mock, database, *SETTINGS, *args)
    try:
        yield Follower(process, database)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("order", ["oldest-first", "newest-first"])
def test_what_is_added_comes_by_itself(database: Database, order: str) -> None:
    """Events are added twice, behind or in front; SIGTERM ends one run, complete, with 0."""
    with (
        MockServer("--events", str(EVENTS), "--order", order) as mock,
        following(mock, database) as follower,
    ):
        follower.until_stored(EVENTS)
        follower.until(lambda: follower.says("up to date, next look in"))
        for more in (10, 500):
            mock.config(grow=more)
            follower.until_stored(EVENTS + more + (more == 500) * 10)
        follower.until_looked()
        status, log = follower.end()
    assert status == 0, log
    assert "Up to date: 10 new, 3,010 stored." in log
    assert "complete: proved against the API's total (3,510)" in log
    assert "the last complete look was at" in log
    assert_equals_truth(database, truths(1, 0, EVENTS + 510))
    assert database.execute("SELECT finish_reason, stats->'crawl/complete' FROM crawl_runs") == [
        ("finished", True)
    ]


def test_looks_without_anything_new_leave_no_rows(database: Database) -> None:
    """The ledger and its seams stay as small as after a few looks, and verify finds them good."""
    tables = ("checkpoint", "seams")
    with MockServer("--events", str(EVENTS)) as mock:
        with following(mock, database) as follower:
            follower.until_stored(EVENTS)
            follower.until_looked(3)
            before = [database.value(f"SELECT count(*) FROM {name}") for name in tables]
            follower.until_looked(6)
            mock.config(grow=10)
            follower.until_stored(EVENTS + 10)
            follower.until_looked(3)
            after = [database.value(f"SELECT count(*) FROM {name}") for name in tables]
            status, log = follower.end()
        assert status == 0, log
        assert all(b <= a + 4 for a, b in zip(before, after, strict=True)), (before, after)
        verified = scrapy(mock, database, "verify")
    assert verified.status == 0, verified.log
    assert_equals_truth(database, truths(1, 0, EVENTS + 10))


def test_a_killed_follower_is_taken_over(database: Database) -> None:
    """SIGKILL three times, while events come: the next one fetches what is missing."""
    with MockServer("--events", str(EVENTS), "--fault", "growing:by=20") as mock:
        for _ in range(3):
            with following(mock, database) as follower:
                follower.until(lambda: follower.proved() > 0)
                follower.until_looked(3)
                follower.end(signal.SIGKILL)
        mock.config(fault=[])
        with following(mock, database) as follower:
            follower.until_looked(3)
            status, log = follower.end()
        total = follower.proved()
    assert status == 0, log
    assert total > EVENTS
    assert len(stored_events(database)) == total
    assert_equals_truth(database, truths(1, 0, total))


def test_a_look_that_fails_is_said_and_made_good(database: Database) -> None:
    """The API fails for a while: said, shown, exit 1 if it is ended then; later it catches up."""
    with MockServer("--events", str(EVENTS)) as mock:
        with following(mock, database) as follower:
            follower.until_stored(EVENTS)
            mock.config(fault=["500:every=1"])
            follower.until(lambda: follower.says("not up to date, next look in"))
            status, log = follower.end()
            assert status == 1, log
            assert (
                "Not up to date: the first page couldn't be fetched: HTTP 500. Next look in" in log
            )
            assert "NOT complete: the first page couldn't be fetched: HTTP 500." in log
        with following(mock, database) as follower:  # it begins while nothing can be fetched
            follower.until(lambda: follower.says("not up to date, next look in"))
            mock.config(fault=[], grow=10)
            follower.until_stored(EVENTS + 10)
            follower.until_looked()
            status, log = follower.end()
    assert status == 0, log
    assert_equals_truth(database, truths(1, 0, EVENTS + 10))


def test_too_many_rejections_are_said_at_each_look_that_changes_them(database: Database) -> None:
    """While it stays, once; SIGTERM ends it with 1, complete as far as that goes."""
    bad = ("--fault", "bad-events:kind=no-id,each=10")
    with (
        MockServer("--events", "300", *bad) as mock,
        following(mock, database, "-s", "MAX_REJECTED=0.01") as follower,
    ):
        follower.until(lambda: follower.proved() > 0)
        follower.until_looked()
        status, log = follower.end()
    assert status == 1, log
    assert "complete, with 30 rejected: proved" in log
    sentence = "30 of 300 events are rejected, more than MAX_REJECTED (0.01) allows"
    assert log.count(f"WARNING: {sentence}") == 1
    assert log.count(sentence) == 2  # and beside the verdict
    assert database.value("SELECT finish_reason FROM crawl_runs") == "too_many_rejected"


def test_a_refused_key_ends_it(database: Database) -> None:
    """401 after complete looks: exit 1 with the sentence, whatever was proved before."""
    with MockServer("--events", str(EVENTS)) as mock, following(mock, database) as follower:
        follower.until_stored(EVENTS)
        mock.config(key_expires_after=0)
        log, _ = follower.process.communicate(timeout=30)
    assert follower.process.returncode == 1, log
    assert "NOT complete: The API rejects the key (HTTP 401)" in log
    assert database.value("SELECT finish_reason FROM crawl_runs") == "unauthorized"


def test_what_no_look_can_mend_ends_it(database: Database) -> None:
    """A path that isn't there: the first look says what to set, and there is no second one."""
    with MockServer("--events", "10") as mock:
        done = crawl(mock, database, *SETTINGS, "-s", "PAGINATION=offset", "-s", "BULK_PATH=/no")
    assert done.status == 1, done.log
    assert "Not up to date" not in done.log


def test_ended_before_anything_is_complete(database: Database) -> None:
    """SIGTERM in the first look: exit 1, as of any crawl."""
    with (
        MockServer("--events", "20000", "--latency-ms", "50") as mock,
        following(mock, database, "-s", "WORKERS=1") as follower,
    ):
        follower.until(lambda: mock.stats()["pages"] > 3)
        status, log = follower.end()
    assert status == 1, log
    assert "NOT complete: stopped by a signal" in log


def test_by_cursor(database: Database) -> None:
    """Without a bulk endpoint: found out once, and what is added comes all the same."""
    with (
        MockServer("--events", str(EVENTS), "--no-bulk") as mock,
        following(mock, database) as follower,
    ):
        follower.until_stored(EVENTS)
        mock.config(grow=30)
        follower.until_stored(EVENTS + 30)
        status, log = follower.end()
    assert status in {0, 1}, log  # ended in the midst of reading again, it has no proof
    assert log.count("the crawl goes on by cursor") == 1
    assert_equals_truth(database, truths(1, 0, EVENTS + 30))


def test_within_the_rate_limit(database: Database) -> None:
    """Looks as often as it can at an API that allows 8 requests in 2 s: not one 429, and 0."""
    limit = ("--rate-limit", "8", "--rate-window", "2")
    with (
        MockServer("--events", "300", *limit) as mock,
        following(mock, database, "-s", "FOLLOW=0.01") as follower,
    ):
        follower.until_stored(300)
        follower.until_looked(12)
        status, log = follower.end()
        assert "429" not in mock.stats()["by_status"]
    assert status == 0, log


@pytest.mark.parametrize("value", ["0", "-1", "often", "1m"])
def test_a_wrong_interval(database: Database, value: str) -> None:
    """Exit 2 and a sentence."""
    done = crawl(None, database, "-s", f"FOLLOW={value}", env={
        "API_BASE_URL": "http://127.0.0.1:9/api/v1", "API_KEY": "unused",
    })  # fmt: skip
    assert done.status == 2
    assert f"FOLLOW is {value!r}: set it to a number of seconds, more than 0." in done.log
