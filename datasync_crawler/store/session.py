"""A run's database session: schema, lock, source and the row in ``crawl_runs``.

Owns the connection that holds the lock. Must not read or write events.
"""

import logging
import os
import platform
import threading
import time
from typing import TYPE_CHECKING, Final

import psycopg2

from datasync_crawler.errors import CrawlLocked, DatabaseRefused, SchemaConflict
from datasync_crawler.store import schema
from datasync_crawler.store.connection import (
    STORE_ERRORS,
    TABLES_ONLY,
    Backend,
    Connector,
    close_quietly,
    execute,
)
from datasync_crawler.store.pooling import backend_pid, refuse_shared_backend
from datasync_crawler.store.statements import Statements, translate

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

logger = logging.getLogger(__name__)

#: Longest wait for the lock, in seconds: the server notices that a client was killed with SIGKILL
#: only when its statement is done.
LOCK_WAIT_S: Final = 5.0


class Session:
    """Opened once per run. Thread-safe: writers on several threads call `ensure_locked`."""

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

    def open(self, *, api_base_url: str, pagination: str) -> int:
        """Takes the lock, makes missing tables, records source and run; returns the run's id.

        Raises any CrawlError of the store.
        """
        connection = self.connector.connect_autocommit()
        statements = Statements(("runs",), self.schema, lambda: connection, reconnects=False)
        try:
            self._check_encoding(connection)
            self._check_writable(connection)
            self._check_pooling(connection)
            self._lock(connection)
            self._backend = Backend.of(connection)
            connection.autocommit = False
            schema.migrate(connection, self.schema)
            connection.autocommit = True
            self._name_source(statements, api_base_url, pagination)
            rows = statements.run("start_run", host=platform.node(), pid=os.getpid())
        except psycopg2.Error as error:
            close_quietly(connection)
            raise translate(error, self.schema) from error
        except BaseException:
            close_quietly(connection)
            raise
        self._connection = connection
        self.run_id = int(rows[0][0])
        return self.run_id

    def ensure_locked(self) -> None:
        """Takes the lock again if the connection that held it is lost.

        Called by a writer that has lost its connection. Raises CrawlLocked when another process
        has taken it, what `Connector.connect` raises, and psycopg2.Error.
        """
        with self._mutex:
            if self._connection is not None and self._alive(self._connection):
                return
            close_quietly(self._connection)
            self._connection = None
            connection = self.connector.connect_autocommit()
            try:
                if self._backend is not None:
                    self._backend.end(connection)  # its session may still hold the lock
                self._lock(connection)
                self._backend = Backend.of(connection)
            except BaseException:
                close_quietly(connection)
                raise
            self._connection = connection

    def close(self) -> None:
        """Releases the lock."""
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

    def _check_writable(self, connection: "Connection") -> None:
        if execute(connection, "SHOW transaction_read_only") == [("on",)]:
            raise DatabaseRefused(
                "This database is read-only: a standby, or default_transaction_read_only is on. "
                "Set DB_HOST or DATABASE_URL to a server that can be written to."
            )

    def _check_pooling(self, connection: "Connection") -> None:
        if connection.info.backend_pid == backend_pid(connection):
            return  # the pid sent at the start is still right: no pooler
        other = self.connector.connect_autocommit()
        try:
            refuse_shared_backend(connection, other)
        finally:
            close_quietly(other)

    def _alive(self, connection: "Connection") -> bool:
        try:
            execute(connection, "SELECT 1")
        except psycopg2.Error:
            return False
        return True

    def _lock(self, connection: "Connection") -> None:
        key = schema.advisory_key(self.schema, "crawl")
        deadline = time.monotonic() + self._lock_wait_s
        while execute(connection, "SELECT pg_try_advisory_lock(%s)", (key,)) != [(True,)]:
            if time.monotonic() >= deadline:
                raise CrawlLocked(
                    f"Another crawl is running into schema {self.schema} of this database"
                    f"{self._holder(connection)}. Wait for it to end, or give this one a "
                    "schema of its own with DB_SCHEMA."
                )
            time.sleep(0.1)

    def _holder(self, connection: "Connection") -> str:
        """The run that holds the lock, or "" when its row can't be read.

        The table may not have been made yet, and its owner hasn't been checked yet.
        """
        statements = Statements(("runs",), self.schema, lambda: connection, reconnects=False)
        try:
            execute(connection, TABLES_ONLY)
            schema.refuse_strange_columns(connection, self.schema)
            rows = statements.run("running")
        except STORE_ERRORS:
            return ""
        return "".join(
            f" (run {run_id}: process {pid} on {host}, since {started_at})"
            for run_id, host, pid, started_at in rows
        )

    def _name_source(self, statements: Statements, api_base_url: str, pagination: str) -> None:
        statements.run("name_source", api_base_url=api_base_url, pagination=pagination)
        source = statements.run("read_source")[0][0]
        if source != api_base_url:
            raise SchemaConflict(
                f"Schema {self.schema} holds the events of {source}, not of {api_base_url}. "
                "Set DB_SCHEMA to a new schema for this API, or API_BASE_URL back to that one; if "
                f"that API has moved here, run scrapy source --move-to {api_base_url}"
            )
