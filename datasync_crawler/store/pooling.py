"""Notices a pooler that shares server connections between statements or transactions.

The crawl's lock belongs to a session, and so do its temporary table and its settings: behind such
a pooler (pgbouncer with pool_mode=transaction) they would belong to anybody. Must not connect.
"""

from typing import TYPE_CHECKING

from datasync_crawler.errors import DatabaseRefused
from datasync_crawler.store.connection import execute

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812


def refuse_shared_backend(one: "Connection", other: "Connection") -> None:
    """Raises DatabaseRefused when two open connections, both idle, are served by one backend.

    A server has a backend for each connection. A pooler in transaction mode gives the next
    statement the backend that became free last, whoever asks. (pgbouncer refuses statement_mode's
    transactions by itself.)
    """
    if backend_pid(one) == backend_pid(other):
        raise DatabaseRefused(
            "Between the crawler and PostgreSQL stands a pooler that shares connections "
            "(pgbouncer with pool_mode=transaction): the lock that keeps two crawls apart can't be "
            "held there. Set DB_PORT or DATABASE_URL to the server itself, or to a pool with "
            "pool_mode=session."
        )


def backend_pid(connection: "Connection") -> int:
    """The process that serves the next statement."""
    return int(execute(connection, "SELECT pg_backend_pid()")[0][0])
