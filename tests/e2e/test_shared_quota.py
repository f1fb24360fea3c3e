"""One quota over several processes with one key: real processes, the mock, a real PostgreSQL.

What is counted: 429s over all together, and the time against the ideal of the limiter.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from crawling import PROJECT
from mockserver import MockServer

from datasync_crawler.store import schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from databases import Database


@dataclass(frozen=True)
class Seen:
    """What the mock served: seconds from the first to the last request, and statuses."""

    seconds: float
    statuses: list[int]
    times: list[float]
    logs: list[str]

    @property
    def refused(self) -> int:
        return self.statuses.count(429)


def prepare(database: Database) -> None:
    """Tables, a salt, and the work that processes share."""
    with closing(database.connect()) as connection:
        connection.autocommit = False
        schema.migrate(connection, "public")
    database.execute("INSERT INTO source (api_base_url, pagination) VALUES ('x', 'offset')")
    database.execute("CREATE SEQUENCE work")


def start(
    server: MockServer, database: Database, total: int, *settings: str, key: str = "", most: int = 8
) -> subprocess.Popen[str]:
    """A process that is ready to send."""
    process = subprocess.Popen(
        [sys.executable, "tests/support/quota_worker.py", server.url, key or server.key, str(total),
         str(most), *(f"{name}={value}" for name, value in database.environment.items()),
         *settings],
        cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "ready\n", process.communicate()
    return process


def crawl(server: MockServer, processes: Sequence[subprocess.Popen[str]]) -> Seen:
    """Lets all begin at once, and waits for their end."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    logs = [process.communicate(timeout=120)[1] for process in processes]
    for process, log in zip(processes, logs, strict=True):
        assert process.returncode == 0, log
    entries = server.stats()["entries"]
    times = [entry["time"] for entry in entries]
    return Seen(times[-1] - times[0], [entry["status"] for entry in entries], times, logs)


def mock(limiter: str, limit: int, window_s: float, *options: str) -> MockServer:
    return MockServer(
        "--events", "1000", "--latency-ms", "20", "--limiter", limiter,
        "--rate-limit", str(limit), "--rate-window", str(window_s), *options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limiter", "headers", "number"),
    [("fixed", "full", 4), ("sliding", "ietf", 2), ("token-bucket", "full", 3)],
)
def test_with_headers_nothing_is_refused_over_all_processes(
    database: Database, limiter: str, headers: str, number: int
) -> None:
    """No 429 over all together."""
    prepare(database)
    with mock(limiter, 10, 2, "--rate-headers", headers) as server:
        seen = crawl(server, [start(server, database, 40) for _ in range(number)])
    assert seen.statuses == [200] * 40


def test_the_quotas_of_two_keys_add_up(database: Database) -> None:
    """60 requests, 10 in 2 s for each key: one alone needs 10 s, both 4; no 429."""
    prepare(database)
    with mock("fixed", 10, 2, "--rate-headers", "ietf", "--other-key", "second") as server:
        seen = crawl(
            server, [start(server, database, 60, key=key) for key in (server.key, "second")]
        )
    assert seen.statuses == [200] * 60
    assert seen.seconds < 7.5
    assert database.value("SELECT count(*) FROM rate_limits") == 2
