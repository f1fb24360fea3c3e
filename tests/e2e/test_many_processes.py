"""Several processes share one crawl: nothing is fetched twice, whatever happens to any of them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from clusters import Cluster
from crawling import (
    PROJECT,
    assert_equals_truth,
    environment,
    pages_fetched,
)
from faults.truth import truths
from mockserver import MockServer
from proxy import CuttingProxy
from several import TROUBLES, Crawls, Troubles, most_pages

if TYPE_CHECKING:
    from pathlib import Path

    from databases import Database


@pytest.mark.parametrize("processes", [3])
def test_all_fetch_and_nothing_is_fetched_twice(
    database: Database, tmp_path: Path, processes: int
) -> None:
    """Each page comes once, every process has its share, and all end with the same verdict."""
    events, page = 20_000, 50
    with (
        MockServer("--events", str(events), "--latency-ms", "100") as mock,
        Crawls(mock, database, tmp_path, "-s", f"BULK_PAGE_SIZE={page}", "-s", "WORKERS=4") as all_,
    ):
        for _ in range(processes):
            all_.start()
        done = [all_.ended(one) for one in all_.all]
        fetched = pages_fetched(mock)
    assert [one.status for one in done] == [0] * processes, done
    chunks = 34
    needed = events / (page - 1)
    assert fetched <= 1.01 * needed + chunks
    assert {one.line("complete: ") for one in done} == {done[0].line("complete: ")}, done
    shares = database.execute("SELECT run_id, count(*) FROM checkpoint GROUP BY run_id")
    assert len(shares) == processes, shares
    assert database.value("SELECT count(*) FROM leases WHERE kind = 'chunk'") == 0
    assert_equals_truth(database, truths(1, 0, events))


@pytest.mark.parametrize("who", ["planner", "helper"])
def test_what_a_killed_process_held_is_anothers(
    database: Database, tmp_path: Path, who: str
) -> None:
    """SIGKILL of either of two: the other one fetches the rest and proves the set."""
    with (
        MockServer("--events", "20000", "--latency-ms", "300") as mock,
        Crawls(mock, database, tmp_path, "-s", "BULK_PAGE_SIZE=100", "-s", "WORKERS=2") as two,
    ):
        two.start()
        planner = two.holder()
        helper = two.start()
        two.wait_until(
            lambda: database.value("SELECT count(DISTINCT run_id) FROM checkpoint") == 2,
            "the second process doesn't help",
        )
        victim, survivor = (planner, helper) if who == "planner" else (helper, planner)
        victim.kill()
        victim.wait()
        # As if the length of a lease had passed: the sleeper's below lapses by itself.
        database.execute(
            "UPDATE leases SET expires_at = now() FROM crawl_runs "
            "WHERE run_id = crawl_runs.id AND pid = %s", [victim.pid]
        )  # fmt: skip
        mock.config(latency_ms=0)
        started = time.monotonic()
        done = two.ended(survivor)
        took_s = time.monotonic() - started
    assert done.status == 0, done.log
    assert took_s < 60, done.log
    assert_equals_truth(database, truths(1, 0, 20_000))


def test_a_process_that_slept_commits_nothing_that_is_anothers(
    database: Database, tmp_path: Path
) -> None:
    """SIGSTOP past the lease, SIGCONT: its pages are dropped, it says so, and helps on."""
    with (
        MockServer("--events", "30000", "--latency-ms", "400") as mock,
        Crawls(mock, database, tmp_path, "-s", "BULK_PAGE_SIZE=50", "-s", "WORKERS=2") as two,
    ):
        two.start()
        planner = two.holder()
        helper = two.start()
        two.wait_until(
            lambda: database.value("SELECT count(DISTINCT run_id) FROM checkpoint") == 2,
            "the second process doesn't help",
        )
        os.kill(planner.pid, signal.SIGSTOP)
        expired = "SELECT count(*) FROM leases WHERE kind = 'proof' AND expires_at < now()"
        two.wait_until(lambda: database.value(expired), "the lease doesn't expire")
        mock.config(latency_ms=0)
        epoch = "SELECT epoch FROM leases WHERE kind = 'proof'"
        before = database.value(epoch)
        two.wait_until(lambda: database.value(epoch) > before, "nobody takes the proof over")
        time.sleep(1)
        os.kill(planner.pid, signal.SIGCONT)
        done = [two.ended(one) for one in (planner, helper)]
    assert [one.status for one in done] == [0, 0], done
    assert "was away for longer than its lease" in done[0].log
    assert database.value("SELECT count(*) FROM events") == 30_000
    assert_equals_truth(database, truths(1, 0, 30_000))


def test_whatever_happens_to_three_processes_on_the_way(tmp_path: Path) -> None:
    """SIGKILL, SIGSTOP, a crash of the server, no network for a while, a process that joins:
    exactly what was served, and no page more than the deaths have cost. `benchmarks/processes.py`
    does it with up to eight processes, past their leases.
    """
    events = 40_000
    with (
        Cluster() as cluster,
        CuttingProxy("127.0.0.1", cluster.port) as proxy,
        MockServer("--events", str(events), "--latency-ms", "60") as mock,
        Crawls(mock, cluster.database, tmp_path, "-s", "BULK_PAGE_SIZE=100", "-s", "WORKERS=2",
               "-s", "DB_WRITERS=1") as some,
    ):  # fmt: skip
        troubles = Troubles(some, cluster, proxy, random.Random(7), stopped_s=1.0, apart_s=1.0)
        for _ in range(3):
            troubles.start()
        some.wait_until(lambda: some.committed() > 20, "nothing is committed")
        for kind in TROUBLES:  # deaths first: their leases last for 15 s
            troubles.happen(kind)
            time.sleep(0.5)
        mock.config(latency_ms=0)
        last = some.ended(some.start())
        for one in some.all:
            one.wait(60)
        fetched = pages_fetched(mock)
        most = most_pages(
            some, events=events, page_size=100, in_hand=2 * 2 + 8, victims=troubles.victims
        )
        assert last.status == 0, last.log
        assert_equals_truth(cluster.database, truths(1, 0, events))
    assert set(troubles.happened) == set(TROUBLES)
    assert fetched <= most


def test_settings_may_differ_or_are_refused(database: Database, tmp_path: Path) -> None:
    """Other page sizes: one crawl. Another DB_SCHEMA: a crawl of its own. Another ID_FIELD: exit
    status 2 and a sentence that names it.
    """
    with (
        MockServer("--events", "12000", "--latency-ms", "200") as mock,
        Crawls(mock, database, tmp_path, "-s", "WORKERS=2") as some,
    ):
        sizes = ("100", "37", "300")
        planner = some.start("-s", f"BULK_PAGE_SIZE={sizes[0]}")
        some.holder()
        for size in sizes[1:]:
            some.start("-s", f"BULK_PAGE_SIZE={size}")
        refused = some.ended(some.start("-s", "ID_FIELD=uuid"))
        some.start("-s", "DB_SCHEMA=other", "-s", "BULK_PAGE_SIZE=1000")
        assert planner.poll() is None, "it had ended before the others began: raise events"
        mock.config(latency_ms=20)
        done = [some.ended(one) for one in some.all]
    assert [one.status for one in done] == [0, 0, 0, 2, 0], done
    assert "ID_FIELD is 'id' there and 'uuid' here" in refused.log
    assert_equals_truth(database, truths(1, 0, 12_000))
    assert database.value("SELECT count(*) FROM other.events") == 12_000
    requested = {size for (size,) in database.execute("SELECT requested FROM checkpoint")}
    assert {37, 100} <= requested
    assert max(requested) > 100


@pytest.mark.parametrize(
    "options", [(), ("--rate-headers", "none")], ids=["advertised", "unadvertised"]
)
def test_one_key_has_one_quota(
    database: Database, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Three processes and a limit of eight in three seconds: told, nothing is refused; not told,
    no more than a burst each.
    """
    limit = ("--rate-limit", "8", "--rate-window", "3", *options)
    with (
        MockServer("--events", "1500", *limit) as mock,
        Crawls(mock, database, tmp_path, "-s", "BULK_PAGE_SIZE=50", "-s", "WORKERS=8") as three,
    ):
        for _ in range(3):
            three.start()
        done = [three.ended(one) for one in three.all]
        refused = mock.stats()["by_status"].get("429", 0)
    assert [one.status for one in done] == [0, 0, 0], done
    assert refused <= (0 if not options else 3 * 8), refused
    assert_equals_truth(database, truths(1, 0, 1500))


