"""Several processes that share one crawl, and what may happen to them on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from crawling import Crawled, start_crawl

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from clusters import Cluster
    from databases import Database
    from mockserver import MockServer
    from proxy import CuttingProxy

Popen = subprocess.Popen[str]

#: What `Troubles` can do: SIGKILL; SIGSTOP, and SIGCONT later; the server's end without a
#: checkpoint (`pg_ctl restart -m immediate`); no network between processes and server for a while;
#: one more process.
TROUBLES = ("kill", "stop", "restart", "cut", "join")


class Crawls:
    """Processes of one crawl, each with a log file of its own."""

    def __init__(self, mock: MockServer, database: Database, folder: Path, *args: str) -> None:
        self.mock, self.database, self.folder, self.args = mock, database, folder, args
        self.all: list[Popen] = []

    def start(self, *args: str, through: Database | None = None, **env: str) -> Popen:
        """One more process; *through*: the database as it reaches it."""
        with (self.folder / f"{len(self.all)}.log").open("w") as log:
            process = start_crawl(
                self.mock, through or self.database, *self.args, *args, env=env, log=log
            )
        self.all.append(process)
        return process

    def log(self, process: Popen) -> str:
        return (self.folder / f"{self.all.index(process)}.log").read_text()

    def ended(self, process: Popen, timeout_s: float = 120) -> Crawled:
        return Crawled(process.wait(timeout_s), self.log(process))

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < deadline, (what, [self.log(one) for one in self.all])
            time.sleep(0.05)

    def committed(self) -> int:
        """Ranges in the ledger; 0 before there is one."""
        if self.database.value("SELECT to_regclass('checkpoint')") is None:
            return 0
        return int(self.database.value("SELECT count(*) FROM checkpoint"))

    def holder(self) -> Popen:
        """The process that holds the lease of the proof."""
        held = "SELECT count(owner) FROM leases WHERE kind = 'proof'"
        self.wait_until(lambda: self.committed() and self.database.value(held), "nobody plans")
        pid = self.database.value(
            "SELECT pid FROM crawl_runs JOIN leases ON run_id = crawl_runs.id WHERE kind = 'proof'"
        )
        return next(one for one in self.all if one.pid == pid)

    def running(self) -> list[Popen]:
        """Those that haven't ended."""
        return [one for one in self.all if one.poll() is None]

    def chunks_offered(self) -> int:
        """At most so many chunks were offered: each has taken a number."""
        return int(self.database.value("SELECT last_value FROM leases_id_seq"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.all:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.kill()
            process.wait()


@dataclass
class Troubles:
    """Lets something happen to the processes of a crawl. *stopped_s*: how long a process stands
    still; *apart_s*: how long the network is away from those that go through the proxy.
    """

    crawls: Crawls
    cluster: Cluster
    proxy: CuttingProxy
    chance: random.Random
    stopped_s: float = 2.0
    apart_s: float = 2.0
    happened: Counter[str] = field(default_factory=Counter)
    #: Processes that a trouble may have cost what they had in hand.
    victims: int = 0

    def start(self) -> Popen:
        """One more process: every second one goes through the proxy."""
        place = {**self.cluster.database.params, "port": str(self.proxy.port)}
        direct = len(self.crawls.all) % 2
        return self.crawls.start(through=None if direct else type(self.crawls.database)(place))

    def happen(self, kind: str) -> None:
        """One of `TROUBLES`; after a death another process joins."""
        running = self.crawls.running()
        if not running:
            return
        self.happened[kind] += 1
        victim = self.chance.choice(running)
        if kind == "kill":
            victim.kill()
            self.victims += 1
            self.start()
        elif kind == "stop":
            os.kill(victim.pid, signal.SIGSTOP)
            self.victims += 1
            time.sleep(self.stopped_s)
            os.kill(victim.pid, signal.SIGCONT)
        elif kind == "restart":
            self.cluster.restart()
        elif kind == "cut":
            self.proxy.part()
            self.victims += len(running)
            time.sleep(self.apart_s)
            self.proxy.join()
        else:
            self.start()


def most_pages(crawls: Crawls, *, events: int, page_size: int, in_hand: int, victims: int) -> float:
    """How many pages may be fetched: 1 % more than are needed, one a chunk, the two ends for each
    process, and the *in_hand* of each victim again.
    """
    needed = events / (page_size - 1)
    return 1.01 * needed + crawls.chunks_offered() + 4 * len(crawls.all) + in_hand * victims
