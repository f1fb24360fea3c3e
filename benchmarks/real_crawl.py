"""What the benchmarks of whole crawls share: a PostgreSQL, a database each, the mock's journal.

The server is the one that DATABASE_URL names (its user must be allowed to make databases), or the
embedded one, kept below .datasync/benchmarks. Times are the mock's: first request to last answer,
so that the start of Python and of the database doesn't count.
"""

from __future__ import annotations

import math
import os
import sys
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from crawling import crawl
from databases import Database, Server
from mockserver import MockProcess
from ports import free_port

from datasync_crawler.local_postgres.embedded import EmbeddedError, ensure_running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROJECT = Path(__file__).resolve().parents[1]
#: 429s that are further apart than this, in seconds, aren't one burst: no pause is shorter.
BURST_GAP_S = 0.25


@dataclass(frozen=True)
class Journal:
    """A crawl as the mock saw it; `refused_at` in seconds after the first request."""

    seconds: float
    requests: int
    refused_at: Sequence[float]

    def bursts(self) -> list[tuple[float, int]]:
        """When each burst of 429s began, and how many it had."""
        found: list[tuple[float, int]] = []
        for before, at in zip((-math.inf, *self.refused_at), self.refused_at, strict=False):
            begun, size = found.pop() if at - before < BURST_GAP_S else (at, 0)
            found.append((begun, size + 1))
        return found


@contextmanager
def database_server() -> Iterator[Server]:
    """The configured server or the embedded one, for as long as it's needed."""
    if url := os.environ.get("DATABASE_URL"):
        yield Server.from_url(url)
        return
    data_dir = PROJECT / ".datasync" / "benchmarks"
    try:
        running = ensure_running(data_dir, port=free_port())
    except EmbeddedError:  # another benchmark runs on it: join it, whatever its port
        running = ensure_running(data_dir)
    with running:
        yield Server(running.conninfo("postgres"))


@contextmanager
def own_database(server: Server) -> Iterator[Database]:
    """An empty database, dropped afterwards."""
    name = f"benchmark_{uuid.uuid4().hex[:12]}"
    server.execute(f"CREATE DATABASE {name}")
    try:
        yield Database({**server.params, "dbname": name})
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def crawl_once(
    server: Server, mock_options: Sequence[str], *args: str, timeout_s: float = 3600
) -> Journal:
    """A whole crawl against a mock of its own, into a database of its own.

    Raises RuntimeError with the crawl's log when it doesn't end complete.
    """
    with MockProcess(*mock_options) as mock, own_database(server) as database:
        done = crawl(mock, database, *args, timeout_s=timeout_s)
        if done.status != 0:
            raise RuntimeError(f"The crawl ended with {done.status}:\n{done.log}")
        if folder := os.environ.get("BENCHMARK_LOGS"):
            name = " ".join(mock_options).replace("--", "").replace("/", "_")[:120]
            Path(folder, f"{name}.log").write_text(done.log, encoding="utf-8")
        stats = mock.stats()
    entries = stats["entries"]
    latency_s = float(dict(pairwise(mock_options))["--latency-ms"]) / 1e3
    begun = entries[0]["time"]
    return Journal(
        seconds=entries[-1]["time"] + latency_s - begun,
        requests=stats["requests"],
        refused_at=[entry["time"] - begun for entry in entries if entry["status"] == 429],
    )
