"""Servers that lie for good: shifting offsets, ignored offsets, no bulk endpoint, odd shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from crawling import assert_equals_truth, crawl, pages_fetched, stored_events
from faults.truth import truth, truths
from mockserver import MockServer

if TYPE_CHECKING:
    from databases import Database

EVENTS = 6000
SETTINGS = (
    "-s", "BULK_PAGE_SIZE=200", "-s", "WORKERS=4", "-s", "RETRY_BACKOFF_BASE=0.02",
    "-s", "RETRY_BACKOFF_CAP=0.05", "-s", "RETRY_TIMES=3", "-s", "DOWNLOAD_TIMEOUT=2",
)  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [
        "shift-insert:count=7,at=500,every=12,times=1",
        "shift-insert:count=250,at=0,every=12,times=1",
        "shift-delete:count=7,at=500,every=12,times=1",
        "shift-delete:count=300,at=0,every=15,times=2",
        "growing:by=20,times=3",
    ],
)
def test_shifted_offsets_are_read_again(database: Database, fault: str) -> None:
    """Events that come or go before the offset while it is read: all that are there are stored."""
    with MockServer("--events", str(EVENTS), "--latency-ms", "5", "--fault", fault) as mock:
        done = crawl(mock, database, *SETTINGS)
        assert done.status == 0, done.log
        there = {
            truth(1, index).id
            for first, count in mock.stats()["runs"]
            for index in range(first, first + count)
        }
    stored = stored_events(database)
    assert not there - stored.keys(), done.log
    # What was deleted meanwhile may be there too, nothing else.
    assert len(stored.keys() - there) <= 600


@pytest.mark.parametrize("path", ["offset", "cursor"])
def test_a_limit_that_is_refused_is_lowered_and_remembered(database: Database, path: str) -> None:
    """400 to a limit above the server's own: smaller ones are tried, and the next run knows."""
    settings = ("-s", "BULK_PAGE_SIZE=5000", "-s", f"PAGINATION={path}")
    limit = ("--max-limit", "250", "--over-limit", "error")
    with MockServer("--events", str(EVENTS), *limit) as mock:
        done = crawl(mock, database, *settings)
        assert done.status == 0, done.log
        assert "The API rejects limit=5000 (HTTP 400: " in done.log
        assert "limit must be at most 250" in done.log
        assert mock.stats()["requests"] <= 4 + EVENTS / 250 + 2
        again = crawl(mock, database, *settings)
        assert again.status == 0, again.log
        assert path == "cursor" or "refuses" not in again.log
    assert_equals_truth(database, truths(1, 0, EVENTS))


def test_a_limit_that_is_always_refused_ends_with_a_sentence(database: Database) -> None:
    """A server that takes none of the common limits isn't asked for ever."""
    limit = ("--max-limit", "3", "--over-limit", "error")
    with MockServer("--events", str(EVENTS), *limit) as mock:
        done = crawl(mock, database, "-s", "PAGINATION=offset")
        assert done.status == 1
        assert "Check BULK_PAGE_SIZE" in done.log
        assert mock.stats()["requests"] <= 10


def test_an_ignored_offset_is_noticed(database: Database) -> None:
    """PAGINATION=auto goes on by cursor and completes; PAGINATION=offset stops with a sentence."""
    with MockServer("--events", str(EVENTS), "--fault", "ignored-offset") as mock:
        refused = crawl(mock, database, *SETTINGS, "-s", "PAGINATION=offset")
        assert refused.status == 1
        assert "ignores the offset" in refused.log
        assert pages_fetched(mock) < 20
        done = crawl(mock, database, *SETTINGS)
        assert done.status == 0, done.log
        assert_equals_truth(database, truths(1, 0, EVENTS))


def test_without_a_bulk_endpoint_the_cursor_leads_on(database: Database) -> None:
    """404 for the bulk path: auto takes the regular endpoint, resumes, and finds what is new."""
    with MockServer("--events", str(EVENTS), "--no-bulk") as mock:
        done = crawl(mock, database, *SETTINGS)
        assert done.status == 0, done.log
        assert_equals_truth(database, truths(1, 0, EVENTS))
        fetched = pages_fetched(mock)
        unchanged = crawl(mock, database, *SETTINGS)
        assert unchanged.status == 0, unchanged.log
        assert "complete: proved against the API's total (6,000)" in unchanged.log
        assert pages_fetched(mock) == fetched + 1  # the first page tells that nothing was added
        mock.config(events=EVENTS + 50)
        again = crawl(mock, database, *SETTINGS)
        assert again.status == 0, again.log
        assert_equals_truth(database, truths(1, 0, EVENTS + 50))


def test_an_expired_cursor_starts_over(database: Database) -> None:
    """The crawl by cursor starts over when its cursor has expired, and stores nothing twice."""
    with MockServer(
        "--events", str(EVENTS), "--fault", "cursor-expired:every=9,times=1"
    ) as mock:  # fmt: skip
        done = crawl(mock, database, *SETTINGS, "-s", "PAGINATION=cursor")
        assert done.status == 0, done.log
        assert "The cursor has expired" in done.log
        assert_equals_truth(database, truths(1, 0, EVENTS))


