"""The keeper of one embedded PostgreSQL server: stops it when no process uses it any more.

A small process, started by :mod:`.embedded` and detached from the first user. It is the server's
parent, so it knows whether the server runs, and it outlives users that are killed. Standard library
and :mod:`.private` only, run with ``python -I -S`` (15 ms to start), and never imported by a user
of the server.

Three lock files in the cluster's home hold the state, and the kernel frees them when their holders
end:

- ``users.lock``, shared: one holder per user of the server. A process that gets it *exclusively*
  knows that the server has no user, and gets none until the lock is released.
- ``server.lock``, exclusive: held by this process for its whole life.
- ``start.lock``, exclusive: held by a user while it starts or joins (not touched here).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from datasync_crawler.local_postgres import private

# Longest time until the last user's end is noticed. Ten checks of a lock per second cost nothing.
_CHECK_INTERVAL_S = 0.1
_START_POLL_S = 0.01
# A fast stop writes a checkpoint; longer than this and we stop without one (safe: WAL is replayed).
_FAST_STOP_S = 60.0
_IMMEDIATE_STOP_S = 10.0
_LOG_MAX_BYTES = 10_000_000
_PM_STATUS_LINE = 7  # postmaster.pid, zero-based: LOCK_FILE_LINE_PM_STATUS is 8
_PR_SET_PDEATHSIG = 1
_WAKE = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


def postmaster_pid(data: Path) -> int | None:
    """The live postmaster of this data directory, or None.

    ``postmaster.pid`` outlives a killed server. Its number may belong to another process by now (in
    a container it nearly always does), or come from whoever took over the server's account. So the
    process is checked: a postmaster belongs to that account, runs a program named postgres, and its
    working directory is the data directory.
    """
    try:
        account = data.lstat().st_uid
        pid = int(_pid_file(data)[0])
        process = Path(f"/proc/{pid}")
        program = (process / "exe").readlink().name.removesuffix(" (deleted)")
        if process.stat().st_uid == account and program == "postgres":
            return pid if (process / "cwd").samefile(data) else None
    except (OSError, ValueError, IndexError):  # gone, unreadable or not trusted
        return None
    return None


def _pid_file(data: Path) -> list[str]:
    path = data / "postmaster.pid"
    return private.read_text(path, owners={data.lstat().st_uid}).splitlines()


def settle_old_postmaster(data: Path) -> None:
    """Stops an orphaned server and removes a stale ``postmaster.pid``.

    An orphan exists only when a process like this one was killed, and is already stopping then
    (its parent's death is its signal); stopping it again is harmless.
    """
    deadline = time.monotonic() + _FAST_STOP_S
    while (pid := _signal_postmaster(data)) is not None and time.monotonic() < deadline:
        time.sleep(_START_POLL_S)
    if pid is None and Path("/proc/self").exists():
        (data / "postmaster.pid").unlink(missing_ok=True)


def _signal_postmaster(data: Path) -> int | None:
    """A fast stop for the live postmaster; its pid, or None when there is none."""
    pid = postmaster_pid(data)
    if pid is not None:
        with suppress(ProcessLookupError):
            # The handle is taken before the process is looked at again: not another one's pid.
            handle = os.pidfd_open(pid)
            try:
                if postmaster_pid(data) == pid:
                    signal.pidfd_send_signal(handle, signal.SIGINT)
            finally:
                os.close(handle)
    return pid


def _die_with_parent() -> None:
    """In the child, before exec: a fast stop when this process is killed. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAKE)


def _is_ready(data: Path, pid: int) -> bool:
    try:
        lines = _pid_file(data)
    except (OSError, ValueError):
        return False
    return (
        len(lines) > _PM_STATUS_LINE
        and lines[0] == str(pid)
        and lines[_PM_STATUS_LINE].strip() == "ready"
    )


