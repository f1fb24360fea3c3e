"""The crawl under a real Scrapyd: deployed as an egg, scheduled, cancelled, resumed, completed."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest
from crawling import PROJECT, assert_equals_truth, environment
from databases import Database
from faults.truth import truths
from mockserver import MockServer
from scrapyd_server import PASSWORD, Scrapyd, copy_of_the_project, deploy, free_port, until

from datasync_crawler.local_postgres.embedded import ensure_running
from datasync_crawler.local_postgres.home import STATE_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


EVENTS = 40_000
CANARY = "canary-7d1c0f"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project to deploy from, in a path with a space in it."""
    return copy_of_the_project(tmp_path_factory.mktemp("a project"))


@pytest.fixture(scope="module")
def egg(project: Path) -> Path:
    """The egg, built as scrapyd-deploy builds it."""
    target = project.parent / f"{project.name}.egg"
    deploy(project, "--build-egg", str(target))
    return target


@pytest.fixture
def mock() -> Iterator[MockServer]:
    """Slow enough (20 ms an answer) that a crawl of 80 pages can be hit in its middle."""
    with MockServer("--events", str(EVENTS), "--latency-ms", "20", key=CANARY) as server:
        yield server


@pytest.fixture
def scrapyd(
    tmp_path: Path, mock: MockServer, database: Database, project: Path, egg: Path
) -> Iterator[Scrapyd]:
    """A Scrapyd to which the project is deployed; key and database come by its environment."""
    folder = tmp_path / "scrapyd of ours"
    folder.mkdir()
    port = free_port()
    with Scrapyd(folder, port, environment(mock, database)) as running:
        cfg = (PROJECT / "scrapy.cfg").read_text().replace("http://127.0.0.1:6800/", running.url)
        (project / "scrapy.cfg").write_text(cfg)
        deploy(project, "--egg", str(egg), "--version", "1.0")
        yield running


def pages_committed(database: Database) -> int:
    if database.value("SELECT to_regclass('checkpoint')") is None:
        return 0
    return int(database.value("SELECT count(*) FROM checkpoint"))


def in_mid_crawl(scrapyd: Scrapyd, database: Database, job: str, pages: int) -> None:
    goal = pages_committed(database) + pages
    until(lambda: pages_committed(database) >= goal, lambda: scrapyd.log(job) + scrapyd.output())


def test_the_egg_holds_every_file_of_the_package(egg: Path) -> None:
    """SQL, page and data files stand in the zipped egg, not only modules."""
    command = ["git", "ls-files", "datasync_crawler"]
    names = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    with zipfile.ZipFile(egg) as archive:
        packed = set(archive.namelist())
    assert set(names.split()) - packed == set()
    assert "EGG-INFO/entry_points.txt" in packed


def test_a_job_cancelled_in_mid_crawl_is_completed_by_the_next(
    scrapyd: Scrapyd, mock: MockServer, database: Database
) -> None:
    """Cancelled: a clean stop. Scheduled again, with an id and a JOBDIR of its own: complete,
    nothing that was committed is fetched again, and the database is what the API has.
    """
    size = ("BULK_PAGE_SIZE=500", "WORKERS=4")
    first = scrapyd.schedule(*size)
    in_mid_crawl(scrapyd, database, first, 5)
    answer = scrapyd.post("cancel.json", ("project", "datasync_crawler"), ("job", first))
    assert answer["prevstate"] == "running"
    log = scrapyd.finish(first)
    assert "NOT complete: stopped by a signal" in log
    rest = 1 + math.ceil((EVENTS - 500) / 499) - pages_committed(database)
    assert rest > 0
    before = mock.stats()["pages"]

    second = scrapyd.schedule(*size)
    log = scrapyd.finish(second)
    assert f"complete: proved against the API's total ({EVENTS:,})" in log
    # Besides, the first page and the one behind the end are always looked at.
    assert mock.stats()["pages"] - before == rest + 2
    assert_equals_truth(database, truths(1, 0, EVENTS))
    reasons = database.execute("SELECT finish_reason FROM crawl_runs ORDER BY id")
    assert reasons == [("shutdown",), ("finished",)]
    jobs = scrapyd.folder / "jobs" / "datasync_crawler" / "events"
    assert {job.name for job in jobs.iterdir()} == {first, second}
    # Exit status 1 for the first, 0 for the second, as Scrapyd sees them.
    assert re.search(rf"Process died: exitstatus=1 .*{first}", scrapyd.output())
    assert re.search(rf"Process finished: .*{second}", scrapyd.output())


