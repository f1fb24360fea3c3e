"""A database that goes away, stalls, fills up, or isn't what it seems, under a whole crawl."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
from clusters import Cluster
from crawling import assert_equals_truth, crawl, start_crawl, until
from databases import Database
from faults.truth import truths
from mockserver import MockServer
from proxy import COMMIT, CuttingProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENTS = 20_000
SETTINGS = ("-s", "BULK_PAGE_SIZE=200", "-s", "WORKERS=4")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


def committed(database: Database) -> int:
    """Pages in the ledger; 0 while there is no ledger."""
    if database.value("SELECT to_regclass('checkpoint')") is None:
        return 0
    return int(database.value("SELECT count(*) FROM checkpoint"))


def rss_mb(pid: int) -> float:
    """Resident memory of a process, in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def test_a_server_stopped_in_mid_crawl_is_waited_for(cluster: Cluster) -> None:
    """`pg_ctl stop -m immediate`, and back while it's waited for: complete, the truth, exit 0."""
    with MockServer("--events", str(EVENTS), "--latency-ms", "30") as mock:
        process = start_crawl(mock, cluster.database, *SETTINGS)
        until(lambda: committed(cluster.database) >= 10, process)
        cluster.stop()
        time.sleep(1)  # what was in flight comes, and finds out
        cluster.start()
        log, _ = process.communicate(timeout=120)
    assert process.returncode == 0, log
    assert "The database is away" in log
    assert_equals_truth(cluster.database, truths(1, 0, EVENTS))


def test_a_stop_doesnt_wait_for_a_server_that_never_answers(database: Database) -> None:
    """Connections stay open and nothing comes: SIGTERM still ends it, and says what is missing."""
    where = database.params
    with (
        CuttingProxy(where["host"], int(where["port"])) as proxy,
        MockServer("--events", "200000", "--latency-ms", "30") as mock,
    ):
        behind = Database({**where, "host": "127.0.0.1", "port": str(proxy.port)})
        process = start_crawl(mock, behind, *SETTINGS, "-s", "DASHBOARD_PORT=0")
        until(lambda: committed(database) >= 10, process)
        proxy.hang()
        process.terminate()
        try:
            log, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1, log
    assert "everything fetched is committed" not in log
    assert "NOT complete: The database" in log
    assert "Traceback" not in log


def test_a_stalled_server_bounds_memory(cluster: Cluster) -> None:
    """While nothing can be written, fetching stops, too; memory stays; then it completes."""
    events = 400_000
    with MockServer("--events", str(events)) as mock:
        process = start_crawl(
            mock, cluster.database, "-s", "BULK_PAGE_SIZE=2000", "-s", "WORKERS=8"
        )
        until(lambda: committed(cluster.database) >= 5, process)
        cluster.stall(signal.SIGSTOP)
        before, served, same = rss_mb(process.pid), -1, 0
        while same < 20:  # two seconds without a request: the crawl has come to a stand
            now = int(mock.stats()["pages"])
            served, same = now, same + 1 if now == served else 0
            time.sleep(0.1)
        grown = rss_mb(process.pid) - before
        cluster.stall(signal.SIGCONT)
        log, _ = process.communicate(timeout=120)
    print(f"stalled at {served} of {events // 2000} pages, memory +{grown:.0f} MB")
    assert served < events // 2000, "the crawl was through before the stall: raise events"
    assert grown < 150
    assert process.returncode == 0, log
    assert cluster.database.value("SELECT count(DISTINCT id) FROM events") == events


@pytest.mark.parametrize("heard", [False, True], ids=["COMMIT lost", "answer lost"])
def test_a_connection_cut_during_commit(database: Database, *, heard: bool) -> None:
    """Was it committed? The ledger knows: complete, nothing twice, the sums add up."""
    with (
        MockServer("--events", "8000", "--latency-ms", "30") as mock,
        CuttingProxy(database.params["host"], int(database.params["port"])) as proxy,
    ):
        through = Database({**database.params, "host": "127.0.0.1", "port": str(proxy.port)})
        process = start_crawl(mock, through, *SETTINGS)
        until(lambda: committed(database) >= 3, process)
        (proxy.cut_after if heard else proxy.cut_before)(COMMIT)
        log, _ = process.communicate(timeout=120)
        assert proxy.cuts == 1
    assert process.returncode == 0, log
    assert_equals_truth(database, truths(1, 0, 8000))
    assert database.value("SELECT sum(inserted) FROM checkpoint") == 8000


@needs_root
def test_a_full_disk_claims_nothing_and_completes_with_room() -> None:
    """A file system that is really full: exit 1 in a sentence; with room again the rest comes."""
    try:
        cluster = Cluster(room_mb=110)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no file system can be mounted here: {error.stderr!r}")
    with cluster, MockServer("--events", "60000") as mock:
        ballast = cluster.folder / "ballast"
        with ballast.open("wb") as file:
            file.write(b"\0" * (shutil.disk_usage(cluster.folder).free - 6_000_000))
        full = crawl(mock, cluster.database, *SETTINGS, "-s", "DB_MAX_WAIT=5")
        assert full.status == 1, full.log
        assert "Traceback" not in full.log
        ballast.unlink()
        until(lambda: _answers(cluster))
        before = committed(cluster.database)
        inserted = cluster.database.value("SELECT coalesce(sum(inserted), 0) FROM checkpoint")
        assert before < 300
        assert cluster.database.value("SELECT count(*) FROM events") == inserted
        done = crawl(mock, cluster.database, *SETTINGS)
        assert done.status == 0, done.log
        assert_equals_truth(cluster.database, truths(1, 0, 60_000))


def _answers(cluster: Cluster) -> bool:
    """A server whose WAL found no room has ended, and is started again here."""
    try:
        cluster.database.execute("SELECT 1")
    except psycopg2.OperationalError:
        if cluster._process is not None and cluster._process.poll() is not None:
            cluster.start()
        return False
    return True


def test_a_table_of_another_shape(database: Database) -> None:
    """Refused with exit 2 and a sentence, before any request; the table is as it was."""
    database.execute("CREATE TABLE events (id integer, what text)")
    database.execute("INSERT INTO events VALUES (1, 'mine')")
    with MockServer("--events", "10") as mock:
        done = crawl(mock, database)
        assert mock.stats()["requests"] == 0
    assert done.status == 2
    assert "of another shape" in done.log
    assert database.execute("SELECT * FROM events") == [(1, "mine")]


def test_a_role_that_owns_nothing_but_its_tables(cluster: Cluster) -> None:
    """Without CREATE on anything the role crawls into tables that were made for it."""
    database = cluster.database
    with MockServer("--events", "1000") as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
        database.execute("TRUNCATE events, checkpoint, rejected_events, crawl_runs, crawl_samples")
        database.execute("CREATE ROLE narrow LOGIN")
        database.execute("REVOKE ALL ON DATABASE postgres FROM public")
        database.execute("GRANT CONNECT, TEMPORARY ON DATABASE postgres TO narrow")
        for (table,) in database.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ):
            database.execute(f"ALTER TABLE {table} OWNER TO narrow")
        narrow = Database({**database.params, "user": "narrow"})
        done = crawl(mock, narrow, *SETTINGS)
    assert done.status == 0, done.log
    assert_equals_truth(database, truths(1, 0, 1000))
