"""The session: one source per schema, and a row per run."""

import pytest
from rooms import API

from datasync_crawler.errors import (
    DatabaseRefused,
    DatabaseUnreachable,
    SchemaConflict,
)
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.session import Session
from datasync_crawler.store.targets import ServerTarget


def session(room, **params):
    target = ServerTarget({**room.database.params, **params})
    return Session(Connector(target), "public")


def test_another_api_is_refused(room):
    """A schema that holds another API's events is refused; its own API goes on."""
    room.query(
        "INSERT INTO checkpoint (pass, first_offset, requested, received, inserted, duplicates, "
        "changed, rejected, run_id) VALUES (1, 0, 1, 1, 1, 0, 0, 0, 1)"
    )
    with pytest.raises(SchemaConflict, match="API_BASE_URL"):
        session(room).open(api_base_url="http://elsewhere/api/v1", pagination="offset")
    session(room).open(api_base_url=API, pagination="offset")
    assert room.query("SELECT api_base_url FROM source") == [(API,)]


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
    """What a machine that lost its power was writing is free after 20 s, not two hours."""
    params = {**database.params, "host": "127.0.0.1"}
    connection = Connector(ServerTarget(params)).connect()
    with connection.cursor() as cursor:
        cursor.execute("SHOW tcp_keepalives_idle")
        assert cursor.fetchone() == ("10",)
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("20s",)
        cursor.execute("SHOW client_encoding")
        assert cursor.fetchone() == ("UTF8",)
    connection.close()
    reading = Connector(ServerTarget(params)).connect_to_read()
    with reading.cursor() as cursor:  # it writes a file while it holds its snapshot
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("0",)
    reading.close()


def test_the_url_cannot_change_the_encoding(database):
    """COPY's bytes are UTF-8 whatever client_encoding a DATABASE_URL asks for."""
    connection = Connector(ServerTarget({**database.params, "client_encoding": "LATIN1"})).connect()
    assert connection.encoding == "UTF8"
    connection.close()
