"""A run's session: schema, lock, source and the row in ``crawl_runs``.

Owns the connection that holds the lock. Must not read or write events.
"""

import logging
import os
import platform
import threading
import time
from typing import TYPE_CHECKING, Final

import psycopg2

from datasync_crawler.errors import (
    CrawlLocked,
    DatabaseRefused,
    DatabaseUnreachable,
    SchemaConflict,
)
from datasync_crawler.store import queries, schema
from datasync_crawler.store.connection import (
    TABLES_ONLY,
    Backend,
    Connector,
    close_quietly,
    describe,
    is_connection_lost,
)
from datasync_crawler.store.pooling import backend_pid, refuse_shared_backend

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

logger = logging.getLogger(__name__)

#: The server notices a client killed with SIGKILL only when its statement is done, in seconds.
LOCK_WAIT_S: Final = 5.0


class Session:
    """Opened once a run. Thread-safe: writers on several threads ask it to hold the lock."""

    def __init__(
        self, connector: Connector, schema_name: str, *, lock_wait_s: float = LOCK_WAIT_S
    ) -> None:
        self.connector = connector
        self.schema = schema_name
        self.run_id: int | None = None
        self._lock_wait_s = lock_wait_s
        self._connection: Connection | None = None
        self._backend: Backend | None = None
        self._mutex = threading.Lock()
        self._queries = queries.load("runs", schema_name)

    def open(self, *, api_base_url: str, pagination: str) -> int:
        """Migrates, takes the lock, names the source, starts the run; returns its id.

        Raises any CrawlError of the store.
        """
        connection = self.connector.connect()
        try:
            connection.autocommit = True
            self._check_encoding(connection)
            self._check_pooling(connection)
            self._lock(connection)
            self._backend = Backend.of(connection)
            connection.autocommit = False
            schema.migrate(connection, self.schema)
            connection.autocommit = True
            self._name_source(connection, api_base_url, pagination)
            with connection.cursor() as cursor:
                cursor.execute(
                    self._queries["start_run"], {"host": platform.node(), "pid": os.getpid()}
                )
                row = cursor.fetchone()
            assert row is not None
        except psycopg2.Error as error:
            close_quietly(connection)
            raise self._told(error) from error
        except BaseException:
            close_quietly(connection)
            raise
        self._connection = connection
        self.run_id = int(row[0])
        return self.run_id

    def ensure_locked(self) -> None:
        """Takes the lock again when the connection that held it has gone.

        Called by a writer that has lost its connection. Raises CrawlLocked when another process
        was quicker, what `Connector.connect` raises, and psycopg2.Error.
        """
        with self._mutex:
            if self._connection is not None and self._alive(self._connection):
                return
            close_quietly(self._connection)
            self._connection = None
            connection = self.connector.connect()
            connection.autocommit = True
            try:
                if self._backend is not None:
                    self._backend.end(connection)  # else it could be us who hold the lock
                self._lock(connection)
                self._backend = Backend.of(connection)
            except BaseException:
                close_quietly(connection)
                raise
            self._connection = connection

    def close(self) -> None:
        """Gives the lock back."""
        with self._mutex:
            close_quietly(self._connection)
            self._connection = None

    def _check_encoding(self, connection: "Connection") -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise DatabaseRefused(
                f"This database's encoding is {encoding}, which can't hold every event. Make one "
                "with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0 and set DB_NAME."
            )

    def _check_pooling(self, connection: "Connection") -> None:
        if connection.info.backend_pid == backend_pid(connection):
            return  # what the server said at the start and what it says now: nobody in between
        other = self.connector.connect()
        try:
            other.autocommit = True
            refuse_shared_backend(connection, other)
        finally:
            close_quietly(other)

    def _told(self, error: psycopg2.Error) -> DatabaseRefused | DatabaseUnreachable:
        """What went wrong while opening, as a sentence."""
        if is_connection_lost(error) and error.pgcode != "25006":
            return DatabaseUnreachable(
                f"The database went away at the start: {describe(error)}. Run the crawl again."
            )
        return DatabaseRefused(
            f"The database refuses the crawl (schema {self.schema}): {describe(error)}. Give this "
            "role the right to read and write all tables of that schema, on a server that can be "
            "written to."
        )

    def _alive(self, connection: "Connection") -> bool:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error:
            return False
        return True

    def _lock(self, connection: "Connection") -> None:
        key = schema.advisory_key(self.schema, "crawl")
        deadline = time.monotonic() + self._lock_wait_s
        with connection.cursor() as cursor:
            while True:
                cursor.execute("SELECT pg_try_advisory_lock(%s)", (key,))
                if cursor.fetchone() == (True,):
                    return
                if time.monotonic() >= deadline:
                    raise CrawlLocked(
                        f"Another crawl is running into schema {self.schema} of this database"
                        f"{self._holder(connection)}. Wait for it to end, or give this one a "
                        "schema of its own with DB_SCHEMA."
                    )
                time.sleep(0.1)

    def _holder(self, connection: "Connection") -> str:
        """Who runs, as far as the table of runs can be read: it may not have been made yet.

        Nor has anybody looked yet whose it is.
        """
        try:
            with connection.cursor() as cursor:
                cursor.execute(TABLES_ONLY)
                schema.refuse_strange_columns(connection, self.schema)
                cursor.execute(self._queries["running"])
                row = cursor.fetchone()
        except (psycopg2.Error, SchemaConflict):
            return ""
        return (
            "" if row is None else f" (run {row[0]}: process {row[2]} on {row[1]}, since {row[3]})"
        )

    def _name_source(self, connection: "Connection", api_base_url: str, pagination: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                self._queries["name_source"],
                {"api_base_url": api_base_url, "pagination": pagination},
            )
            cursor.execute(self._queries["read_source"])
            row = cursor.fetchone()
        assert row is not None
        if row[0] != api_base_url:
            raise SchemaConflict(
                f"Schema {self.schema} holds the events of {row[0]}, not of {api_base_url}. "
                "Set DB_SCHEMA to a new schema for this API, or API_BASE_URL back to that one."
            )
