"""Starts, joins and leaves the embedded PostgreSQL server that is used when none is configured.

One server per ``DATA_DIR``, on a fixed port of 127.0.0.1, shared by every process that asks for it
(crawl, psql, dashboard) and stopped when the last of them has gone, however it went. The server's
life is kept by :mod:`datasync_crawler.store.postmaster`, its place by
:mod:`datasync_crawler.store.pghome`. No Scrapy here, and nothing about tables.

Our own launcher, because the wheel's fails on a path with a space, leaves servers behind after a
killed client, and opens closed parent directories to everybody.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from datasync_crawler.store.cluster import ENVIRONMENT, USER, make_cluster
from datasync_crawler.store.pghome import EmbeddedError, Home, explain_os_error, find_home

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["DEFAULT_PORT", "SERVER_SETTINGS", "EmbeddedError", "EmbeddedServer", "ensure_running"]

HOST = "127.0.0.1"
DEFAULT_PORT = 54329

# What the server runs with, given at each start. Durability is never touched: fsync, full page
# writes and synchronous_commit are on. The rest serves a bulk load on a small machine.
SERVER_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": HOST,
        "unix_socket_directories": "",  # a socket's path is limited to 107 bytes, DATA_DIR isn't
        "max_connections": "40",
        "shared_buffers": "256MB",
        "wal_buffers": "16MB",
        "max_wal_size": "2GB",  # a checkpoint per 2 GB of WAL; also what it costs on disk
        "checkpoint_timeout": "15min",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_min_error_statement": "panic",  # no statements, and with `terse` no rows, in the log
        "log_error_verbosity": "terse",
        "log_line_prefix": "%m [%p] ",
    }
)

_POLL_S = 0.01
# Another process may be making the cluster, or the server may be stopping with a checkpoint.
_LOCK_WAIT_S = 120.0
# Replaying up to max_wal_size after a crash takes a while; the server is alive all that time.
_READY_WAIT_S = 600.0


@dataclass(slots=True)
class EmbeddedServer:
    """A running server, and this process's share in it: it lives at least until :meth:`release`.

    ``bin_dir`` holds psql. The share is a lock on ``fd``: the kernel frees it with the process.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    bin_dir: Path
    home: Path
    fd: int
    _pid: int = field(default_factory=os.getpid, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def conninfo(self, dbname: str) -> dict[str, str]:
        """Libpq's keywords for ``psycopg2.connect(**...)``. Holds the password: don't print it."""
        return {
            "host": self.host,
            "port": str(self.port),
            "user": self.user,
            "password": self.password,
            "dbname": dbname,
            "sslmode": "disable",  # never leaves the machine; saves a round trip
            "gssencmode": "disable",
        }

    def ensure_database(self, name: str) -> None:
        """Make the database if it isn't there. Raises :class:`EmbeddedError`."""
        import psycopg2  # noqa: PLC0415 - 30 ms that joining the server doesn't need
        from psycopg2 import errors, sql  # noqa: PLC0415

        try:
            params: dict[str, Any] = {**self.conninfo("postgres")}
            connection = psycopg2.connect(**params)
            try:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
                    if cursor.fetchone() is None:
                        # UniqueViolation: another process made it in the same instant.
                        with suppress(errors.DuplicateDatabase, errors.UniqueViolation):
                            cursor.execute(
                                sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
                            )
            finally:
                connection.close()
        except psycopg2.Error as error:
            reason = str(error).strip().replace("\n", " ")
            raise EmbeddedError(
                f"The embedded PostgreSQL can't make the database {name!r}: {reason}"
            ) from error

    def keep_for_exec(self) -> None:
        """Let this process's share live on in the program that it becomes (``os.exec*``)."""
        os.set_inheritable(self.fd, True)  # noqa: FBT003 - takes no keyword

    def release(self) -> None:
        """Give the share back; the last user stops the server and returns when it has stopped.

        May be called again. Runs at exit by itself. Children that inherited ``fd`` must have ended.
        """
        atexit.unregister(self.release)
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        try:
            if os.getpid() == self._pid:
                _leave(self.home, fd)
        finally:
            os.close(fd)


def ensure_running(data_dir: Path, *, port: int | None = None) -> EmbeddedServer:
    """Make and start the cluster of this ``DATA_DIR`` if needed, or join the running one. Blocks.

    ``port`` None: :data:`DEFAULT_PORT`, or whatever the running one listens on. Raises
    :class:`EmbeddedError` with one sentence that says what to do.
    """
    home = find_home(data_dir)
    try:
        with ExitStack() as stack:
            # One at a time: nobody may read a killed keeper's state while another starts anew.
            stack.enter_context(_locked(home, "start.lock"))
            users_fd = home.open("users.lock")
            stack.callback(os.close, users_fd)
            # A server that is just stopping is waited for: its keeper holds this lock till it ends.
            _flock(users_fd, fcntl.LOCK_SH, home)
            running_port = _join_or_start(home, port)
            password = (home.path / "password").read_text().strip()
            keep = os.dup(users_fd)
    except OSError as error:
        raise explain_os_error(error, data_dir) from error
    server = EmbeddedServer(HOST, running_port, USER, password, home.client_bin, home.path, keep)
    atexit.register(server.release)
    return server


def _join_or_start(home: Home, port: int | None) -> int:
    """Under ``start.lock``: returns the port of a server that is ready."""
    deadline = time.monotonic() + _READY_WAIT_S
    server_fd = home.open("server.lock")
    try:
        while True:
            try:
                fcntl.flock(server_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                state = _state(home.path)
                if state is not None:
                    return _agreed_port(home, state["port"], port)
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"The embedded PostgreSQL of {home.path} doesn't get ready: see "
                        f"{home.path / 'server.log'}."
                    ) from None
                time.sleep(_POLL_S)
            else:
                make_cluster(home)
                _start(home, port or DEFAULT_PORT, server_fd)
                return port or DEFAULT_PORT
    finally:
        os.close(server_fd)


def _agreed_port(home: Home, running: int, asked: int | None) -> int:
    if asked not in (None, running):
        raise EmbeddedError(
            f"The embedded PostgreSQL of {home.path} is already running on port {running}, but "
            f"DB_PORT says {asked}: set DB_PORT={running}, or wait until its users have ended."
        )
    return running


def _start(home: Home, port: int, server_fd: int) -> None:
    """Start the keeper and its server; returns when it is ready. The keeper inherits the lock."""
    _check_port(port)
    settings = {**SERVER_SETTINGS, "port": str(port)}
    argv = [str(home.server_bin / "postgres"), "-D", str(home.data)]
    for name, value in settings.items():
        argv += ["-c", f"{name}={value}"]
    account = home.account and [home.account.uid, home.account.gid]
    spec = {"argv": argv, "env": ENVIRONMENT, "account": account, "port": port}
    (home.path / "server.json").unlink(missing_ok=True)  # of a keeper that was killed
    keeper = Path(__file__).with_name("postmaster.py")
    log_fd = home.open("server.log")
    os.lseek(log_fd, 0, os.SEEK_END)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, "-I", "-S", str(keeper), str(home.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_fd,
            pass_fds=(server_fd,),
            start_new_session=True,  # the terminal's Ctrl-C is not for the server
            cwd="/",
        )
    finally:
        os.close(log_fd)
    answer, _ = process.communicate(json.dumps(spec).encode())
    result = json.loads(answer) if answer else {"failed": "its keeper ended without a word"}
    if not result.get("ready"):
        raise _start_error(home, port, str(result["failed"]))


def _start_error(home: Home, port: int, log: str) -> EmbeddedError:
    if "Address already in use" in log:
        return _port_error(port)
    if "No space left on device" in log:
        return explain_os_error(OSError(errno.ENOSPC, "no room"), home.path)
    lines = [line for line in log.splitlines() if "FATAL" in line or "PANIC" in line]
    reason = (lines or log.strip().splitlines() or ["no reason given"])[-1]
    return EmbeddedError(
        f"The embedded PostgreSQL did not start: {reason} (see {home.path / 'server.log'})"
    )


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise _port_error(port, error) from error


def _port_error(port: int, error: OSError | None = None) -> EmbeddedError:
    why = "is taken by another program"
    if error is not None and error.errno != errno.EADDRINUSE:
        why = f"can't be used ({error.strerror})"
    return EmbeddedError(
        f"Port {port} of {HOST}, which the embedded PostgreSQL listens on, {why}: set DB_PORT to "
        "a free port."
    )


def _state(home: Path) -> dict[str, int] | None:
    """What the keeper wrote when its server was ready: its ``pid`` and the server's ``port``."""
    try:
        state: dict[str, int] = json.loads((home / "server.json").read_text())
    except FileNotFoundError:
        return None
    return state


def _leave(home: Path, users_fd: int) -> None:
    """Stop the server if nobody else uses it, and wait until it has stopped."""
    try:
        fcntl.flock(users_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # Others use it: theirs, at once. Or the keeper is stopping it already: when it has ended.
        _flock(users_fd, fcntl.LOCK_SH, None)
        return
    with (home / "server.lock").open("rb") as server_lock:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(server_lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                # Nobody can join while we hold users.lock, so its keeper may be told to go.
                state = _state(home)
                if state is not None:
                    with suppress(ProcessLookupError):
                        os.kill(state["pid"], signal.SIGTERM)
                time.sleep(_POLL_S)
            else:
                return


@contextmanager
def _locked(home: Home, name: str) -> Iterator[None]:
    fd = home.open(name)
    try:
        _flock(fd, fcntl.LOCK_EX, home)
        yield
    finally:
        os.close(fd)


def _flock(fd: int, operation: int, home: Home | None) -> None:
    """Flock with an end. Without a home, giving up is silent: the caller only wanted to wait."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                if home is None:
                    return
                raise EmbeddedError(
                    f"Another process has been starting or stopping the embedded PostgreSQL of "
                    f"{home.path} for {_LOCK_WAIT_S:.0f} s: end it, or wait and try again."
                ) from None
            time.sleep(_POLL_S)
        else:
            return
