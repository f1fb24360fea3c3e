"""Crawls through pgbouncer: no state of a session is relied on, and none is left behind."""

from __future__ import annotations

import io
import signal
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import pytest
from clusters import Cluster
from crawling import assert_equals_truth, command, crawl, start_crawl, until
from faults.truth import truths
from mockserver import MockServer
from poolers import UNTOUCHED, PgBouncer
from rooms import Room, page

from datasync_crawler.store.connection import Connector, cut
from datasync_crawler.store.reader import DashboardReader
from datasync_crawler.store.targets import ServerTarget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


EVENTS = 20_000
SETTINGS = ("-s", "BULK_PAGE_SIZE=200", "-s", "WORKERS=4", "-s", "DB_WRITERS=3")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.fixture
def pooler(cluster: Cluster) -> Iterator[PgBouncer]:
    """A pool of two backends, fewer than a crawl has connections."""
    with PgBouncer(cluster, "transaction", pool_size=2) as running:
        yield running


def test_a_crawl_through_a_pooler_that_shares_backends(
    cluster: Cluster, pooler: PgBouncer, tmp_path: Path
) -> None:
    """Killed, resumed, with status, verify and export; the backends are as nobody had used them."""
    behind = pooler.database
    with MockServer("--events", str(EVENTS), "--latency-ms", "20") as mock:
        process = start_crawl(mock, behind, *SETTINGS)
        until(lambda: mock.stats()["pages"] >= 40, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        done = crawl(mock, behind, *SETTINGS)
        assert done.status == 0, done.log
        again = crawl(mock, behind, *SETTINGS, "-s", "ON_DUPLICATE=update")
        assert again.status == 0, again.log
        file = str(tmp_path / "events.csv")
        for args in (["status"], ["verify", "--audit", "2"], ["export", file]):
            status, output = command(mock, behind, *args)
            assert status == 0, output
    assert_equals_truth(cluster.database, truths(1, 0, EVENTS))
    assert pooler.states(2) == [UNTOUCHED, UNTOUCHED]


def test_what_reads_through_a_pooler_reads_only(pooler: PgBouncer) -> None:
    """The page's reader: its rows, its time limit, no writing; and nothing stays behind."""
    room = Room(pooler.database)
    room.write(page(["a", "b"]))
    connector = Connector(ServerTarget(pooler.database.params))
    reader = DashboardReader(connector, "public")
    view = reader.ledger(10)
    assert view is not None
    assert view.stored == 2
    connection = connector.connect_to_read(statement_timeout_ms=50)
    connection.autocommit = True
    with closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('search_path'), current_setting('row_security')")
        assert cursor.fetchall() == [("pg_catalog, pg_temp", "off")]
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
            cursor.execute("DELETE FROM public.events")
        with pytest.raises(psycopg2.errors.QueryCanceled):
            cursor.execute("SELECT pg_sleep(60)")
    reader.close()
    room.close()
    assert pooler.states(2) == [UNTOUCHED, UNTOUCHED]


def test_every_transaction_through_a_pooler_has_our_settings(
    cluster: Cluster, pooler: PgBouncer
) -> None:
    """Text, bytes, named cursors and COPY; first in a transaction, or each one of its own."""
    name = cluster.database.params["dbname"]
    cluster.database.execute(f"ALTER DATABASE {name} SET search_path = public")
    cluster.database.execute("CREATE FUNCTION public.now() RETURNS text RETURN 'evil'")
    connection = Connector(ServerTarget(pooler.database.params)).connect()
    with closing(connection):
        for query in ("SHOW search_path", b"SHOW search_path"):
            for autocommit in (True, False):
                connection.autocommit = autocommit
                with connection.cursor() as cursor:
                    for _ in range(2):
                        cursor.execute(query)
                        assert cursor.fetchall() == [("pg_catalog, pg_temp",)]
                connection.rollback()
        with connection, connection.cursor("named") as cursor:
            cursor.execute("SELECT current_setting('search_path')")
            assert cursor.fetchall() == [("pg_catalog, pg_temp",)]
        with connection, connection.cursor() as cursor:
            copied = io.BytesIO()
            cursor.copy_expert("COPY (SELECT current_setting('search_path')) TO STDOUT", copied)
            assert copied.getvalue() == b"pg_catalog, pg_temp\n"
            cursor.execute("SHOW synchronous_commit")
            assert cursor.fetchall() == [("on",)]
        connection.autocommit = True
        with connection.cursor() as cursor, pytest.raises(psycopg2.ProgrammingError):
            cursor.copy_expert("COPY (SELECT 1) TO STDOUT", io.BytesIO())


def test_a_lost_connection_ends_no_backend_of_the_pool(pooler: PgBouncer) -> None:
    """The backend that served a lost connection serves somebody else, who isn't disturbed."""
    room = Room(pooler.database)
    writer = room.writer()
    writer.write([page(["a", "b"])])
    writer.write([page(["b", "c"], first=2)])  # merged: through the temporary table
    assert writer._connection is not None
    with writer._connection as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (before,) = cursor.fetchone()
    cut(writer._connection)
    with closing(pooler.database.connect()) as other:
        other.autocommit = False
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")  # the backend that was used last
            assert cursor.fetchone() == (before,)
        writer.write([page(["d"], first=4)])
        other.commit()
    assert room.ids() == ["a", "b", "c", "d"]
    assert writer.stats.reconnects == 1
    room.close()


def test_a_pooler_by_session_works(cluster: Cluster) -> None:
    """pool_mode=session keeps one server connection for each of ours: complete."""
    with PgBouncer(cluster, "session") as pooler, MockServer("--events", "1000") as mock:
        done = crawl(mock, pooler.database, *SETTINGS)
        assert done.status == 0, done.log
        assert_equals_truth(pooler.database, truths(1, 0, 1000))
