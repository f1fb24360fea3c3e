"""Connections to PostgreSQL: opened, secured, cut and closed here alone.

Must not know which statements are run on them: `statements` does.
"""

import contextlib
import logging
import os
import re
import shlex
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import psycopg2
from psycopg2 import errorcodes

from datasync_crawler.api.secrets import without
from datasync_crawler.errors import (
    CrawlError,
    DatabaseLost,
    DatabaseRefused,
    DatabaseUnreachable,
)
from datasync_crawler.store import pooling
from datasync_crawler.store.targets import EmbeddedTarget, ServerTarget, Target

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

    from datasync_crawler.local_postgres.embedded import EmbeddedServer

logger = logging.getLogger(__name__)

#: Every error that a call into the store can raise.
STORE_ERRORS: Final = (psycopg2.Error, CrawlError)

#: Longest wait for the server when a connection is opened, in seconds.
CONNECT_TIMEOUT_S: Final = 10

#: libpq's messages when the server answered "no". It gives no SQLSTATE at this point.
_REFUSED: Final = re.compile(
    r"password|authentication|pg_hba|does not exist|permission denied|not permitted to log in"
    r"|no such (?:user|database)|unsupported startup parameter"  # pgbouncer's
    r"|does not support SSL|certificate|invalid \S+ value|invalid dsn|invalid port",
    re.IGNORECASE,
)
#: Both ends notice a vanished peer within about 20 s instead of two hours. Until the server does,
#: its backend holds the keys of uncommitted rows, which another process may be about to store.
_KEEPALIVES: Final = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}
_SERVER_KEEPALIVES: Final = (
    "tcp_keepalives_idle = 10", "tcp_keepalives_interval = 5", "tcp_keepalives_count = 2",
    "tcp_user_timeout = 20000",
)  # fmt: skip


#: Settings of every connection, by session or by transaction (`pooling`). An operator or function
#: that another role makes in `public` could match better than PostgreSQL's own and would run as our
#: role. pg_temp is named, last, because it is searched first otherwise. Statements name tables with
#: their schema. What is reported as committed survives a crash of the server.
_OWN_NAMES_ONLY: Final = "search_path = pg_catalog, pg_temp"
_DURABLE: Final = "synchronous_commit = on"
#: Settings of connections that read tables of any owner: views and row security policies run their
#: owner's functions as our role. The second one exists since 14.13, 15.8 and 16.4.
_NO_POLICIES: Final = "row_security = off"
_NO_VIEWS: Final = "restrict_nonsystem_relation_kind"
_READ_ONLY: Final = (
    "default_transaction_read_only = on", "idle_in_transaction_session_timeout = 0",
)  # fmt: skip

#: Connections that this process has open, and whether `cut_all` was called.
_opened: "WeakSet[Connection]" = WeakSet()
_all_cut = threading.Event()
#: Set after the warning about an unencrypted connection: one per process.
_warned = threading.Event()


