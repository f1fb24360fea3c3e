"""`python -m scrapy …` as a fork of a process that has imported what isn't ours.

Importing Scrapy and Twisted is two thirds of what a short command costs. `Launched` is a
`subprocess.Popen` in all else: a process of its own, and a child of the test's. Our package is
never imported before the fork: it reads the environment. What stands in /proc of it (command line,
environment) is the launcher's, and a PYTHON… variable of its own has no effect.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
from functools import cache
from typing import Any

#: Each is imported by a crawl. No reactor: which one there is, Scrapy decides.
MODULES = (
    "scrapy.cmdline", "scrapy.crawler", "scrapy.spiders", "scrapy.http", "scrapy.core.engine",
    "scrapy.core.scheduler", "scrapy.core.scraper", "scrapy.core.downloader.handlers.http11",
    "scrapy.extensions.throttle", "scrapy.extensions.feedexport", "scrapy.downloadermiddlewares",
    "twisted.internet.asyncioreactor", "twisted.internet.ssl", "twisted.web.client", "psycopg2",
    "psycopg2.extras", "msgspec", "http_sf", "brotli", "importlib.resources",
)  # fmt: skip
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
_mutex = threading.Lock()


class Launched(subprocess.Popen[str]):
    """`Popen([sys.executable, "-m", "scrapy", …])`, forked."""

    def _execute_child(self, args: Any, *given: Any) -> None:
        cwd, env = given[4:6]
        pipes = given[9:15]  # for standard input, output and error, each to read and to write
        mine = [own if fd == -1 else fd for own, fd in enumerate((pipes[0], pipes[3], pipes[5]))]
        order = {"args": args[2:], "cwd": str(cwd), "env": dict(env)}
        self.pid = _fork(json.dumps(order).encode(), mine)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def can_launch(env: dict[str, str]) -> bool:
    """Whether *env* leaves the interpreter as it is here."""

    def ours(values: Any) -> dict[str, str]:
        return {name: values[name] for name in values if name.startswith("PYTHON")}

    return ours(env) == {**ours(os.environ), "PYTHONUNBUFFERED": "1"}


def _fork(order: bytes, fds: list[int]) -> int:
    """The process id of a new child of this process."""
    with _mutex:
        orders = _launcher()
        # The launcher's grandchild becomes a child of the nearest subreaper above it.
        prctl = ctypes.CDLL(None).prctl
        prctl(_SUBREAPER, 1, 0, 0, 0)
        try:
            socket.send_fds(orders, [order], fds)
            return int(orders.recv(100))
        finally:
            prctl(_SUBREAPER, 0, 0, 0, 0)


@cache
def _launcher() -> socket.socket:
    """Where the launcher takes orders; it ends with this process."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    atexit.register(process.wait)
    atexit.register(mine.close)  # called first
    return mine


def _serve(orders: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Forks for each order. Returns it in the new process, and None at the end."""
    while True:
        data, fds, _, _ = socket.recv_fds(orders, 1 << 20, 3)
        if not data:
            return None
        ready, say = os.pipe()
        middle = os.fork()
        if not middle:
            child = os.fork()
            if not child:
                os.close(ready)
                os.close(say)
                return json.loads(data), fds
            os.write(say, b"%d" % child)
            os._exit(0)
        os.waitpid(middle, 0)
        orders.send(os.read(ready, 100))
        for fd in (*fds, ready, say):
            os.close(fd)


def main() -> None:
    """The launcher, and in its forks the program."""
    for name in MODULES:
        importlib.import_module(name)
    assert not {"datasync_crawler", "twisted.internet.reactor"} & sys.modules.keys()
    gc.freeze()  # so that a collection in a fork leaves the pages shared
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        found = _serve(orders)
    if found is None:
        return
    order, fds = found
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    for fd in fds:
        if fd > 2:
            os.close(fd)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.path[0] = order["cwd"]
    sys.argv = order["args"]
    runpy.run_module("scrapy", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
