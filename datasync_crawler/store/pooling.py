"""Detection of a pooler that shares server connections between transactions.

The crawl's lock, its temporary table and its settings belong to a server session. Behind pgbouncer
with pool_mode=transaction any client may get that session. Must not connect.
"""

from typing import TYPE_CHECKING

from datasync_crawler.errors import DatabaseRefused
from datasync_crawler.store.connection import execute

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812


def refuse_shared_backend(one: "Connection", other: "Connection") -> None:
    """Raises DatabaseRefused when two open connections, both idle, are served by one backend.

    PostgreSQL has a backend per connection. A pooler in transaction mode gives any client the
    backend that became free last. (In statement mode pgbouncer itself refuses transactions.)
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