@dataclass(frozen=True, slots=True)
class Backend:
    """The server process behind a connection. The start time tells it from a later one's pid."""

    pid: int
    started_at: datetime
    shared: bool = False

    @classmethod
    def of(cls, connection: "Connection") -> "Backend":
        """The backend behind *connection*."""
        rows = execute(
            connection,
            "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        )
        pid, started_at = rows[0]
        return cls(pid, started_at, pooling.is_pooled(connection))

    def end(self, connection: "Connection") -> None:
        """Ends the process if it still runs, because it holds its locks until then.

        Its transaction is rolled back, or committed if the COMMIT had already begun. A shared one
        is left alone: it may serve another client by now, and it ends by itself when it waits in a
        transaction (`pooling.IDLE_IN_TRANSACTION_MS`).
        """
        if self.shared:
            return
        execute(
            connection,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid = %s AND backend_start = %s",
            (self.pid, self.started_at),
        )


class Connector:
    """Opens connections to one target; starts the embedded server when it is the target.

    Thread-safe.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._mutex = threading.Lock()
        self._embedded: EmbeddedServer | None = None

    def connect(self) -> "Connection":
        """A new connection, in UTF-8. Raises DatabaseRefused or DatabaseUnreachable.

        After `cut_all`: DatabaseLost.
        """
        if _all_cut.is_set():
            raise DatabaseLost(
                "The database doesn't answer, and the crawl is ending. What was committed is "
                "safe: run the crawl again when it answers."
            )
        params = self._params()
        try:
            if isinstance(self.target, ServerTarget):
                connection: Connection = psycopg2.connect(
                    **params, connection_factory=pooling.PoolableConnection
                )
            else:
                from datasync_crawler.store import local  # noqa: PLC0415  # only where it is used

                connection = local.connect(params)
            _opened.add(connection)
            connection.set_client_encoding("UTF8")  # over what the URL sets
            self._set_up(connection)
        except UnicodeError:
            raise DatabaseRefused(self._sentence("the answer can't be read")) from None
        except psycopg2.Error as error:
            if isinstance(self.target, EmbeddedTarget):
                self._restart_embedded(self.target)
            text = str(error)
            if _REFUSED.search(text) and "starting up" not in text:
                raise DatabaseRefused(self._sentence(_first_line(text, params))) from None
            raise DatabaseUnreachable(self._sentence(_first_line(text, params))) from None
        return connection

    def connect_autocommit(self) -> "Connection":
        """A new connection where each statement is a transaction. Raises what `connect` does."""
        connection = self.connect()
        connection.autocommit = True
        return connection

    def connect_to_read(self, *, statement_timeout_ms: int = 0) -> "Connection":
        """A new read-only connection for tables of any owner, which runs no code of theirs.

        Raises what `connect` does.
        """
        connection = self.connect()
        try:
            known = _run_once(
                connection, "SELECT name FROM pg_settings WHERE name = %s", (_NO_VIEWS,)
            )
            settings = [_NO_POLICIES, *(f"{_NO_VIEWS} = 'view, foreign-table'" for _ in known)]
            settings += pooling.READING if pooling.is_pooled(connection) else _READ_ONLY
            if statement_timeout_ms:
                settings.append(f"statement_timeout = {statement_timeout_ms}")
            _apply(connection, settings)
        except psycopg2.Error as error:
            close_quietly(connection)
            raise DatabaseUnreachable(self._sentence(describe(error))) from None
        return connection

    def release(self) -> None:
        """Releases the embedded server; its last user stops it."""
        with self._mutex:
            if self._embedded is not None:
                self._embedded.release()
                self._embedded = None

    def _set_up(self, connection: "Connection") -> None:
        """Applies the settings of every connection. Raises psycopg2.Error."""
        settings = [_OWN_NAMES_ONLY, _DURABLE, *pooling.WRITING]
        if isinstance(self.target, ServerTarget):
            # A pooler has sent a pid of its own. No search_path is set yet: the schema is named.
            pid = _run_once(connection, "SELECT pg_catalog.pg_backend_pid()")
            if pid != [(connection.info.backend_pid,)]:
                pooling.share(connection)
            else:
                settings += _SERVER_KEEPALIVES
            self._warn_of_cleartext(connection)
        _apply(connection, settings)

    def _params(self) -> dict[str, Any]:
        common = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "datasync-crawler",
            "client_encoding": "UTF8",
        }
        if isinstance(self.target, ServerTarget):
            return {**common, **_KEEPALIVES, **self.target.params}
        with self._mutex:
            if self._embedded is None:
                self._embedded = _run_embedded(self.target)
            return {**common, **self._embedded.conninfo(self.target.dbname)}

    def _restart_embedded(self, target: EmbeddedTarget) -> None:
        """Joins the embedded server again, or starts it if it died."""
        with self._mutex:
            before, self._embedded = self._embedded, None
            try:
                self._embedded = _run_embedded(target)
            finally:
                if before is not None:
                    before.release()

    def _warn_of_cleartext(self, connection: "Connection") -> None:
        if connection.info.ssl_in_use or _warned.is_set() or not _leaves_machine(connection):
            return
        _warned.set()
        logger.warning(
            "The connection to the database (%s) isn't encrypted: others on the network can "
            "read and change events. Set sslmode=verify-full in DATABASE_URL, or "
            "PGSSLMODE=verify-full in the environment.",
            self.target.describe(),
        )

    def _sentence(self, cause: str) -> str:
        return (
            f"The database can't be used ({self.target.describe()}): {cause}. {self._made(cause)}"
            "Check DATABASE_URL or DB_HOST, DB_PORT, DB_NAME, DB_USER and DB_PASSWORD, and that "
            "the server runs."
        )

    def _made(self, cause: str) -> str:
        """How to make a database that isn't there; "" for any other cause."""
        missing = re.search(r'database "(.+)" does not exist', cause)
        if missing is None or not isinstance(self.target, ServerTarget):
            return ""
        words = ["createdb"]
        for option, name in (("-h", "host"), ("-p", "port"), ("-U", "user")):
            if value := self.target.params.get(name):
                words += [option, value]
        return f"Make it with {shlex.join([*words, missing[1]])}, if its name is right. "


def _run_embedded(target: EmbeddedTarget) -> "EmbeddedServer":
    from datasync_crawler.local_postgres.errors import EmbeddedError  # noqa: PLC0415
    from datasync_crawler.store import local  # noqa: PLC0415  # only where it is used

    try:
        return local.run(target)
    except EmbeddedError as error:
        raise DatabaseUnreachable(str(error)) from None


def _apply(connection: "Connection", settings: Sequence[str]) -> None:
    """Sets *settings*, each as `name = value`, for all transactions of *connection*."""
    if pooling.is_pooled(connection):
        pooling.set_locally(connection, settings)
    else:
        _run_once(connection, "; ".join(f"SET {setting}" for setting in settings))


def _run_once(
    connection: "Connection", statement: str, params: Any = None
) -> list[tuple[Any, ...]]:
    connection.autocommit = True
    rows = execute(connection, statement, params)
    connection.autocommit = False
    return rows


def execute(connection: "Connection", statement: str, params: Any = None) -> list[tuple[Any, ...]]:
    """Runs a statement that isn't in ``store/sql``; returns its rows. Raises psycopg2.Error."""
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall() if cursor.description else []


def _leaves_machine(connection: "Connection") -> bool:
    with (
        contextlib.suppress(OSError),  # lost already: the next connection is checked
        socket.socket(fileno=os.dup(connection.fileno())) as ours,
    ):
        if ours.family != socket.AF_UNIX:
            return is_remote(ours.getsockname()[0], ours.getpeername()[0])
    return False


def is_remote(own: str, peer: str) -> bool:
    """Whether a connection between these two addresses leaves this machine."""
    address = ip_address(peer.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return own != peer and not address.is_loopback


def _first_line(text: str, params: dict[str, Any]) -> str:
    line = next(iter(text.strip().splitlines()), "no reason given")
    line = re.sub(r"^connection to server .*? failed: (FATAL: +)?", "", line)
    password = params.get("password")
    if password:
        line = without(str(password), line, "***")
    return line.rstrip(".")


def cut(connection: "Connection | None") -> None:
    """Ends the call that waits on *connection*, from any thread.

    libpq waits for ever for a frozen server, which keeps its connections open.
    """
    if connection is not None:
        with (
            contextlib.suppress(OSError, psycopg2.Error),
            socket.socket(fileno=os.dup(connection.fileno())) as peer,
        ):
            peer.shutdown(socket.SHUT_RDWR)


def cut_all() -> None:
    """Cuts every connection of this process. No connection can be opened afterwards."""
    _all_cut.set()
    for connection in list(_opened):
        cut(connection)


def is_connection_lost(error: psycopg2.Error) -> bool:
    """Whether *error* means that the connection (not the statement) has failed.

    Without a SQLSTATE libpq noticed it; of a connection that was reset behind a notice, psycopg2
    raises DatabaseError itself and calls the connection open. With one the server sent it: class
    08, 57P01–57P05 (shutdown, crash, starting up), 25P03 and 25P04 (idle or overlong transaction),
    25006 (a standby took over) and 53300 (too many connections).
    """
    code = error.pgcode
    if code is None:
        lost = (psycopg2.OperationalError, psycopg2.InterfaceError)
        return isinstance(error, lost) or type(error) is psycopg2.DatabaseError
    return code.startswith((errorcodes.CLASS_CONNECTION_EXCEPTION, "57P")) or code in {
        "25006",
        "25P03",
        "25P04",
        "53300",
    }


def is_out_of_resources(error: psycopg2.Error) -> bool:
    """Whether the server lacks something: class 53, which is disk, memory or connections."""
    return (error.pgcode or "").startswith(errorcodes.CLASS_INSUFFICIENT_RESOURCES)


def describe(error: psycopg2.Error) -> str:
    """The server's message in one line, for the log."""
    primary = error.diag.message_primary if error.diag else None
    return primary or next(iter(str(error).strip().splitlines()), type(error).__name__)


def one_line(error: Exception) -> str:
    """Any of STORE_ERRORS in one line, for the log."""
    return describe(error) if isinstance(error, psycopg2.Error) else str(error)


def close_quietly(connection: "Connection | None") -> None:
    """Closes a connection, even a broken one: its work is already committed or lost."""
    if connection is not None:
        with contextlib.suppress(psycopg2.Error):
            connection.close()
