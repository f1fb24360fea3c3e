"""The embedded PostgreSQL server: a process starts, joins and leaves it here.

One server per ``DATA_DIR`` listens on a port of 127.0.0.1, is shared by all processes that use it,
and stops when the last of them has ended or was killed. :mod:`.postmaster` keeps it running,
:mod:`.home` knows its directory. Must not connect to it.

The packages' own launchers fail on a path with a space, leave servers running after a killed
client, and make closed parent directories readable for everybody.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from datasync_crawler.local_postgres import private
from datasync_crawler.local_postgres.cluster import ENVIRONMENT, USER, make_cluster
from datasync_crawler.local_postgres.errors import EmbeddedError, explain_os_error
from datasync_crawler.local_postgres.home import Home, find_home

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["DEFAULT_PORT", "SERVER_SETTINGS", "EmbeddedError", "EmbeddedServer", "ensure_running"]

HOST = "127.0.0.1"
#: Tried first; a second cluster on the machine takes any free one.
DEFAULT_PORT = 54329

# What the server runs with, given at each start. Durability is never touched: fsync, full page
# writes and synchronous_commit are on. The rest serves a bulk load on a small machine.
SERVER_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": HOST,
        "unix_socket_directories": "",  # a socket's path is limited to 107 bytes, DATA_DIR isn't
        # PostgreSQL 18 allows twice as many connections that wait for a password: 100 silent
        # ones, from any user of this machine, took all slots of a server with 40.
        "max_connections": "100",
        "authentication_timeout": "5s",  # a silent connection is closed after this
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
    """A running server and this process's share in it: it runs at least until :meth:`release`.

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
            # libpq sends the password in clear by default when it is asked to: another process
            # that listens on this port would get it. SCRAM never sends it.
            "require_auth": "scram-sha-256",
        }

    def keep_for_exec(self) -> None:
        """Passes this process's share on to the program that replaces it (``os.exec*``)."""
        os.set_inheritable(self.fd, True)  # noqa: FBT003 - takes no keyword

    def release(self) -> None:
        """Gives the share back; the last user stops the server and returns when it has stopped.

        May be called again. Runs at exit. Children that inherited ``fd`` must have ended.
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

    ``port`` None: what the running one listens on, or the port of the last time, or
    :data:`DEFAULT_PORT`, or, where that is taken, any free one. Raises :class:`EmbeddedError` with
    one sentence that says what to do.
    """
    home = find_home(data_dir)
    try:
        with ExitStack() as stack:
            # One process at a time: none may read a killed keeper's state while another starts one.
            stack.enter_context(_locked(home, "start.lock"))
            users_fd = home.open("users.lock")
            stack.callback(os.close, users_fd)
            # A server that is just stopping is waited for: its keeper holds this lock till it ends.
            _flock(users_fd, fcntl.LOCK_SH, home)
            running_port = _join_or_start(home, port)
            password = private.read_text(home.path / "password").strip()
            keep = os.dup(users_fd)
    except private.ForeignError as error:
        raise EmbeddedError(str(error)) from error
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
                running = _running_port(home.path)
                if running is not None:
                    return _agreed_port(home, running, port)
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"The embedded PostgreSQL of {home.path} isn't ready in time: see "
                        f"{home.path / 'server.log'}."
                    ) from None
                time.sleep(_POLL_S)
            else:
                make_cluster(home)
                return _start_somewhere(home, port, server_fd)
    finally:
        os.close(server_fd)


def _agreed_port(home: Home, running: int, asked: int | None) -> int:
    if asked not in (None, running):
        raise EmbeddedError(
            f"The embedded PostgreSQL of {home.path} is already running on port {running}, but "
            f"DB_PORT says {asked}: set DB_PORT={running}, or wait until its users have ended."
        )
    return running