def test_the_status_names_all_processes_and_the_dead(database: Database, tmp_path: Path) -> None:
    """What each holds, who plans, and who has no heartbeat any more."""
    with (
        MockServer("--events", "20000", "--latency-ms", "1000") as mock,
        Crawls(mock, database, tmp_path, "-s", "BULK_PAGE_SIZE=100", "-s", "WORKERS=1") as two,
    ):
        two.start()
        planner = two.holder()
        helper = two.start()
        held = (
            "SELECT count(DISTINCT run_id) FROM leases WHERE kind = 'chunk' AND owner IS NOT NULL"
        )
        two.wait_until(lambda: database.value(held) == 2, "the second process doesn't help")
        helper.kill()
        helper.wait()
        # As if twelve seconds had passed: a heartbeat is missed after ten.
        database.execute(
            "UPDATE crawl_runs SET heartbeat_at = now() - interval '12 seconds' WHERE pid = %s",
            [helper.pid],
        )
        command = [sys.executable, "-m", "scrapy", "status"]
        env = environment(mock, database)
        said = subprocess.run(  # noqa: PLW1510
            command, cwd=PROJECT, env=env, capture_output=True, text=True
        )
        seen = subprocess.run(  # noqa: PLW1510
            [*command, "--json"], cwd=PROJECT, env=env, capture_output=True
        )
        planner.kill()
    lines = [line[14:] for line in said.stdout.splitlines() if " received" in line]
    assert len(lines) == 2, said
    assert "plans and proves, holds " in lines[0]
    assert "dead: no heartbeat for" in lines[1]
    assert lines[1].startswith(f"{helper.pid} on ")
    processes = json.loads(seen.stdout)["processes"]
    assert [(one["pid"], one["alive"], one["plans"]) for one in processes] == [
        (planner.pid, True, True), (helper.pid, False, False)
    ]  # fmt: skip
