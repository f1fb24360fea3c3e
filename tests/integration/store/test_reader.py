"""What the dashboard reads, held against plain Python over any rows; what the heartbeat writes."""

from __future__ import annotations

import math

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extras import execute_values

from datasync_crawler.crawl import ranges
from datasync_crawler.crawl.values import Range
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.reader import DashboardReader
from datasync_crawler.store.runs import RunLog
from datasync_crawler.store.targets import ServerTarget

ROWS = st.dictionaries(
    st.tuples(st.integers(1, 4), st.integers(0, 60)), st.integers(1, 25), max_size=15
)
ANY_ROWS = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def reader(room):
    reader = DashboardReader(Connector(ServerTarget(room.database.params)), "public")
    yield reader
    reader.close()


@given(rows=ROWS, total=st.integers(1, 100), cells=st.integers(1, 20))
@ANY_ROWS
def test_the_strip_is_the_newest_pass(room, reader, rows, total, cells):
    """Cells, coverage and gaps are what the committed offsets themselves say, however they lie."""
    room.truncate()
    with room.database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE source SET total = %s", (total,))
        if rows:
            execute_values(
                cursor,
                "INSERT INTO checkpoint (pass, first_offset, requested, received, inserted, "
                "duplicates, changed, rejected, run_id) VALUES %s",
                [(*key, 1, count, count - 1, 1, 0, 0, 1) for key, count in rows.items()],
            )
    connection.close()
    newest = max((number for number, _ in rows), default=0)
    committed = [Range(first, count) for (number, first), count in rows.items() if number == newest]
    offsets = {n for piece in committed for n in range(piece.first, piece.stop) if n < total}
    view = reader.ledger(cells)
    assert view.covered == len(offsets)
    assert view.reach == max(offsets, default=-1) + 1
    assert (total - 1) // view.width < cells
    for cell in range(total // view.width + 1):
        inside = sum(n // view.width == cell for n in offsets)
        assert view.cells.get(cell, 0) == inside
    gaps = ranges.gaps([*committed, Range(view.reach, total)], total)
    assert view.gaps == len(gaps)
    assert view.first_gaps == [(gap.first, gap.stop) for gap in gaps[:20]]
    assert view.stored == sum(count - 1 for count in rows.values())
    assert (view.duplicates, view.ranges) == (len(rows), len(rows))
    assert set(view.runs.values()) <= {1}


def test_the_table_is_read_by_day_and_type(room, reader):
    """Counts, the newest five and sizes; of a large table a sample, which is stated."""
    room.database.execute(
        'INSERT INTO events (id, type, "timestamp") '
        "SELECT n, CASE WHEN n % 4 > 0 THEN 'click' END, "
        "'2026-01-01T12:00Z'::timestamptz + n * '1 hour'::interval FROM generate_series(1, 100) n"
    )
    view = reader.table()
    assert view.types == [("click", 75), ("none", 25)]
    assert (view.days[0], len(view.days)) == (("2026-01-01", 11), 5)
    assert [event[1] for event in view.newest] == ["100", "99", "98", "97", "96"]
    assert view.percent == 100.0
    assert min(view.heap, view.indexes) > 0


def test_a_run_is_beaten_thinned_and_finished(room, reader):
    """One beat is one sample; old samples are thinned, their last of each span stays."""
    run_id = room.database.value(
        "INSERT INTO crawl_runs (host, pid, started_at) "
        "VALUES ('h', 1, now() - '5 hours'::interval) RETURNING id"
    )
    room.database.execute(
        "INSERT INTO crawl_samples SELECT %s, now() - s * '1 second'::interval, "
        "jsonb_build_object('received', 18000 - s) FROM generate_series(0, 17990) AS s",
        (run_id,),
    )
    log = RunLog(Connector(ServerTarget(room.database.params)), "public", run_id)
    log.beat({"events/received": 3, "crawl/stop_sentence": "a\0b"}, {"received": 18001})
    assert reader.run(None).stats["events/received"] == 3
    assert reader.runs()[0].finished_at is None
    log.thin()
    kept = room.database.value("SELECT count(*) FROM crawl_samples")
    assert 600 + 900 + 110 <= kept <= 600 + 1020 + 130
    series = reader.series(run_id, 400)
    assert 300 <= len(series) <= 402
    assert series[-1][1]["received"] == 18001
    assert [at for at, _ in series] == sorted(at for at, _ in series)
    log.finish("shutdown", {"crawl/complete": False}, {"received": 18002})
    log.close()
    line = reader.runs()[0]
    assert (line.finish_reason, line.complete) == ("shutdown", False)
    assert line.finished_at is not None


def test_a_run_is_finished_whatever_its_stats_hold(room, reader):
    """What jsonb refuses is left out, and a connection lost since the last beat is made anew."""
    run_id = room.database.value(
        "INSERT INTO crawl_runs (host, pid, started_at) VALUES ('h', 1, now()) RETURNING id"
    )
    log = RunLog(Connector(ServerTarget(room.database.params)), "public", run_id)
    log.beat(
        {"crawl/rate": float("nan"), "crawl/said": "a\0b\ud800", "now": {"left": [math.inf]}}, {}
    )
    assert reader.run(None).stats == {
        "crawl/rate": None,
        "crawl/said": "ab?",
        "now": {"left": [None]},
    }
    room.database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND query LIKE '%WITH beaten%' "
        "AND pid <> pg_backend_pid()"
    )
    log.finish("finished", {}, {})
    log.close()
    assert reader.runs()[0].finish_reason == "finished"


def test_the_reader_can_write_nothing(room, reader):
    """Its connection is read-only, whatever would be run over it."""
    reader.runs()
    with (
        pytest.raises(psycopg2.errors.ReadOnlySqlTransaction),
        reader._statements.open().cursor() as cursor,
    ):
        cursor.execute("DELETE FROM public.crawl_runs")


def test_rejections_are_told_by_reason_with_their_first_events(room, reader):
    """Commonest first, three examples each by offset, their bytes cut."""
    room.database.execute(
        "INSERT INTO rejected_events SELECT n, n, CASE WHEN n % 5 = 0 THEN 'rare' ELSE 'often' END,"
        " convert_to(repeat('x', 2000), 'UTF8') FROM generate_series(1, 50) AS n"
    )
    found = reader.rejections(8)
    assert [(e.reason, e.events, e.position) for e in found] == [
        ("often", 40, 1), ("often", 40, 2), ("often", 40, 3),
        ("rare", 10, 5), ("rare", 10, 10), ("rare", 10, 15),
    ]  # fmt: skip
    assert {len(e.raw) for e in found} == {600}
    assert [e.reason for e in reader.rejections(1)] == ["often"] * 3


def test_the_run_that_is_shown_is_alive_or_ended_last(room, reader):
    """Of processes that share a crawl one may die: the page shows those that went on."""
    room.database.execute(
        "DELETE FROM crawl_runs; "
        "INSERT INTO crawl_runs (host, pid, started_at, heartbeat_at, finished_at) VALUES "
        "('done', 1, now() - interval '1 hour', now() - interval '1 minute', "
        "now() - interval '1 minute'), "
        "('killed', 2, now() - interval '1 hour', now() - interval '30 minutes', NULL)"
    )
    assert reader.run(None).host == "done"
    room.database.execute("UPDATE crawl_runs SET heartbeat_at = now() WHERE host = 'killed'")
    assert reader.run(None).host == "killed"
    room.database.execute(
        "UPDATE crawl_runs SET heartbeat_at = now() - interval '20 s' WHERE host = 'killed'"
    )
    assert reader.run(None).host == "killed"