def _start_somewhere(home: Home, port: int | None, server_fd: int) -> int:
    """Start on *port*, or without one on the first of our choices that is free; the port."""
    if port is None:
        port = next(filter(_is_free, (_remembered_port(home.path), DEFAULT_PORT)), None)
    if port is None:
        with socket.create_server((HOST, 0)) as probe:
            port = probe.getsockname()[1]
    _start(home, port, server_fd)
    private.write_text(home.path / "port", f"{port}\n")
    return port


def _start(home: Home, port: int, server_fd: int) -> None:
    """Start the keeper and its server; returns when it is ready. The keeper inherits the lock."""
    _check_port(port)
    settings = {**SERVER_SETTINGS, "port": str(port)}
    argv = [str(home.server.bin / "postgres"), "-D", str(home.data)]
    for name, value in settings.items():
        argv += ["-c", f"{name}={value}"]
    account = home.account and [home.account.uid, home.account.gid]
    spec = {"argv": argv, "env": ENVIRONMENT, "account": account, "port": port}
    (home.path / "server.json").unlink(missing_ok=True)  # of a keeper that was killed
    log_fd = home.open("server.log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-I", "-S", "-c", _KEEPER, str(_ROOT), f"{__package__}.postmaster",
             str(home.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_fd,
            pass_fds=(server_fd,),
            start_new_session=True,  # so that the terminal's Ctrl-C doesn't stop the server
            cwd="/",
        )  # fmt: skip
    finally:
        os.close(log_fd)
    answer, _ = process.communicate(json.dumps(spec).encode())
    result = json.loads(answer) if answer else {"failed": "its keeper ended without an answer"}
    if not result.get("ready"):
        raise _start_error(home, port, str(result["failed"]))


# Imported, not run by its path: in a zipped egg (Scrapyd) there is no such file, and Python takes
# the egg for the script (`can't find '__main__' module`). zipimport reads from both.
_ROOT = Path(__file__).parents[__name__.count(".")]
_KEEPER = (
    "import importlib, sys; sys.path.append(sys.argv[1]); "
    "sys.exit(importlib.import_module(sys.argv[2]).main(sys.argv[3]))"
)


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


def _is_free(port: int | None) -> bool:
    try:
        _check_port(port or 0)
    except EmbeddedError:
        return False
    return port is not None


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


def _remembered_port(home: Path) -> int | None:
    """The port of the last start; None before the first one, or when it can't be read."""
    try:
        port = int(private.read_text(home / "port"))
    except (FileNotFoundError, ValueError):
        return None
    return port if 0 < port < 65536 else None


def _running_port(home: Path) -> int | None:
    """The port that the keeper wrote when its server was ready."""
    try:
        state: dict[str, int] = json.loads(private.read_text(home / "server.json"))
    except FileNotFoundError:
        return None
    return state["port"]


def _leave(home: Path, users_fd: int) -> None:
    """Give the share back; when nobody else has one, wait until the keeper has stopped the server.

    No signal is sent: a keeper whose server has no user left stops it by itself.
    """
    with os.fdopen(private.open_file(home / "server.lock", os.O_RDONLY), "rb") as server_lock:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while time.monotonic() < deadline and not _others_use_it(users_fd):
            with suppress(BlockingIOError):
                fcntl.flock(server_lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            time.sleep(_POLL_S)


def _others_use_it(users_fd: int) -> bool:
    """Whether another process has a share. Afterwards this process has none."""
    try:
        try:
            fcntl.flock(users_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A user's share leaves room for another; a keeper that stops the server doesn't.
            fcntl.flock(users_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    finally:
        fcntl.flock(users_fd, fcntl.LOCK_UN)
    return False


@contextmanager
def _locked(home: Home, name: str) -> Iterator[None]:
    fd = home.open(name)
    try:
        _flock(fd, fcntl.LOCK_EX, home)
        yield
    finally:
        os.close(fd)


def _flock(fd: int, operation: int, home: Home) -> None:
    """Takes or changes a lock, with a timeout."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"Another process has been starting or stopping the embedded PostgreSQL of "
                    f"{home.path} for {_LOCK_WAIT_S:.0f} s: end it, or wait and try again."
                ) from None
            time.sleep(_POLL_S)
        else:
            return
