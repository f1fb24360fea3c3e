"""Connections to the embedded server: starts it and makes the database.

Must not know which statements are run on them.
"""

import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg2
from psycopg2 import errors, sql

from datasync_crawler.local_postgres.embedded import EmbeddedServer, ensure_running
from datasync_crawler.local_postgres.errors import EmbeddedError
from datasync_crawler.store.targets import EmbeddedTarget

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg2.extensions import connection as Connection  # noqa: N812

#: Longest wait for a free connection slot, in seconds: the server closes connections that don't
#: authenticate after 5 s.
LOGIN_PATIENCE_S: Final = 15.0


def run(target: EmbeddedTarget) -> EmbeddedServer:
    """The running server, with the target's database in it. Raises EmbeddedError."""
    server = ensure_running(Path(target.data_dir), port=target.port)
    try:
        ensure_database(server, target.dbname)
    except BaseException:
        server.release()
        raise
    return server


def ensure_database(server: EmbeddedServer, name: str) -> None:
    """Makes the database if it is missing. Raises EmbeddedError."""
    try:
        with closing(connect(server.conninfo("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
                if cursor.fetchone() is None:
                    # UniqueViolation: another process made it in the same instant.
                    with suppress(errors.DuplicateDatabase, errors.UniqueViolation):
                        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg2.Error as error:
        reason = str(error).strip().replace("\n", " ")
        raise EmbeddedError(
            f"The embedded PostgreSQL can't make the database {name!r}: {reason}"
        ) from error


def connect(params: "Mapping[str, Any]") -> "Connection":
    """A new connection; tries again for LOGIN_PATIENCE_S while all slots are taken."""
    deadline = time.monotonic() + LOGIN_PATIENCE_S
    while True:
        try:
            connection: Connection = psycopg2.connect(**params)
        except psycopg2.OperationalError as error:  # has no SQLSTATE (53300) at this point
            if "too many clients" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return connection
