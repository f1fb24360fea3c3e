"""The live page in a real browser: during a crawl, a pause, after kill -9, without its database."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from typing import TYPE_CHECKING, Self

import pytest
from browser import Browser
from crawling import crawl, start_crawl
from dashboards import DashboardServer
from databases import Database
from mockserver import MockServer
from ports import free_port

from datasync_crawler.local_postgres.embedded import ensure_running
from datasync_crawler.store import local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests here."""
    opened = Browser()
    yield opened
    opened.close()


class Running:
    """A crawl under way, whose log is read as it comes; ended with the test."""

    def __init__(self, mock: MockServer, database: Database, *args: str) -> None:
        self.process = start_crawl(mock, database, *args)
        self.lines: list[str] = []
        self._address = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if "The live page: " in line:
                self._address.set()
        self._address.set()

    @property
    def page(self) -> str:
        assert self._address.wait(30)
        return next(
            line.split("The live page: ")[1].strip()
            for line in self.lines
            if "The live page: " in line
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


def covered(database: Database) -> int:
    """Events that the ledger holds as received; no test here fetches a range twice."""
    return int(database.value("SELECT coalesce(sum(received), 0) FROM checkpoint"))


def events(count: int) -> str:
    return f"{count:,}"


LIMITED = ("--events", "3000", "--rate-limit", "4", "--rate-window", "6")


def test_the_page_follows_a_crawl_through_pauses_to_its_end(
    database: Database, browser: Browser
) -> None:
    """Served by the crawl itself: the figures are the ledger's, the pause and the end are said."""
    with (
        MockServer(*LIMITED) as mock,
        Running(mock, database, "-s", "BULK_PAGE_SIZE=250", "-s", "DASHBOARD_PORT=0") as running,
    ):
        browser.open(running.page)
        browser.wait(lambda: "next window in" in browser.text("window"), "no wait was shown")
        assert browser.text("phase").startswith("Filling")
        assert browser.text("total") == "3,000"
        browser.wait(
            lambda: browser.text("done") == events(covered(database)),
            "the page never showed what the ledger holds",
        )
        assert browser.text("quota").endswith(" of 4 left")
        assert re.fullmatch(r"next window in \d+ s", browser.text("window"))
        browser.wait_text("phase", "Up to date, just now")
        assert browser.text("done") == "3,000"
        assert browser.text("percent") == "100 %"
        assert "3,000 new events" in browser.text("pace")
        browser.wait(
            lambda: "process has ended" in browser.text("notice"),
            "the page didn't say that its server has gone",
        )
        assert "Complete: proved against the API's total (3,000)" in browser.text("notice")
        assert running.process.wait(30) == 0


def test_a_killed_crawl_is_called_crashed_and_its_successor_followed(
    database: Database, browser: Browser
) -> None:
    """After kill -9: no heartbeat, what the ledger holds; the next run is shown by itself."""
    with DashboardServer(database) as dashboard, MockServer(*LIMITED) as mock:
        browser.open(dashboard.url)
        browser.wait_text("phase", "Nothing here yet")
        assert "sh run-ingestion.sh" in browser.text("invitation")
        with Running(mock, database, "-s", "BULK_PAGE_SIZE=250") as running:
            browser.wait(lambda: browser.text("done") not in {"–", "0"}, "no progress was shown")
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
        browser.wait_text("phase", "Needs you: the crawl has crashed")
        assert "No heartbeat for" in browser.text("notice")
        assert browser.text("done") == events(covered(database))
        assert "crashed: no heartbeat" in browser.text("runs")
        mock.config(rate_limit=None)
        assert crawl(mock, database, "-s", "BULK_PAGE_SIZE=250").status == 0
        browser.wait_text("phase", "Up to date, just now")
        assert browser.text("done") == "3,000"
        browser.wait(lambda: "complete" in browser.text("runs"), "the list of runs stayed behind")
        browser.open(f"{dashboard.url}?run=1")
        browser.wait_text("phase", "Run 1. Needs you: the crawl has crashed")
        marked = "return document.querySelector('tr[aria-current]')?.textContent"
        browser.wait(lambda: "crashed" in (browser.script(marked) or ""), "run 1 isn't marked")
        assert browser.complaints() == []


def test_of_several_processes_each_is_told(database: Database, browser: Browser) -> None:
    """What one of them has leased is no gap; one that dies doesn't make the crawl a crashed one."""
    few = ("-s", "BULK_PAGE_SIZE=100", "-s", "WORKERS=2")
    with (
        MockServer("--events", "60000", "--latency-ms", "500") as mock,
        DashboardServer(database) as dashboard,
        Running(mock, database, *few),
        Running(mock, database, *few) as other,
    ):
        browser.open(dashboard.url)
        browser.wait_text("processes", "2")
        browser.wait(lambda: "leased by a process" in browser.text("legend"), "no lease is shown")
        assert "gap" not in browser.text("legend")
        other.process.kill()
        browser.wait(lambda: "1 without a heartbeat" in browser.text("hosts"), "nobody died")
        assert "dead for" in browser.text("processes-table")
        browser.wait(lambda: browser.text("phase").startswith("Filling"), "it isn't going on")


def test_a_stopped_database_is_said_and_waited_for(browser: Browser, tmp_path: Path) -> None:
    """The page says that the database is away, keeps the figures, and goes on when it is back."""
    port = free_port()
    server = ensure_running(tmp_path / "own", port=port)
    local.ensure_database(server, "own")
    database = Database(server.conninfo("own"))
    try:
        with DashboardServer(database) as dashboard, MockServer("--events", "900") as mock:
            assert crawl(mock, database).status == 0
            browser.open(dashboard.url)
            browser.wait_text("phase", "Up to date, just now")
            server.release()  # its last user: the server stops
            browser.wait_text("phase", "Database away")
            assert "The database is away" in browser.text("notice")
            assert browser.text("done") == "900"
            server = ensure_running(tmp_path / "own", port=port)
            browser.wait_text("phase", "Up to date, just now")
            mock.config(events=1200)
            assert crawl(mock, database).status == 0
            browser.wait_text("done", "1,200")
    finally:
        server.release()


def test_an_api_that_cant_be_reached_is_waited_for(database: Database, browser: Browser) -> None:
    """While it is tried again the page says so, in its head, in the tab and by its icon."""
    url = f"http://127.0.0.1:{free_port()}/api/v1"
    env = {"API_BASE_URL": url, "API_KEY": "k"}
    process = start_crawl(None, database, "-s", "RETRY_BACKOFF_BASE=30", env=env)
    try:
        with DashboardServer(database) as dashboard:
            browser.open(dashboard.url)
            browser.wait_text("phase", "Waiting for the API")
            assert "Can't reach 127.0.0.1" in browser.text("notice")
            assert "Waiting for the API" in browser.driver.title
            icon = browser.script("return document.getElementById('icon').getAttribute('href')")
            assert icon == "icon-wait.svg"
    finally:
        process.terminate()
        process.communicate()


def test_a_role_without_the_events_sees_all_else(database: Database, browser: Browser) -> None:
    """What it may not read is named where it would stand; without the ledger the head says so."""
    name = f"watcher_{os.getpid()}"
    with MockServer("--events", "900") as mock:
        assert crawl(mock, database).status == 0
    database.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'w'; GRANT USAGE ON SCHEMA public TO {name}; "
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}; "
        f"REVOKE SELECT ON events FROM {name}"
    )
    watched = Database({**database.params, "user": name, "password": "w"})
    try:
        with DashboardServer(watched) as dashboard:
            browser.open(dashboard.url)
            browser.wait_text("phase", "Up to date, just now")
            assert browser.text("done") == "900"
            browser.wait(
                lambda: "permission denied for table events" in browser.text("sizes"),
                "it isn't said that events can't be read",
            )
            database.execute(f"REVOKE SELECT ON crawl_runs FROM {name}")
            browser.wait_text("phase", "Needs you: the database refused")
    finally:
        database.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


