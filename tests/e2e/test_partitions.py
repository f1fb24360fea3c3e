"""`events` partitioned by hash of id: everything works as with one table."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from crawling import assert_equals_truth, command, crawl
from faults.truth import truths
from mockserver import MockServer
from partitioned_events import make_partitions

from datasync_crawler.store.connection import Connector
from datasync_crawler.store.reader import DashboardReader
from datasync_crawler.store.targets import ServerTarget

if TYPE_CHECKING:
    from pathlib import Path

    from databases import Database

EVENTS = 8000
SETTINGS = ("-s", "BULK_PAGE_SIZE=500")


def test_a_crawl_into_partitions(database: Database, tmp_path: Path) -> None:
    """COPY, a second reading where every id is a duplicate, and what reads the table."""
    make_partitions(database)
    with MockServer("--events", str(EVENTS)) as mock:
        first = crawl(mock, database, *SETTINGS)
        assert first.status == 0, first.log
        assert_equals_truth(database, truths(1, 0, EVENTS))
        again = crawl(mock, database, *SETTINGS, "-a", "redrive=all")
        assert again.status == 0, again.log
        assert database.execute(
            "SELECT sum(inserted), sum(changed) FROM checkpoint WHERE run_id = 2"
        ) == [(0, 0)]
        file = tmp_path / "events.csv"
        for args in (["status"], ["verify", "--audit", "2"], ["export", str(file)]):
            status, output = command(mock, database, *args)
            assert status == 0, output
    with file.open(newline="") as lines:
        assert len({row["id"] for row in csv.DictReader(lines)}) == EVENTS
    sizes = database.execute(
        "SELECT count(*), min(n), sum(n) FROM (SELECT tableoid, count(*) AS n FROM events "
        "GROUP BY 1) AS partitions"
    )
    assert sizes[0][0] == 16
    assert sizes[0][1] > EVENTS / 16 * 0.7
    reader = DashboardReader(Connector(ServerTarget(database.params)), "public")
    table = reader.table()
    reader.close()
    assert table is not None
    assert table.heap > EVENTS * 100
    assert sum(count for _, count in table.types) == EVENTS
    assert len(table.newest) == 5


def test_updates_in_partitions(database: Database) -> None:
    """ON_DUPLICATE=update overwrites what has changed, and counts it and what is new."""
    make_partitions(database)
    with MockServer("--events", "6100") as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
        database.execute("UPDATE events SET name = 'before' WHERE id < '4'")
        edited = database.value("SELECT count(*) FROM events WHERE name = 'before'")
        assert 0 < edited < 6100
        mock.config(events=EVENTS)
        done = crawl(mock, database, *SETTINGS, "-a", "redrive=all", "-s", "ON_DUPLICATE=update")
        assert done.status == 0, done.log
    assert_equals_truth(database, truths(1, 0, EVENTS))
    assert database.execute(
        "SELECT sum(inserted), sum(changed) FROM checkpoint WHERE run_id = 2"
    ) == [(EVENTS - 6100, edited)]
