"""The session: one crawl at a time, one source per schema, a lock that outlives its connection."""

import os
import platform

import pytest
from rooms import API, Room

from datasync_crawler.errors import (
    CrawlLocked,
    DatabaseRefused,
    DatabaseUnreachable,
    SchemaConflict,
)
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.session import Session
from datasync_crawler.store.targets import ServerTarget


@pytest.fixture
def room(database):
    room = Room(database)
    yield room
    room.close()


def session(room, **params):
    target = ServerTarget({**room.database.params, **params})
    return Session(Connector(target), "public", lock_wait_s=0)


def test_a_second_crawl_is_refused_and_told_who_runs(room):
    """The second session names the first one's run, host and process, and harms nothing."""
    with pytest.raises(CrawlLocked) as caught:
        session(room).open(api_base_url=API, pagination="offset")
    assert f"run {room.session.run_id}: process {os.getpid()} on {platform.node()}" in str(
        caught.value
    )
    assert room.query("SELECT count(*) FROM crawl_runs") == [(1,)]
    room.session.ensure_locked()
    room.session.close()
    second = session(room)
    assert second.open(api_base_url=API, pagination="offset") == 2
    second.close()


def test_another_schema_is_another_crawl(room):
    """The lock is a schema's: beside it another crawl may run."""
    other = Session(room.connector, "other", lock_wait_s=0)
    other.open(api_base_url=API, pagination="offset")
    other.close()


def test_another_api_is_refused(room):
    """A schema that holds another API's events is refused, and the lock is free afterwards."""
    room.session.close()
    room.query(
        "INSERT INTO checkpoint (pass, first_offset, requested, received, inserted, duplicates, "
        "changed, rejected, run_id) VALUES (1, 0, 1, 1, 1, 0, 0, 0, 1)"
    )
    with pytest.raises(SchemaConflict, match="API_BASE_URL"):
        session(room).open(api_base_url="http://elsewhere/api/v1", pagination="offset")
    again = session(room)
    again.open(api_base_url=API, pagination="offset")
    again.close()
    assert room.query("SELECT api_base_url FROM source") == [(API,)]


def test_a_lost_lock_is_taken_again(room):
    """When the server has ended the connection that held it, ensure_locked holds the lock again."""
    # Of this database: tests beside this one hold locks of their own.
    held_by = (
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    [(pid,)] = room.query(held_by)
    room.query("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    assert room.query(held_by) == []
    room.session.ensure_locked()
    [(again,)] = room.query(held_by)
    assert again != pid
    with pytest.raises(CrawlLocked):
        session(room).open(api_base_url=API, pagination="offset")


def test_a_lock_that_another_took_meanwhile_is_not_taken_back(room):
    """Whoever has lost the lock to another crawl is told, and the other one keeps it."""
    room.session.close()
    other = session(room)
    other.open(api_base_url=API, pagination="offset")
    with pytest.raises(CrawlLocked, match="run 2"):
        room.session.ensure_locked()
    other.ensure_locked()
    other.close()


def test_a_database_that_cannot_hold_every_text_is_refused(server, database):
    """An encoding other than UTF-8 is refused at the start, with what to do."""
    name = database.params["dbname"] + "_l1"
    server.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        latin = Session(Connector(ServerTarget({**database.params, "dbname": name})), "public")
        with pytest.raises(DatabaseRefused, match="LATIN1"):
            latin.open(api_base_url=API, pagination="offset")
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_that_may_only_be_read_is_refused(database):
    """A standby, or a database set to read-only, is refused with a sentence."""
    database.execute(
        f"ALTER DATABASE {database.params['dbname']} SET default_transaction_read_only = on"
    )
    reading = Session(Connector(ServerTarget(database.params)), "public")
    with pytest.raises(DatabaseRefused, match="read-only"):
        reading.open(api_base_url=API, pagination="offset")


def test_connecting_tells_no_from_no_answer(database):
    """A missing database was refused, a closed port is unreachable; neither says the password."""
    for params, wanted in (
        ({"dbname": "no_such_database"}, DatabaseRefused),
        ({"host": "127.0.0.1", "port": "1"}, DatabaseUnreachable),
        ({"sslmode": "nonsense"}, DatabaseRefused),
    ):
        target = ServerTarget({**database.params, "password": "canary", **params})
        with pytest.raises(wanted) as caught:
            Connector(target).connect()
        assert "canary" not in str(caught.value)


def test_the_server_is_told_to_notice_a_vanished_client(database):
    """The lock of a machine that lost its power is free after a minute, not two hours."""
    params = {**database.params, "host": "127.0.0.1"}
    connection = Connector(ServerTarget(params)).connect()
    with connection.cursor() as cursor:
        cursor.execute("SHOW tcp_keepalives_idle")
        assert cursor.fetchone() == ("30",)
        cursor.execute("SHOW client_encoding")
        assert cursor.fetchone() == ("UTF8",)
    connection.close()


def test_the_url_cannot_change_the_encoding(database):
    """COPY's bytes are UTF-8 whatever client_encoding a DATABASE_URL asks for."""
    connection = Connector(ServerTarget({**database.params, "client_encoding": "LATIN1"})).connect()
    assert connection.encoding == "UTF8"
    connection.close()
