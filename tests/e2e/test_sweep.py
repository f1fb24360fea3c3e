"""Several faults at once, with a kill between: the truth holds, and the key stands nowhere."""

from __future__ import annotations

import random
import secrets
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from crawling import assert_equals_truth, crawl, start_crawl
from faults.truth import truths
from mockserver import MockServer

if TYPE_CHECKING:
    from databases import Database

EVENTS = 8000
SETTINGS = (
    "-s", "BULK_PAGE_SIZE=200", "-s", "WORKERS=4", "-s", "RETRY_BACKOFF_BASE=0.02",
    "-s", "RETRY_BACKOFF_CAP=0.1", "-s", "DOWNLOAD_TIMEOUT=2",
)  # fmt: skip
PASSING = (
    "429:form=seconds", "500", "502", "503", "504", "reset-before", "reset-mid", "cut-length",
    "cut-chunked", "chunked", "html", "empty-body", "half-json", "null-body", "error-object",
    "short-page", "empty-page", "capped-limit:limit=90", "has-more", "extra-envelope",
    "other-format", "total:say=missing,where=header", "total:say=negative", "total:say=text",
)  # fmt: skip
ALL_TABLES = ("events", "checkpoint", "rejected_events", "source", "rate_limits", "crawl_runs",
              "crawl_samples")  # fmt: skip


def test_three_faults_and_a_kill(database: Database) -> None:
    """Any three passing faults together, a SIGKILL between: missing 0, extra 0, altered 0."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chosen = random.Random(seed)
    faults = [word for fault in chosen.sample(PASSING, 3) for word in ("--fault", fault)]
    with MockServer("--events", str(EVENTS), "--latency-ms", "10", *faults) as mock:
        process = start_crawl(mock, database, *SETTINGS)
        goal, deadline = chosen.randrange(5, 25), time.monotonic() + 60
        while mock.stats()["requests"] < goal and process.poll() is None:
            assert time.monotonic() < deadline, "the crawl doesn't move"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        done = crawl(mock, database, *SETTINGS)
    assert done.status == 0, f"seed {seed}, {faults}\n{done.log}"
    assert "Traceback" not in done.log, done.log
    assert_equals_truth(database, truths(1, 0, EVENTS))


def test_the_key_stands_nowhere(database: Database, tmp_path: Path) -> None:
    """Not in JOBDIR (after a kill, too), logs at DEBUG, feeds, tables, nor in a process list."""
    canary = f"kanarienvogel{secrets.token_hex(8)}"
    faults = ("500", "429:form=seconds", "html", "reset-mid", "redirect:to=/elsewhere,times=1",
              "bad-events:kind=no-id,each=100")  # fmt: skip
    words = [word for fault in faults for word in ("--fault", fault)]
    files = (
        "-s", f"JOBDIR={tmp_path / 'state'}", "-s", "LOG_LEVEL=DEBUG",
        "-o", str(tmp_path / "events.jsonl"), "-s", "STATS_DUMP=True",
    )  # fmt: skip
    said = []
    with MockServer("--events", "4000", "--latency-ms", "10", *words, key=canary) as mock:
        for number in range(2):
            log_file = tmp_path / f"log {number}"
            with log_file.open("w") as log:
                process = start_crawl(
                    mock, database, *SETTINGS, *files, log=log, own_interpreter=True
                )
                said.append(Path(f"/proc/{process.pid}/cmdline").read_bytes())
                deadline = time.monotonic() + 60
                goal = mock.stats()["requests"] + 8
                while mock.stats()["requests"] < goal and process.poll() is None:
                    assert time.monotonic() < deadline, "the crawl doesn't move"
                if number == 0:
                    process.send_signal(signal.SIGKILL)
                process.wait(120)
        assert mock.stats()["requests"] >= 10  # the tenth is redirected, which ends the crawl
    kept = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any("log 1" in name and content for name, content in kept.items())
    for table in ALL_TABLES:
        rows = database.execute(f"SELECT t::text FROM {table} AS t")
        said.append("\n".join(row[0] for row in rows).encode())
    rejected = database.execute("SELECT raw FROM rejected_events")
    said += [bytes(row[0]) for row in rejected]
    found = [name for name, content in kept.items() if canary.encode() in content]
    assert not found
    assert not any(canary.encode() in content for content in said)


def test_a_body_without_end_is_cut_and_tried_again(database: Database) -> None:
    """It costs at most DOWNLOAD_MAXSIZE or DOWNLOAD_TIMEOUT; then the page comes: complete."""
    fault = ("--fault", "endless:start=5,times=2")
    with MockServer("--events", "2000", *fault) as mock:
        done = crawl(mock, database, *SETTINGS, "-s", "DOWNLOAD_MAXSIZE=5000000")
    assert done.status == 0, done.log
    assert "Traceback" not in done.log, done.log
    assert_equals_truth(database, truths(1, 0, 2000))