def _bound_log(log: Path) -> None:
    """Keep two files of about ``_LOG_MAX_BYTES`` at most. The server appends: emptying is safe."""
    fd = private.open_file(log, os.O_RDWR)
    with os.fdopen(fd, "r+b") as file:
        if os.fstat(fd).st_size > _LOG_MAX_BYTES:
            older = log.with_suffix(".log.1")
            older.unlink(missing_ok=True)
            with suppress(OSError):  # no space for the older half: the bound matters more
                copy_fd = private.open_file(older, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                with os.fdopen(copy_fd, "wb") as copy:
                    shutil.copyfileobj(file, copy)
            os.ftruncate(fd, 0)


def _stop(server: subprocess.Popen[bytes]) -> None:
    for sig, patience_s in (
        (signal.SIGINT, _FAST_STOP_S),
        (signal.SIGQUIT, _IMMEDIATE_STOP_S),
        (signal.SIGKILL, None),
    ):
        server.send_signal(sig)
        with suppress(subprocess.TimeoutExpired):
            server.wait(patience_s)
            return


class _Keeper:
    """One server's life, from its start to its stop."""

    def __init__(self, home: Path, spec: dict[str, Any]) -> None:
        self._home = home
        self._data = home / "data"
        self._log = home / "server.log"
        self._state = home / "server.json"
        self._spec = spec
        self._users_fd = private.open_file(home / "users.lock", os.O_RDWR)
        self._reported = False

    def _report(self, **answer: object) -> None:
        """Sends the answer to the starting process, once, and closes the pipe."""
        if not self._reported:
            self._reported = True
            with suppress(BrokenPipeError):
                os.write(1, json.dumps(answer).encode())
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.close(null)

    def _nobody_uses_it(self) -> bool:
        try:
            fcntl.flock(self._users_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _spawn(self) -> subprocess.Popen[bytes]:
        account = self._spec["account"]
        switch: dict[str, Any] = {}
        if account is not None:
            switch = {"user": account[0], "group": account[1], "extra_groups": []}
        with os.fdopen(private.open_file(self._log, os.O_WRONLY | os.O_APPEND), "ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own command
                self._spec["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=self._spec["env"],
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
                **switch,
            )

    def _set_state(self) -> None:
        state = {"pid": os.getpid(), "port": self._spec["port"]}
        private.write_text(self._state, json.dumps(state))

    def run(self) -> int:
        """Starts the server, and stops it after the last user or a signal. Returns 0 or 1."""
        log_start = self._log.stat().st_size
        server: subprocess.Popen[bytes] | None = None
        try:
            self._state.unlink(missing_ok=True)
            settle_old_postmaster(self._data)
            signal.pthread_sigmask(signal.SIG_BLOCK, _WAKE)
            server = self._spawn()
            self._serve(server)
        except OSError as error:  # no space or no right: logged, too, if nobody reads the report
            cause = f"{error.strerror}: {error.filename}" if error.errno else str(error)
            self._report(failed=cause)
            raise
        finally:
            self._state.unlink(missing_ok=True)
            died = server is None or server.poll() is not None
            if server is not None and not died:
                _stop(server)
            with os.fdopen(private.open_file(self._log, os.O_RDONLY), "rb") as log:
                log.seek(min(log_start, self._log.stat().st_size))
                self._report(failed=log.read(100_000).decode(errors="replace"))
        return 1 if died else 0

    def _serve(self, server: subprocess.Popen[bytes]) -> None:
        ready = False
        while server.poll() is None:
            if not ready and _is_ready(self._data, server.pid):
                ready = True
                self._set_state()
                self._report(ready=True)
            if self._nobody_uses_it():
                return
            got = signal.sigtimedwait(_WAKE, _CHECK_INTERVAL_S if ready else _START_POLL_S)
            if got is not None and got.si_signo != signal.SIGCHLD:
                return
            _bound_log(self._log)


def main(home: str) -> int:
    """Keep the server of *home*: its specification is JSON on stdin, the answer JSON on stdout."""
    spec = json.loads(sys.stdin.buffer.read())
    if os.fork():
        os._exit(0)  # whoever started us reaps this one at once; init gets the other
    return _Keeper(Path(home), spec).run()
