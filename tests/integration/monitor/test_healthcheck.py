"""The container's health check, held against a real crawl_runs."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from crawling import PROJECT, crawl, environment
from mockserver import MockServer

from datasync_crawler.monitor.healthcheck import health
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.targets import ServerTarget

if TYPE_CHECKING:
    from databases import Database


@pytest.fixture
def crawled(database: Database) -> Database:
    """A database into which one small crawl has run."""
    with MockServer("--events", "10") as mock:
        assert crawl(mock, database).status == 0
    return database


def check(database: Database | None) -> subprocess.CompletedProcess[str]:
    """Runs it as the Dockerfile does."""
    return subprocess.run(
        [sys.executable, "-m", "datasync_crawler.monitor.healthcheck"],
        cwd=PROJECT,
        env=environment(None, database),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_crawl_that_beats_is_healthy_and_a_silent_one_is_not(crawled: Database) -> None:
    """By the database's clock; a run of another host doesn't count."""
    assert check(crawled).stdout.startswith("The crawl has ended, ")
    crawled.execute("UPDATE crawl_runs SET finished_at = NULL, heartbeat_at = now()")
    assert check(crawled).returncode == 0
    crawled.execute("UPDATE crawl_runs SET heartbeat_at = now() - interval '2 minutes'")
    silent = check(crawled)
    assert silent.returncode == 1
    assert re.fullmatch(r"The last heartbeat is 1\d\d s old\.\n", silent.stdout)
    crawled.execute("INSERT INTO crawl_runs (host, pid) VALUES ('another host', 1)")
    assert check(crawled).returncode == 1
    crawled.execute("INSERT INTO crawl_runs (host, pid) VALUES (%s, 1)", (platform.node(),))
    assert check(crawled).returncode == 0


def test_before_the_first_crawl_it_says_so(database: Database) -> None:
    """No table yet, or no run of this host: unhealthy, with a sentence and no traceback."""
    none = check(database)
    assert none.returncode == 1
    assert none.stdout.startswith("The heartbeat can't be read")
    assert none.stderr == ""


def test_without_a_run_of_this_host_nothing_lives(crawled: Database) -> None:
    """The row is there for others to see, but it isn't ours."""
    crawled.execute("UPDATE crawl_runs SET host = 'another host'")
    found = health(Connector(ServerTarget(crawled.params)), "public")
    assert found == (False, "No crawl has begun on this host.")


def test_no_database_is_named(database: Database) -> None:
    """None configured, or none that answers: the sentence says what to set."""
    assert "set DATABASE_URL or DB_HOST" in check(None).stdout
    wrong = type(database)({**database.params, "dbname": "not_there"})
    done = check(wrong)
    assert done.returncode == 1
    assert done.stdout.startswith("The database can't be used")


@pytest.mark.parametrize("beat", ["infinity", "-infinity", "294276-01-01", "4713-01-01 BC"])
def test_a_heartbeat_that_no_crawl_writes_is_said(crawled: Database, beat: str) -> None:
    """Another role's, without an end or in the future: unhealthy, with a sentence."""
    crawled.execute("UPDATE crawl_runs SET finished_at = NULL, heartbeat_at = %s", (beat,))
    done = check(crawled)
    assert (done.returncode, done.stderr) == (1, "")
    assert "heartbeat is" in done.stdout


def test_a_planted_table_is_not_evaluated(database: Database) -> None:
    """A column of another type has its owner's cast: refused before anything is read."""
    database.execute("CREATE TYPE kind AS ENUM ('now')")
    database.execute("CREATE TABLE crawl_runs (id bigint, host kind, heartbeat_at timestamptz)")
    done = check(database)
    assert (done.returncode, done.stderr) == (1, "")
    assert "has a table crawl_runs of another shape (host)" in done.stdout
