"""What the driver's errors mean."""

import psycopg2
import pytest

from datasync_crawler.errors import DatabaseLost, DatabaseRefused
from datasync_crawler.store.connection import describe, is_connection_lost
from datasync_crawler.store.statements import translate


class Failed(psycopg2.OperationalError):
    """An error with an SQLSTATE, which psycopg2 lets nobody set."""

    pgcode = None

    def __init__(self, code):
        super().__init__(f"  it says {code}\nand more")
        self.pgcode = code


@pytest.mark.parametrize("code", [None, "08006", "57P01", "57P03", "25P03", "25006", "53300"])
def test_lost_connections_are_told_from_failed_statements(code):
    """What ends a connection, or keeps it from being made for now, is worth waiting for."""
    assert is_connection_lost(Failed(code))


@pytest.mark.parametrize("code", ["53100", "22P05", "42P01", "57014", "40P01"])
def test_failed_statements_are_not_lost_connections(code):
    """Disk full, bad data, a missing table, a timeout, a deadlock: the connection is there."""
    assert not is_connection_lost(Failed(code))


@pytest.mark.parametrize("code", ["53000", "53100", "53200", "53300", "53400"])
def test_a_server_without_room_is_worth_coming_back_to(code):
    """Disk, memory, connections: exit status 1, since nothing has to be set up, and the cause."""
    error = translate(Failed(code), "public")
    assert isinstance(error, DatabaseLost)
    assert f"The database is out of resources: it says {code}. " in str(error)
    assert error.exit_status == 1


def test_a_refused_statement_has_to_be_set_up_first():
    """A missing right: exit status 2."""
    error = translate(Failed("42501"), "public")
    assert isinstance(error, DatabaseRefused)
    assert error.exit_status == 2


def test_an_error_of_libpqs_own_is_a_lost_connection():
    """psycopg2 gives it no class of its own; what it finds wrong itself has one."""
    assert is_connection_lost(psycopg2.DatabaseError("server closed the connection unexpectedly"))
    assert not is_connection_lost(psycopg2.ProgrammingError("no results to fetch"))
    assert not is_connection_lost(psycopg2.DataError("a NUL"))


def test_describe_gives_one_line():
    """Without a primary message, the first line of the text."""
    assert describe(Failed("57P01")) == "it says 57P01"
