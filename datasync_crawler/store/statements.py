"""Named statements on a connection: opens it, runs them, and turns the driver's errors into ours.

Every part of the store runs its statements through this, but for `writer` and `schema`: they hold
several statements in one transaction and decide by SQLSTATE what comes next.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg2
from psycopg2.extras import execute_values

from datasync_crawler.errors import (
    CrawlError,
    DatabaseLost,
    DatabaseRefused,
    DatabaseUnreachable,
    TablesMissing,
)
from datasync_crawler.store import queries, schema
from datasync_crawler.store.connection import (
    Connector,
    close_quietly,
    cut,
    describe,
    is_connection_lost,
    is_out_of_resources,
)

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

logger = logging.getLogger(__name__)

Rows = list[tuple[Any, ...]]
T = TypeVar("T")


class Statements:
    """The statements of some files of ``store/sql`` on one connection, for one thread at a time.

    *connect* opens the connection at the first use. After an error the connection is closed; the
    next call opens another one, unless *reconnects* is False. Each call raises what *connect*
    raises, and what `translate` returns.
    """

    def __init__(
        self,
        files: Sequence[str],
        schema_name: str,
        connect: "Callable[[], Connection]",
        *,
        reconnects: bool = True,
    ) -> None:
        self._queries = {
            name: text for file in files for name, text in queries.load(file, schema_name).items()
        }
        self._schema = schema_name
        self._connect = connect
        self._reconnects = reconnects
        self._connection: Connection | None = None

    @classmethod
    def read_only(
        cls,
        files: Sequence[str],
        schema_name: str,
        connector: Connector,
        *,
        snapshot: bool = False,
        timeout_ms: int = 0,
    ) -> Self:
        """Statements that read tables of any owner: *snapshot*: all in one transaction on one
        connection; else each by itself, cancelled after *timeout_ms* (0: never). The first one
        raises SchemaConflict, too.
        """

        def connect() -> "Connection":
            connection = connector.connect_to_read(statement_timeout_ms=timeout_ms)
            try:
                with translating(schema_name):
                    if snapshot:
                        connection.set_session(isolation_level="REPEATABLE READ")
                    else:
                        connection.autocommit = True
                    schema.check_column_types(connection, schema_name)
            except BaseException:
                close_quietly(connection)
                raise
            return connection

        return cls(files, schema_name, connect, reconnects=not snapshot)

    def run(self, name: str, /, **params: Any) -> Rows:
        """Runs one statement; returns its rows, none for a statement that has no result."""
        with self._cursor() as cursor:
            cursor.execute(self._queries[name], params or None)  # None: see queries.load
            return cursor.fetchall() if cursor.description else []

    def run_values(self, name: str, values: Sequence[tuple[Any, ...]]) -> None:
        """Runs one statement that has a place for *values*: rows of one width, at least one."""
        with self._cursor() as cursor:
            execute_values(cursor, self._queries[name], values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Makes one transaction of what is run within, on a connection in autocommit mode."""
        self._execute("BEGIN")
        try:
            yield
        except BaseException:
            if self._connection is not None and not self._connection.closed:
                self._execute("ROLLBACK")
            raise
        self._execute("COMMIT")

    def _execute(self, statement: str) -> None:
        with self._cursor() as cursor:
            cursor.execute(statement)

    def open(self) -> "Connection":
        """The connection, opened if need be."""
        if self._connection is None or (self._reconnects and self._connection.closed):
            self._connection = self._connect()
        return self._connection

    def close(self) -> None:
        """Closes the connection."""
        close_quietly(self._connection)
        self._connection = None

    def cut(self) -> None:
        """From another thread: ends a call that waits for a server that doesn't answer."""
        cut(self._connection)

    @contextmanager
    def _cursor(self) -> "Iterator[Cursor]":
        connection = self.open()
        try:
            with translating(self._schema), connection.cursor() as cursor:
                yield cursor
        except CrawlError as error:
            # Without a transaction a missing table leaves nothing behind.
            if not (connection.autocommit and isinstance(error, TablesMissing)):
                close_quietly(connection)
            raise


class Outage:
    """The wait for a database that is away: DB_MAX_WAIT at most, and *grace_s* once the crawl is
    stopped. *level*: of the log line when it begins.
    """

    def __init__(
        self,
        max_wait_s: float,
        stop: threading.Event,
        *,
        grace_s: float = 0.0,
        level: int = logging.DEBUG,
    ) -> None:
        self._max_wait_s, self._stop, self._grace_s = max_wait_s, stop, grace_s
        self._level = level
        self._began: float | None = None

    def wait(self, cause: object) -> None:
        """Waits before the next attempt to connect. Raises DatabaseLost when it is time to end."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
            logger.log(
                self._level, "The database is away (%s): waiting up to %.0f s for it.",
                cause, self._max_wait_s,
            )  # fmt: skip
        away_s = now - self._began  # with the time that attempts to connect took
        stopped = self._stop.is_set()
        if away_s < self._max_wait_s and not (stopped and away_s >= self._grace_s):
            delay_s = min(0.05 + away_s / 4, 2.0)
            if stopped:
                time.sleep(min(delay_s, 0.1))
            if stopped or not self._stop.wait(delay_s) or self._grace_s:
                return
        raise DatabaseLost(
            f"The database has been away for {away_s:.0f} s ({cause}). What was committed is "
            "safe: run the crawl again when it is back. DB_MAX_WAIT sets how long it waits."
        ) from None


def insist(work: Callable[[], T], *, max_wait_s: float, stop: threading.Event) -> T:
    """Runs *work*, again while the database is away. Raises DatabaseLost as `Outage` does."""
    outage = Outage(max_wait_s, stop)
    while True:
        try:
            return work()
        except (DatabaseLost, DatabaseUnreachable) as error:
            outage.wait(error)


@contextmanager
def translating(schema_name: str) -> "Iterator[None]":
    """Raises our error for each of the driver's: see `translate`."""
    try:
        yield
    except psycopg2.Error as error:
        raise translate(error, schema_name) from error


def translate(error: psycopg2.Error, schema_name: str) -> DatabaseLost | DatabaseRefused:
    """Our error for the driver's *error* in a statement on *schema_name*.

    DatabaseLost when the connection failed or the server is out of disk, memory or connections,
    TablesMissing when a table isn't there, and DatabaseRefused for all else.
    """
    cause = describe(error)
    if is_out_of_resources(error):
        return DatabaseLost(
            f"The database is out of resources: {cause}. What was committed is safe: make room on "
            "the server, then run the same command again."
        )
    if is_connection_lost(error):
        return DatabaseLost(
            f"The connection to the database was lost: {cause}. What was committed is safe: run "
            "the same command again when the database answers."
        )
    if isinstance(error, psycopg2.errors.UndefinedTable | psycopg2.errors.UndefinedColumn):
        is_table = isinstance(error, psycopg2.errors.UndefinedTable)
        return (TablesMissing if is_table else DatabaseRefused)(
            f"Schema {schema_name} lacks tables of the crawler, or they have another shape: "
            f"{cause}. Check DB_SCHEMA, or run the crawl, which names what is wrong."
        )
    return DatabaseRefused(
        f"The database rejected a statement (schema {schema_name}): {cause}. What was committed is "
        "safe. Remove that cause (a crawl needs the right to read and write all tables of the "
        "schema, status and verify the right to read them), then run the same command again."
    )
