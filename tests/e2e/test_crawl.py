"""The main road, run as a user runs it, against a real PostgreSQL and the mock API."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

from crawling import assert_equals_truth, crawl, pages_fetched, recorded_page
from faults.truth import truths
from mockserver import MockServer

if TYPE_CHECKING:
    from pathlib import Path

    from databases import Database


def test_a_crawl_stores_exactly_what_the_api_has(database: Database) -> None:
    """Every event is stored once, unaltered; each page is asked for once, and then what is behind
    the last event; the exit status is 0.
    """
    with MockServer("--events", "12345") as mock:
        done = crawl(mock, database, "-s", "BULK_PAGE_SIZE=1000")
        assert done.status == 0, done.log
        assert "complete: proved against the API's total (12,345)" in done.log
        assert_equals_truth(database, truths(1, 0, 12345))
        assert pages_fetched(mock) == 14
    assert database.execute("SELECT finish_reason FROM crawl_runs") == [("finished",)]


def test_a_second_run_asks_twice_and_stores_nothing_new(database: Database) -> None:
    """When nothing was added, the first page and a look behind the end are all it takes."""
    with MockServer("--events", "3000") as mock:
        assert crawl(mock, database, "-s", "BULK_PAGE_SIZE=500").status == 0
        before = pages_fetched(mock)
        again = crawl(mock, database, "-s", "BULK_PAGE_SIZE=500")
        assert again.status == 0, again.log
        assert pages_fetched(mock) - before == 2
        assert again.line("run: new  ") == "0"
        assert again.line("run: already stored") == "0"
        assert_equals_truth(database, truths(1, 0, 3000))


def test_events_added_at_the_end_are_all_that_a_second_run_fetches(database: Database) -> None:
    """The front page, the new pages from the last known event on, and a look at the end."""
    with MockServer("--events", "3000") as mock:
        assert crawl(mock, database, "-s", "BULK_PAGE_SIZE=500").status == 0
        before = pages_fetched(mock)
        mock.config(events=3700)
        again = crawl(mock, database, "-s", "BULK_PAGE_SIZE=500")
        assert again.status == 0, again.log
        assert pages_fetched(mock) - before == 4
        assert_equals_truth(database, truths(1, 0, 3700))


def test_a_set_smaller_than_a_page_that_grows_at_its_end(database: Database) -> None:
    """New events on the first page behind the known ones aren't taken for new ones in front."""
    with MockServer("--events", "300") as mock:
        assert crawl(mock, database, "-s", "BULK_PAGE_SIZE=500").status == 0
        mock.config(events=2100)
        again = crawl(mock, database, "-s", "BULK_PAGE_SIZE=500")
        assert again.status == 0, again.log
        assert "at the front" not in again.log
        assert_equals_truth(database, truths(1, 0, 2100))


def test_events_added_at_the_front_are_found(database: Database) -> None:
    """In newest-first order the front is read until a page is all known, and the end once."""
    with MockServer("--events", "5000", "--order", "newest-first") as mock:
        assert crawl(mock, database, "-s", "BULK_PAGE_SIZE=500").status == 0
        before = pages_fetched(mock)
        mock.config(events=5010)
        again = crawl(mock, database, "-s", "BULK_PAGE_SIZE=500")
        assert again.status == 0, again.log
        assert again.line("run: new  ") == "10"
        assert pages_fetched(mock) - before <= 3
        assert_equals_truth(database, truths(1, 0, 5010))


def test_a_capped_limit_is_followed(database: Database) -> None:
    """A server that silently serves less than was asked for loses nothing: what came counts."""
    with MockServer("--events", "4000", "--max-limit", "300") as mock:
        done = crawl(mock, database, "-s", "BULK_PAGE_SIZE=1000")
        assert done.status == 0, done.log
        assert_equals_truth(database, truths(1, 0, 4000))
        assert pages_fetched(mock) <= 17


def test_feed_exports_write_an_event_a_line(database: Database, tmp_path: Path) -> None:
    """-O events.jsonl and .csv hold each stored event once, with the columns' names."""
    lines, table = tmp_path / "events.jsonl", tmp_path / "events.csv"
    with MockServer("--events", "700") as mock:
        done = crawl(mock, database, "-s", "BULK_PAGE_SIZE=100", "-O", str(lines), "-O", str(table))
        assert done.status == 0, done.log
    ids = {truth.id for truth in truths(1, 0, 700)}
    exported = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(exported) == 700
    assert {event["id"] for event in exported} == ids
    assert {"session_id", "user_id", "properties", "timestamp", "extra"} < exported[0].keys()
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 700
    assert {row["id"] for row in rows} == ids


def test_a_format_without_lines_is_refused(database: Database) -> None:
    """-O events.json would hold one item a page: a sentence and exit 2, before any request."""
    with MockServer("--events", "10") as mock:
        done = crawl(mock, database, "-O", "events.json")
        assert done.status == 2
        assert "Use one of jsonl" in done.log
        assert pages_fetched(mock) == 0


def test_an_export_that_cant_be_written_isnt_called_done(database: Database) -> None:
    """A folder that can't be made is refused with 2, a full disk ends with 1; no traceback."""
    with MockServer("--events", "100") as mock:
        refused = crawl(mock, database, "-O", "/proc/none/events.jsonl")
        assert refused.status == 2
        assert "can't be written" in refused.log
        assert pages_fetched(mock) == 0
        full = crawl(mock, database, "-O", "/dev/full:jsonl")
        assert full.status == 1
        assert "No space left on device" in full.log
        assert "complete: proved" in full.log
    assert "Traceback" not in refused.log + full.log
    assert_equals_truth(database, truths(1, 0, 100))


def test_a_recorded_page_is_crawled(database: Database) -> None:
    """The real service's response gives 5,000 rows with the right instants."""
    recorded = recorded_page()
    with MockServer("--replay", str(recorded)) as mock:
        done = crawl(mock, database)
    assert done.status == 0, done.log
    assert database.value("SELECT count(*) FROM events") == 5000
    assert database.execute(
        "SELECT \"timestamp\" = '2026-01-27T19:20:12.369Z', session->>'browser' FROM events "
        "WHERE id = '56a349b5-7243-4e0c-9fd8-f2c1eb2a5d35'"
    ) == [(True, "Edge")]
    assert database.execute(
        "SELECT \"timestamp\" = '2026-01-27T19:19:13.629Z' FROM events "
        "WHERE id = '065a1ce4-7f87-4dc0-a18a-6ee5cdbaf027'"
    ) == [(True,)]
