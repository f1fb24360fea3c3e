"""Connections: the one place where the driver is opened and its errors become ours.

Must not know what is read or written through them.
"""

import contextlib
import logging
import os
import re
import socket
import threading
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
from datasync_crawler.store.targets import EmbeddedTarget, ServerTarget, Target

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

    from datasync_crawler.local_postgres.embedded import EmbeddedServer

logger = logging.getLogger(__name__)

#: All that a call into the store can raise.
STORE_ERRORS: Final = (psycopg2.Error, CrawlError)

#: Waited for an answer when a connection is opened, in seconds.
CONNECT_TIMEOUT_S: Final = 10

#: What libpq says (in English or not, the SQLSTATE isn't given) when the server answered "no".
_REFUSED: Final = re.compile(
    r"password|authentication|pg_hba|does not exist|permission denied|not permitted to log in"
    r"|does not support SSL|certificate|invalid \S+ value|invalid dsn|invalid port",
    re.IGNORECASE,
)
#: A peer that vanished is noticed within about a minute, not two hours: by libpq here, and by the
#: server, whose backend would hold the crawl's lock and its rows' keys as long.
_KEEPALIVES: Final = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_SERVER_KEEPALIVES: Final = (
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; "
    "SET tcp_user_timeout = 60000"
)


#: For every connection: whoever may create in `public` could put an operator or a function there
#: that matches better than PostgreSQL's own, and would run as our role. pg_temp stands last, or it
#: would be searched first. Tables are named with their schema.
_OWN_NAMES_ONLY: Final = "SET search_path = pg_catalog, pg_temp"
#: For a connection that reads tables of any owner: neither views nor row security policies, which
#: run their owner's functions as our role. The second setting is there since 14.13, 15.8, 16.4.
TABLES_ONLY: Final = (
    "SET row_security = off; SELECT set_config(name, 'view, foreign-table', false) "
    "FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'"
)

#: What this process has open, for `cut_all`, and whether that was called.
_opened: "WeakSet[Connection]" = WeakSet()
_given_up = threading.Event()
#: Set once it was said that the network can read along.
_warned = threading.Event()


@dataclass(frozen=True, slots=True)
class Backend:
    """A server process that served a connection of ours; the time tells it from a later pid."""

    pid: int
    started_at: datetime

    @classmethod
    def of(cls, connection: "Connection") -> "Backend":
        """The backend behind *connection*."""
        rows = execute(
            connection,
            "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        )
        return cls(*rows[0])

    def end(self, connection: "Connection") -> None:
        """Ends it, if it still runs: its client's end of the connection is gone.

        A server that hasn't noticed that goes on holding its locks. Its transaction ends as it
        would have: rolled back, or committed if it was just being.
        """
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
        if _given_up.is_set():
            raise DatabaseLost(
                "The database doesn't answer, and the crawl was to end. What was committed is "
                "safe: run the crawl again when it answers."
            )
        params = self._params()
        try:
            if isinstance(self.target, ServerTarget):
                connection: Connection = psycopg2.connect(**params)
            else:
                from datasync_crawler.store import local  # noqa: PLC0415  # only where it is used

                connection = local.connect(params)
            _opened.add(connection)
            connection.set_client_encoding("UTF8")  # whatever the URL says
            _run_once(connection, _OWN_NAMES_ONLY)
            if isinstance(self.target, ServerTarget):
                _run_once(connection, _SERVER_KEEPALIVES)
                self._warn_of_cleartext(connection)
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
        """The same, where each statement is a transaction of its own."""
        connection = self.connect()
        connection.autocommit = True
        return connection

    def connect_to_read(self) -> "Connection":
        """The same for who only reads, whoever owns the tables: reading runs nothing of theirs.

        Raises what `connect` does.
        """
        connection = self.connect()
        try:
            _run_once(connection, TABLES_ONLY)
        except psycopg2.Error as error:
            close_quietly(connection)
            raise DatabaseUnreachable(self._sentence(describe(error))) from None
        return connection

    def release(self) -> None:
        """Lets go of the embedded server; the last one out stops it."""
        with self._mutex:
            if self._embedded is not None:
                self._embedded.release()
                self._embedded = None

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
        """Nobody else would start the embedded server again: joins it, or starts it if it died."""
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
            "The connection to the database (%s) isn't encrypted: whoever is on the network in "
            "between can read and change events. Set sslmode=verify-full in DATABASE_URL, or "
            "PGSSLMODE=verify-full in the environment.",
            self.target.describe(),
        )

    def _sentence(self, cause: str) -> str:
        return (
            f"The database can't be used ({self.target.describe()}): {cause}. "
            "Check DATABASE_URL or DB_HOST, DB_PORT, DB_NAME, DB_USER and DB_PASSWORD, and that "
            "the server runs."
        )


def _run_embedded(target: EmbeddedTarget) -> "EmbeddedServer":
    from datasync_crawler.local_postgres.errors import EmbeddedError  # noqa: PLC0415
    from datasync_crawler.store import local  # noqa: PLC0415  # only where it is used

    try:
        return local.run(target)
    except EmbeddedError as error:
        raise DatabaseUnreachable(str(error)) from None


def _run_once(connection: "Connection", statement: str) -> None:
    connection.autocommit = True
    execute(connection, statement)
    connection.autocommit = False


def execute(connection: "Connection", statement: str, params: Any = None) -> list[tuple[Any, ...]]:
    """Runs a statement that isn't in ``store/sql``; returns its rows. Raises psycopg2.Error."""
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall() if cursor.description else []


def _leaves_machine(connection: "Connection") -> bool:
    with (
        contextlib.suppress(OSError),  # lost again already: the next one is asked
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
    """Ends the call that waits for an answer on *connection*; from any thread.

    A server that is frozen keeps its connections and never answers: libpq waits for ever.
    """
    if connection is not None:
        with (
            contextlib.suppress(OSError, psycopg2.Error),
            socket.socket(fileno=os.dup(connection.fileno())) as peer,
        ):
            peer.shutdown(socket.SHUT_RDWR)


def cut_all() -> None:
    """Ends every such call of this process, for good: no connection is opened after it."""
    _given_up.set()
    for connection in list(_opened):
        cut(connection)


def is_connection_lost(error: psycopg2.Error) -> bool:
    """Whether *error* says that the connection (not the statement) has failed.

    No SQLSTATE: libpq noticed it. Class 08, 57P01–57P05 (shutdown, crash, can't connect now),
    25P03, 25P04 (idle in, or too long a transaction): the server said it. 25006: a standby took
    over; 53300: too many connections for now.
    """
    code = error.pgcode
    if code is None:
        return isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
    return code.startswith((errorcodes.CLASS_CONNECTION_EXCEPTION, "57P")) or code in {
        "25006",
        "25P03",
        "25P04",
        "53300",
    }


def describe(error: psycopg2.Error) -> str:
    """The server's message in one line, for the log."""
    primary = error.diag.message_primary if error.diag else None
    return primary or next(iter(str(error).strip().splitlines()), type(error).__name__)


def one_line(error: Exception) -> str:
    """Any of STORE_ERRORS in one line, for the log."""
    return describe(error) if isinstance(error, psycopg2.Error) else str(error)


def close_quietly(connection: "Connection | None") -> None:
    """Closes what may already be broken; nothing is lost by it, all work is committed or void."""
    if connection is not None:
        with contextlib.suppress(psycopg2.Error):
            connection.close()
