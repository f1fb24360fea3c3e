"""Crawls as a user runs them: `scrapy crawl events` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from faults.truth import Truth
from launcher import Launched, can_launch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from databases import Database
    from mockserver import MockServer

PROJECT = Path(__file__).resolve().parents[2]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Settings that a developer's own environment may hold and that must not reach a test's crawl.
OURS = ("API_", "DB_", "DATABASE_URL", "MAX_REJECTED", "WORKERS", "BULK_", "BATCH_", "DATA_DIR",
        "PG", "DASHBOARD_")  # fmt: skip


@dataclass(frozen=True)
class Crawled:
    """A crawl that has ended: its exit status and all that it printed."""

    status: int
    log: str

    def line(self, beginning: str) -> str:
        """The text behind *beginning* in the summary, such as "events stored"."""
        found = [line.split(beginning, 1)[1].strip() for line in self.log.splitlines()
                 if beginning in line]  # fmt: skip
        assert found, f"{beginning!r} isn't in:\n{self.log}"
        return found[-1]


def environment(mock: MockServer | None, database: Database | None) -> dict[str, str]:
    """What leads a crawl to *mock* and *database*, and nothing of the developer's own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    env["PYTHONUNBUFFERED"] = "1"
    if mock is not None:
        # Bad events are served on purpose; test_first_hour.py holds MAX_REJECTED's default.
        env |= {"API_BASE_URL": mock.url, "API_KEY": mock.key, "MAX_REJECTED": "1"}
    if database is not None:
        env |= database.environment
    return env


def start_crawl(
    mock: MockServer | None,
    database: Database | None,
    *args: str,
    env: Mapping[str, str] | None = None,
    log: Any = subprocess.PIPE,
    own_interpreter: bool = False,
) -> subprocess.Popen[str]:
    """Starts `scrapy crawl events` with *args*; *env* is laid over the environment.

    *own_interpreter*: not by way of the launcher, for tests that look at its command line.
    """
    whole = {**environment(mock, database), **(env or {})}
    start = Launched if can_launch(whole) and not own_interpreter else subprocess.Popen
    return start(
        [sys.executable, "-m", "scrapy", "crawl", "events", *args],
        cwd=PROJECT,
        env=whole,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        text=True,
    )


def crawl(
    mock: MockServer | None,
    database: Database | None,
    *args: str,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 120,
) -> Crawled:
    """Runs a crawl to its end."""
    process = start_crawl(mock, database, *args, env=env)
    try:
        log, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        log, _ = process.communicate()
        raise AssertionError(f"The crawl didn't end within {timeout_s} s:\n{log}") from None
    return Crawled(process.returncode, log)


def until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Waits until *condition* holds; fails when *process* ends before."""
    deadline = time.monotonic() + 90
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the crawl has ended:\n{process.communicate()[0]}")
        assert time.monotonic() < deadline, "it doesn't come to pass"
        time.sleep(0.02)


def command(mock: MockServer, database: Database, *args: str) -> tuple[int, str]:
    """Runs `scrapy` with *args*: its exit status and what it printed."""
    done = run_scrapy(*args, env=environment(mock, database))
    return done.returncode, done.stdout + done.stderr


def run_scrapy(
    *args: str, env: Mapping[str, str], folder: Path = PROJECT
) -> subprocess.CompletedProcess[str]:
    """Runs `scrapy` with *args* in *folder*, with the whole environment *env*."""
    start = Launched if can_launch(dict(env)) else subprocess.Popen
    with start(
        [sys.executable, "-m", "scrapy", *args], cwd=folder, env=dict(env),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            output, errors = process.communicate(timeout=120)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(args, process.returncode, output, errors)


def stored_events(database: Database) -> dict[str, Truth]:
    """All rows of `events`, in the form of the mock's truth."""
    rows = database.execute(
        'SELECT id, session_id, user_id, type, name, properties::text, "timestamp", session::text, '
        "extra::text FROM events"
    )
    return {
        row[0]: Truth(
            id=row[0],
            session_id=row[1],
            user_id=row[2],
            type=row[3],
            name=row[4],
            properties=None if row[5] is None else json.loads(row[5]),
            instant_us=(row[6] - EPOCH) // timedelta(microseconds=1),
            session=None if row[7] is None else json.loads(row[7]),
            extra=None if row[8] is None else json.loads(row[8]),
        )
        for row in rows
    }


def assert_equals_truth(database: Database, truths: Iterable[Truth]) -> None:
    """Missing 0, extra 0, altered 0."""
    stored = stored_events(database)
    wanted = {truth.id: truth for truth in truths}
    missing = wanted.keys() - stored.keys()
    extra = stored.keys() - wanted.keys()
    altered = [key for key in wanted.keys() & stored.keys() if wanted[key] != stored[key]]
    assert (len(missing), len(extra), len(altered)) == (0, 0, 0), [
        (wanted[key], stored[key]) for key in altered[:3]
    ]


def pages_fetched(mock: MockServer) -> int:
    """Pages that the mock has answered with 200 so far."""
    return int(mock.stats()["pages"])


def recorded_page() -> Path:
    """The recorded response, where this checkout stands beside it."""
    for folder in Path(__file__).resolve().parents:
        file = folder / "shared" / "data" / "recorded-events-page.json.gz"
        if file.exists():
            return file
    pytest.skip("the recorded page isn't part of the repository")