@pytest.mark.parametrize(
    "fault",
    [
        "total:say=missing",
        "total:say=shrinking",
        "total:say=zero",
        "total:say=inflated,every=4",
        "growing:by=3",
    ],
)
def test_totals_that_lie_end_in_bounded_time(database: Database, fault: str) -> None:
    """Missing, shrinking, inflated and growing totals: the crawl ends, and what is there is had."""
    with MockServer("--events", str(EVENTS), "--fault", fault) as mock:
        done = crawl(mock, database, *SETTINGS)
        wanted = {truth(1, index).id for index in range(EVENTS)}
    assert wanted <= stored_events(database).keys(), done.log
    if "inflated" not in fault:
        assert done.status == 0, done.log


def test_a_total_that_is_never_reached_is_not_complete(database: Database) -> None:
    """The API insists on more events than it serves: everything is stored, exit 1 says so."""
    with MockServer("--events", str(EVENTS), "--fault", "total:say=inflated") as mock:
        done = crawl(mock, database, *SETTINGS)
    assert done.status == 1
    assert "NOT complete: offsets 6000" in done.log
    assert_equals_truth(database, truths(1, 0, EVENTS))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("401:start=8", "The API rejects the key"), ("403:start=8", "The API rejects the key")],
)
def test_a_withdrawn_key_stops_the_crawl(database: Database, fault: str, reason: str) -> None:
    """In the middle, too: no storm of refused requests, what was fetched is committed, exit 1."""
    with MockServer("--events", str(EVENTS), "--fault", fault) as mock:
        done = crawl(mock, database, *SETTINGS)
        assert done.status == 1
        assert reason in done.log
        assert mock.stats()["requests"] <= 8 + 8
        assert database.value("SELECT count(*) FROM events") >= 200


def test_a_key_withdrawn_at_the_last_page_ends_without_a_traceback(database: Database) -> None:
    """Where the plan has nothing left to hand out it asks the ledger, which is closed by then."""
    with MockServer("--events", "1400", "--fault", "401:start=7") as mock:
        done = crawl(mock, database, *SETTINGS)
    assert done.status == 1
    assert "The API rejects the key" in done.log
    assert "Traceback" not in done.log, done.log


def test_a_redirect_is_not_followed(database: Database) -> None:
    """Another host never sees the key, nor any request."""
    with (
        MockServer("--events", "10") as other,
        MockServer("--events", "10", "--fault", f"redirect:to={other.url},every=1") as mock,
    ):
        done = crawl(mock, database, *SETTINGS)
        assert done.status == 1
        assert "Redirects aren't followed" in done.log
        assert other.stats()["requests"] == 0


@pytest.mark.parametrize("shape", ["data", "list"])
def test_bare_bodies_are_pages_too(database: Database, shape: str) -> None:
    """{"data": […]} alone and a bare list, with the total in the header."""
    with MockServer("--events", "1000", "--shape", shape) as mock:
        done = crawl(mock, database, *SETTINGS)
    assert done.status == 0, done.log
    assert_equals_truth(database, truths(1, 0, 1000))


def test_missing_fields_are_fetched_again(database: Database) -> None:
    """A page that the API marks as tampered with comes whole at a later try."""
    with MockServer("--events", "2000", "--fault", "missing-fields:every=5,times=3") as mock:
        done = crawl(mock, database, *SETTINGS)
    assert done.status == 0, done.log
    assert_equals_truth(database, truths(1, 0, 2000))


def test_a_page_that_never_comes_is_reported(database: Database) -> None:
    """The rest is stored; exit 1 names the offsets; the next run fetches just them."""
    with MockServer("--events", str(EVENTS), "--fault", "html:offset=1000") as mock:
        done = crawl(mock, database, *SETTINGS)
        assert done.status == 1
        assert "offsets 996–1194" in done.log
        assert "MetaCopyDetection" not in done.log  # Scrapy's, of a retry of our own
        assert database.value("SELECT count(*) FROM events") == EVENTS - 199
        mock.config(fault=[])
        before = pages_fetched(mock)
        again = crawl(mock, database, *SETTINGS)
        assert again.status == 0, again.log
        assert pages_fetched(mock) - before == 3  # the first page, the gap, behind the end
        assert_equals_truth(database, truths(1, 0, EVENTS))


def test_events_inserted_between_two_runs_are_found(database: Database) -> None:
    """In the middle of a set that was complete: the ids are fewer than the total, all is read."""
    with MockServer("--events", "3000") as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
        mock.config(insert=[1500, 30])
        done = crawl(mock, database, *SETTINGS)
        assert done.status == 0, done.log
        assert done.line("run: new  ") == "30"


def test_ids_that_the_api_serves_twice_are_no_reason_to_read_again(database: Database) -> None:
    """A set with duplicates that grows is complete, and a second run fetches what was added."""
    fault = "bad-events:kind=duplicate,each=50"
    with MockServer("--events", "3000", "--fault", fault) as mock:
        first = crawl(mock, database, *SETTINGS)
        assert first.status == 0, first.log
        before = pages_fetched(mock)
        mock.config(events=3100)
        done = crawl(mock, database, *SETTINGS)
        assert done.status == 0, done.log
        assert pages_fetched(mock) - before <= 3
