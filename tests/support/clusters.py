"""A PostgreSQL cluster of a test's own, to be stopped, stalled and filled up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from databases import Database

from datasync_crawler.local_postgres.home import find_home

if TYPE_CHECKING:
    from collections.abc import Sequence

PROJECT = Path(__file__).resolve().parents[2]


class Cluster:
    """Runs from `start` to `stop`; *room_mb*: on a file system of that size, which needs root.
    *programs*: the folder of another PostgreSQL's; *settings*: of the server, as `NAME=value`.
    """

    def __init__(
        self,
        *,
        room_mb: int | None = None,
        programs: Path | None = None,
        settings: Sequence[str] = (),
    ) -> None:
        self._home = find_home(PROJECT / ".datasync" / "tests")
        self._programs = programs or self._home.server.bin
        self._settings = [word for setting in settings for word in ("-c", setting)]
        self.folder = Path(tempfile.mkdtemp(prefix="cluster-"))
        self._mounted = False
        if room_mb is not None:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={room_mb}m", "tmpfs", str(self.folder)]
            subprocess.run(mount, check=True, capture_output=True)
            self._mounted = True
        if self._home.account is not None:
            os.chown(self.folder, self._home.account.uid, self._home.account.gid)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.database = Database(
            {"host": "127.0.0.1", "port": str(self.port), "user": "postgres", "dbname": "postgres"}
        )

    def __enter__(self) -> Self:
        self._run(
            "initdb",
            "--no-sync",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
        )
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self.stop()
        if self._mounted:
            subprocess.run(["umount", str(self.folder)], check=True)
        shutil.rmtree(self.folder)

    def _run(self, program: str, *args: str) -> None:
        subprocess.run(
            [str(self._programs / program), f"--pgdata={self.folder / 'data'}", *args],
            check=True, capture_output=True, cwd="/", env={"PATH": os.environ["PATH"]},
            **self._switch,
        )  # fmt: skip

    @property
    def _switch(self) -> dict[str, Any]:
        return self._home.switch()

    def start(self) -> Self:
        """Starts it and waits until it answers."""
        self._process = subprocess.Popen(
            [str(self._programs / "postgres"), "-D", str(self.folder / "data"),
             "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
             "-c", "unix_socket_directories=", "-c", "max_wal_size=32MB",
             *self._settings],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd="/", env={"PATH": os.environ["PATH"]}, **self._switch,
        )  # fmt: skip
        self.database.wait_for(self._process)
        return self

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT is what `pg_ctl stop -m immediate` sends."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(60)

    def restart(self) -> None:
        """What `pg_ctl restart -m immediate` does: as after a crash, without a checkpoint."""
        self.stop()
        self.start()

    def stall(self, how: signal.Signals) -> None:
        """SIGSTOP or SIGCONT for the server and each of its children."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in [pid, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):  # a child that has just ended
                os.kill(each, how)