HOSTILE = '<script>window.pwned = 1</script><img src="x" onerror="window.pwned = 1">'


def test_markup_in_an_event_stays_text(
    database: Database, browser: Browser, tmp_path: Path
) -> None:
    """A script in a rejected event is shown as it is, and doesn't run."""
    page = {"data": [
        {"id": None, "name": HOSTILE, "timestamp": HOSTILE},
        {"id": "a", "name": HOSTILE, "timestamp": "2026-01-01T00:00:00Z"},
    ]}  # fmt: skip
    (tmp_path / "page.json").write_text(json.dumps(page))
    with (
        MockServer("--replay", str(tmp_path / "page.json")) as mock,
        DashboardServer(database) as dashboard,
    ):
        assert crawl(mock, database, "-s", "MAX_REJECTED=1").status == 0
        browser.open(dashboard.url)
        browser.wait(lambda: "window.pwned" in browser.text("rejections"), "not shown at all")
        assert HOSTILE.replace('"', '\\"') in browser.text("rejections")
        assert browser.script("return window.pwned") is None
        assert browser.script("return document.querySelectorAll('script').length") == 3
        assert browser.script("return document.querySelectorAll('img').length") == 0
        assert browser.complaints() == []


@pytest.fixture(scope="module")
def eventful(server: object) -> Iterator[DashboardServer]:
    """A finished crawl with all there is to show: pauses, rejections, failures, two runs."""
    name = f"test_page_{os.getpid()}"
    server.execute(f"CREATE DATABASE {name}")  # type: ignore[attr-defined]
    database = Database({**server.params, "dbname": name})  # type: ignore[attr-defined]
    faults = ("--fault", "503", "--fault", "bad-events:each=300")
    with MockServer("--events", "4000", *faults) as mock, DashboardServer(database) as dashboard:
        for _ in range(2):
            assert crawl(mock, database, "-s", "BULK_PAGE_SIZE=250").status == 0
        yield dashboard
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [1200, 390, 320])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_accessible(
    eventful: DashboardServer, browser: Browser, width: int, *, dark: bool
) -> None:
    """axe-core finds no fault with contrast, labels and structure, all tables open; it fits."""
    browser.open(f"{eventful.url}?run=1", width=width, dark=dark)
    browser.wait(lambda: browser.script("return document.querySelector('.uplot')"), "no plot")
    browser.script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.violations() == []
    # Not innerWidth, which grows with what doesn't fit on a phone.
    assert browser.script("return document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []


SHIFT = """window.shift = 0; new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shift += entry.value;
}).observe({type: "layout-shift", buffered: true});"""


@pytest.mark.parametrize("width", [390, 1400, 1920])
def test_nothing_moves_when_the_figures_come(
    eventful: DashboardServer, browser: Browser, width: int
) -> None:
    """The cumulative layout shift of opening the page is below 0.05 (0.1 counts as good)."""
    browser.open(eventful.url, width=width)
    browser.wait(lambda: browser.script("return document.querySelector('#types td')"), "no table")
    browser.script(SHIFT)
    browser.wait(lambda: "The last 2" in browser.text("following"), "no runs")
    assert browser.script("return window.shift") < 0.05


def test_a_run_that_isnt_there_is_said(eventful: DashboardServer, browser: Browser) -> None:
    """Not that nothing was crawled, nor that the server is away; a word is no run: the newest."""
    browser.open(f"{eventful.url}?run=99")
    browser.wait(lambda: "There is no run 99" in browser.text("notice"), "it isn't shown")
    assert "No crawl has written" not in browser.text("notice")
    browser.open(f"{eventful.url}?run=last")
    browser.wait(lambda: "The last 2" in browser.text("following"), "not the newest run")
    browser.wait_text("phase", "Up to date, just now")


def test_everything_comes_from_this_server_and_by_keyboard(
    eventful: DashboardServer, browser: Browser
) -> None:
    """No request leaves for another host; Tab finds the skip link, the tables and the runs."""
    browser.open(f"{eventful.url}?run=1")
    browser.wait(lambda: browser.script("return document.querySelector('.uplot')"), "no plot")
    asked = browser.script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert asked
    assert all(name.startswith(eventful.url) for name in asked), asked
    reached = set()
    browser.script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for _ in range(60):
        browser.driver.execute_cdp_cmd(
            "Input.dispatchKeyEvent", {"type": "keyDown", "key": "Tab", "code": "Tab",
                                       "windowsVirtualKeyCode": 9}
        )  # fmt: skip
        reached.add(browser.script("return document.activeElement.textContent"))
    assert {"Skip to the figures", "As a table", "Gaps and ranges as a table", "1"} <= reached


def test_a_taken_port_costs_the_page_not_the_crawl(database: Database) -> None:
    """The extension warns and says what to set; the crawl is complete."""
    with DashboardServer(database) as dashboard, MockServer("--events", "500") as mock:
        port = dashboard.url.rsplit(":", 1)[1].strip("/")
        done = crawl(mock, database, "-s", f"DASHBOARD_PORT={port}")
    assert done.status == 0, done.log
    assert "set DASHBOARD_PORT to a free port" in done.log


def test_the_command_ends_at_once_when_told(database: Database, browser: Browser) -> None:
    """With a reader connected, SIGTERM ends it within seconds, status 0; the page says so."""
    with DashboardServer(database) as dashboard:
        browser.open(dashboard.url)
        browser.wait_text("phase", "Nothing here yet")
        assert "sh run-ingestion.sh" in browser.text("invitation")
        dashboard.process.terminate()
        assert dashboard.process.wait(10) == 0
        browser.wait_text("phase", "Not connected")
