"""Connections through a pooler that may serve each transaction by another backend.

Behind pgbouncer with pool_mode=transaction a setting of the session would stay on a backend that
serves others next, and be missing in our next transaction. So the settings are sent with the first
statement of each transaction, by SET LOCAL, and end with it. Must not open connections.
"""

from typing import TYPE_CHECKING, Any, Final

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, connection, cursor
from psycopg2.sql import Composable

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A backend that waits longer for the next statement of a transaction is ended: it holds locks and
#: the keys of uncommitted rows, for which other processes wait. A pooler may not notice that its
#: client is gone, and TCP goes on answering for a process that is stopped. As long as `connection`
#: waits for a peer.
WRITING: Final = ("idle_in_transaction_session_timeout = 20000",)
#: A reader holds no locks that matter, and may keep its snapshot while it writes a file.
READING: Final = ("transaction_read_only = on", "idle_in_transaction_session_timeout = 0")


class PoolableConnection(connection):
    """A connection to a server, or to a pooler before it.

    `at_begin`: what each transaction begins with; empty on a direct connection, where settings are
    the session's.
    """

    at_begin: str = ""


class PooledCursor(cursor):
    """Sends `at_begin` of its PoolableConnection before a transaction's first statement.

    Both go to the server as one query: where a statement is a transaction (autocommit), PostgreSQL
    runs all statements of a query in one.
    """

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002  # psycopg2's name
        """Runs *query*; text, bytes or a Composable."""
        if self.name is not None:  # psycopg2 puts DECLARE … CURSOR before the query
            self._begin()
        elif _is_idle(self.connection):
            if isinstance(query, Composable):
                query = query.as_string(self)
            at_begin = _at_begin(self.connection)
            query = at_begin.encode() + query if isinstance(query, bytes) else at_begin + query
        super().execute(query, vars)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        """Runs a COPY. Raises psycopg2.ProgrammingError in autocommit mode."""
        self._begin()
        super().copy_expert(sql, file, size)

    def _begin(self) -> None:
        if _is_idle(self.connection):
            if self.connection.autocommit:
                raise psycopg2.ProgrammingError("Through a pooler this needs a transaction.")
            with self.connection.cursor() as first:
                first.execute("")


def share(one: connection) -> None:
    """Makes *one*, a PoolableConnection, send its settings with each transaction."""
    one.cursor_factory = PooledCursor


def is_pooled(one: connection) -> bool:
    """Whether *one* was found to go through a pooler."""
    return one.cursor_factory is PooledCursor


def set_locally(one: connection, settings: "Sequence[str]") -> None:
    """Adds *settings*, each as `name = value`, to those that transactions of *one* begin with."""
    assert isinstance(one, PoolableConnection)  # Connector
    one.at_begin += "".join(f"SET LOCAL {setting}; " for setting in settings)


def _at_begin(one: connection) -> str:
    return one.at_begin if isinstance(one, PoolableConnection) else ""


def _is_idle(one: connection) -> bool:
    return one.info.transaction_status == TRANSACTION_STATUS_IDLE