def test_without_a_database_a_job_brings_its_own(
    tmp_path: Path, mock: MockServer, project: Path, egg: Path
) -> None:
    """With none configured the zipped egg starts the embedded server below Scrapyd's folder, the
    crawl completes, and the server has ended with the job.
    """
    folder = tmp_path / "scrapyd of ours"
    folder.mkdir()
    with Scrapyd(folder, free_port(), environment(mock, None)) as scrapyd:
        cfg = (PROJECT / "scrapy.cfg").read_text().replace("http://127.0.0.1:6800/", scrapyd.url)
        (project / "scrapy.cfg").write_text(cfg)
        deploy(project, "--egg", str(egg), "--version", "1.0")
        log = scrapyd.finish(scrapyd.schedule("BULK_PAGE_SIZE=2000"))
        assert f"complete: proved against the API's total ({EVENTS:,})" in log
    with ensure_running(folder / ".datasync") as server:
        assert_equals_truth(Database(server.conninfo("datasync")), truths(1, 0, EVENTS))
    if server.home.parent == STATE_DIR:
        shutil.rmtree(server.home)


def test_a_killed_job_and_jobs_scheduled_twice_end_complete(
    scrapyd: Scrapyd, mock: MockServer, database: Database
) -> None:
    """After kill -9 two jobs at once: the one completes, the other waits its turn and finds it."""
    killed = scrapyd.schedule("BULK_PAGE_SIZE=500")
    in_mid_crawl(scrapyd, database, killed, 5)
    fields = (("project", "datasync_crawler"), ("job", killed), ("signal", "KILL"))
    scrapyd.post("cancel.json", *fields)
    jobs = [scrapyd.schedule("BULK_PAGE_SIZE=500") for _ in range(2)]
    for job in jobs:
        assert "complete: proved" in scrapyd.finish(job)
    assert "run: new               0\n" in scrapyd.log(jobs[1])
    assert_equals_truth(database, truths(1, 0, EVENTS))
    assert mock.stats()["by_status"].keys() == {"200"}


def test_a_secret_is_refused_and_nobody_comes_in_without_the_password(
    scrapyd: Scrapyd, mock: MockServer, database: Database, tmp_path: Path
) -> None:
    """A secret in a setting or in an argument, which are equally public: the job ends before its
    first request, with exit status 2 and a sentence in its log. A wrong password gets 401; without
    one set, Scrapyd isn't even started.
    """
    canary = "canary-in-public"
    settings = (
        f"API_KEY={canary}", f"DB_PASSWORD={canary}",
        f"DATABASE_URL=postgresql://somebody:{canary}@127.0.0.1/datasync",
    )  # fmt: skip
    jobs = {setting: scrapyd.schedule(setting) for setting in settings}
    jobs |= {"API_KEY=": scrapyd.schedule(API_KEY=canary)}
    for setting, job in jobs.items():
        log = scrapyd.finish(job)
        assert f"{setting.partition('=')[0]} was passed through Scrapyd's schedule.json" in log
        assert "Traceback" not in log
        assert canary not in log
        assert re.search(rf"Process died: exitstatus=2 .*{job}", scrapyd.output())
    assert mock.stats()["requests"] == 0
    assert database.value("SELECT to_regclass('events')") is None

    assert scrapyd.refuses("wrong") == 401
    env = {**scrapyd.environment, "SCRAPYD_PASSWORD": ""}
    script = ["sh", str(PROJECT / "deploy" / "scrapyd.sh")]
    done = subprocess.run(script, cwd=tmp_path, env=env, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"datasync-crawler: SCRAPYD_PASSWORD isn't set.")


def test_the_key_is_nowhere_in_scrapyds_folder(scrapyd: Scrapyd, database: Database) -> None:
    """Logs, queue, job storage, eggs, JOBDIRs: none of them holds the key or the password."""
    scrapyd.finish(scrapyd.schedule())
    secrets = [CANARY, PASSWORD, database.params.get("password") or CANARY]
    for file in scrapyd.folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], file
