"""The ledger's SQL, held against core.ranges on any rows."""

import threading

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extras import execute_values
from rooms import Room, page

from datasync_crawler.core import ranges
from datasync_crawler.core.ranges import Range
from datasync_crawler.errors import DatabaseLost
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.ledger import Ledger, LedgerState
from datasync_crawler.store.targets import ServerTarget

ROWS = st.dictionaries(
    st.tuples(st.integers(1, 4), st.integers(0, 60)), st.integers(1, 25), max_size=15
)


@pytest.fixture
def room(database):
    room = Room(database)
    yield room
    room.close()


@given(rows=ROWS, total=st.integers(0, 100), after=st.integers(0, 100), most=st.integers(1, 4))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_holes_and_coverage_are_those_of_core(room, rows, total, after, most):
    """Overlapping, nested, of many passes: SQL and core.ranges find the same, piece by piece."""
    room.truncate()
    if rows:
        with room.database.connect() as connection, connection.cursor() as cursor:
            execute_values(
                cursor,
                "INSERT INTO checkpoint (pass, first_offset, requested, received, inserted, "
                "duplicates, changed, rejected, run_id) VALUES %s",
                [(*key, 1, count, count, 0, 0, 0, 1) for key, count in rows.items()],
            )
        connection.close()
    committed = [Range(first, count) for (_, first), count in rows.items()]
    wanted = ranges.holes(committed, total, after=after)
    assert room.ledger.holes(total, after=after) == wanted
    read, reached = [], after
    while piece := room.ledger.holes(total, after=reached, most=most):
        assert len(piece) <= most
        read += piece
        reached = piece[-1].stop
    assert read == wanted
    holes = ranges.holes(committed, total)
    assert room.ledger.coverage(total) == total - sum(hole.count for hole in holes)
    assert room.ledger.state().reach == max((piece.stop for piece in committed), default=0)


def test_state_and_sums_of_an_empty_ledger(room):
    """Before the first page there is nothing, and everything is a hole."""
    assert room.ledger.state() == LedgerState(0, 0, None, None, "offset")
    assert room.ledger.holes(10) == [Range(0, 10)]
    assert (room.ledger.coverage(10), room.ledger.sums().ranges) == (0, 0)


def test_state_and_sums_add_up(room):
    """What pages counted comes back in sum; rejections that were mended don't stand any more."""
    room.write(page(["a", "b", None], total=9), page(["a", None], first=3))
    room.write(page(["a", "b", "c"], pass_no=2, total=8))
    state, sums = room.ledger.state(), room.ledger.sums()
    assert (state.last_pass, state.reach, state.total) == (2, 5, 8)
    assert (sums.received, sums.inserted, sums.duplicates, sums.rejected) == (8, 3, 3, 2)
    assert (sums.ranges, sums.rejected_now) == (3, 1)


def test_a_lost_connection_is_opened_again(room):
    """The planner reads on when the server has ended its connection."""
    room.ledger.state()
    room.query("SELECT pg_terminate_backend(%s)", (room.ledger._connection.info.backend_pid,))
    assert room.ledger.state().last_pass == 0


def test_a_database_that_stays_away_is_given_up(database):
    """No answer for DB_MAX_WAIT: DatabaseLost."""
    nowhere = Connector(ServerTarget({**database.params, "host": "127.0.0.1", "port": "1"}))
    ledger = Ledger(nowhere, "public", max_wait_s=0.2, stop=threading.Event())
    with pytest.raises(DatabaseLost, match="DB_MAX_WAIT"):
        ledger.state()


def test_a_stop_ends_the_wait(database):
    """Told to stop, the planner doesn't wait for a lost database."""
    stop = threading.Event()
    stop.set()
    nowhere = Connector(ServerTarget({**database.params, "host": "127.0.0.1", "port": "1"}))
    with pytest.raises(DatabaseLost):
        Ledger(nowhere, "public", max_wait_s=3600, stop=stop).state()


def test_other_errors_are_told(room):
    """A missing table isn't waited for."""
    room.query("DROP TABLE checkpoint")
    with pytest.raises(psycopg2.errors.UndefinedTable):
        room.ledger.state()
