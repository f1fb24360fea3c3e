"""The dashboard as programs see it: who may ask, what is never said, metrics, health."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time

import pytest
from crawling import PROJECT, crawl, environment
from dashboards import DashboardServer, ask, first_events
from databases import Database
from mockserver import MockServer
from prometheus_client.parser import text_string_to_metric_families
from proxy import CuttingProxy

PATHS = ("", "page.js", "plots.js", "page.css", "events", "metrics", "healthz")


def samples(text: str) -> dict[str, float]:
    """Metrics' samples by name and labels."""
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())):
            sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }  # fmt: skip


def test_metrics_are_the_databases_figures(database: Database) -> None:
    """What Prometheus would read equals what the tables and the crawl's summary say."""
    with MockServer("--events", "3000", "--fault", "bad-events:each=500") as mock:
        assert crawl(mock, database, "-s", "BULK_PAGE_SIZE=250").status == 0
    with DashboardServer(database) as dashboard:
        status, headers, text = ask(f"{dashboard.url}metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
        found = samples(text)
        stored = database.value("SELECT count(*) FROM events")
        rejected = database.value("SELECT count(*) FROM rejected_events")
        assert rejected > 0
        assert found["datasync_events_stored_total"] == stored
        assert found["datasync_ledger_stored_events"] == stored
        assert found["datasync_events_rejected_total"] == rejected
        assert found["datasync_events_received_total"] == 3000
        assert found["datasync_offsets_done"] == 3000
        assert found["datasync_source_events"] == 3000
        assert found["datasync_run_phase phase=complete"] == 1
        assert found["datasync_responses_total status=200"] >= 12
        assert found["datasync_response_latency_seconds_bucket le=+Inf"] >= 12
        assert found["datasync_commit_duration_seconds_count"] >= 1
        assert ask(f"{dashboard.url}healthz")[::2] == (200, '{"status": "ok"}')


def test_an_empty_database_is_no_error(database: Database) -> None:
    """Before the first crawl there is a page, health is ok and the metrics say that it's up."""
    with DashboardServer(database) as dashboard:
        assert first_events(f"{dashboard.url}events")["run"] == "null"
        assert ask(f"{dashboard.url}healthz")[0] == 200
        assert samples(ask(f"{dashboard.url}metrics")[2]) == {"datasync_database_up": 1.0}
        assert database.execute("SELECT 1 FROM pg_tables WHERE tablename = 'crawl_runs'") == []


def test_no_database_is_said_without_its_password() -> None:
    """Nobody listens there: the page is served all the same, health is 503, nothing is let out."""
    nowhere = Database({"host": "127.0.0.1", "port": "1", "dbname": "x", "user": "u",
                        "password": "s3cret-in-dsn"})  # fmt: skip
    with DashboardServer(nowhere) as dashboard:
        assert ask(dashboard.url)[0] == 200
        status, _, text = ask(f"{dashboard.url}healthz")
        assert (status, json.loads(text)) == (503, {"status": "database away"})
        assert json.loads(first_events(f"{dashboard.url}events")["health"])["away_s"] >= 0
        assert samples(ask(f"{dashboard.url}metrics")[2]) == {"datasync_database_up": 0.0}


def test_a_database_that_hangs_counts_as_away(database: Database) -> None:
    """Connected, and no answer comes: health and metrics say so, and SIGTERM still ends it."""
    with CuttingProxy(database.params["host"], int(database.params["port"])) as proxy:
        through = Database({**database.params, "host": "127.0.0.1", "port": str(proxy.port)})
        with DashboardServer(through) as dashboard:
            assert ask(f"{dashboard.url}healthz")[0] == 200
            proxy.hang()
            until = time.monotonic() + 30
            while ask(f"{dashboard.url}healthz")[0] == 200:
                assert time.monotonic() < until, "a database that hangs was called healthy"
            assert samples(ask(f"{dashboard.url}metrics")[2])["datasync_database_up"] == 0
            dashboard.process.terminate()
            assert dashboard.process.wait(10) == 0


def test_a_role_without_rights_is_said(database: Database) -> None:
    """Who may connect and not read isn't told that the database is away: a sentence, exit 2."""
    with MockServer("--events", "10") as mock:
        assert crawl(mock, database).status == 0
    role = f"{database.params['dbname']}_reader"
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    try:
        poor = Database({**database.params, "user": role, "password": "p"})
        done = subprocess.run(
            [sys.executable, "-m", "scrapy", "dashboard", "-s", "DASHBOARD_PORT=0"],
            cwd=PROJECT, env=environment(None, poor), check=False,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    finally:
        database.execute(f"DROP ROLE {role}")
    assert done.returncode == 2
    assert "permission denied for table crawl_runs" in done.stderr


def test_neither_key_nor_password_is_anywhere(database: Database) -> None:
    """Page, files, events, metrics and the tables behind them hold no secret."""
    key, password = "k3y-0f-the-api", database.params.get("password") or "no-password"
    with MockServer("--events", "900", key=key) as mock:
        assert crawl(mock, database, "-s", "BULK_PAGE_SIZE=250").status == 0
    with DashboardServer(database, DASHBOARD_PASSWORD="p4ge") as dashboard:
        login = {"Authorization": "Basic " + base64.b64encode(b"me:p4ge").decode()}
        said = [ask(dashboard.url + path, **login)[2] for path in PATHS if path != "events"]
    with DashboardServer(database) as dashboard:
        said.append(str(first_events(f"{dashboard.url}events")))
    said.append(str(database.execute("SELECT stats FROM crawl_runs")))
    said.append(str(database.execute("SELECT figures FROM crawl_samples")))
    for text in said:
        assert text
        assert not any(secret in text for secret in (key, password, "p4ge", "postgresql://"))


def test_the_password_is_asked_for(database: Database) -> None:
    """Without it, or with a wrong one: 401 everywhere but /healthz. Any user name will do."""
    with DashboardServer(database, DASHBOARD_PASSWORD="sésame:1") as dashboard:
        right = base64.b64encode("anna:sésame:1".encode()).decode()
        wrong = base64.b64encode(b"anna:sesame").decode()
        for path in PATHS:
            status, headers, _ = ask(dashboard.url + path)
            assert status == (200 if path == "healthz" else 401)
            assert path == "healthz" or "Basic" in headers["WWW-Authenticate"]
        for header in (f"Basic {wrong}", "Basic ?", "Bearer x", f"Digest {right}"):
            assert ask(dashboard.url, Authorization=header)[0] == 401
        assert ask(dashboard.url, Authorization=f"Basic {right}")[0] == 200
        assert ask(dashboard.url, Authorization=f"basic {right}", Host="a.example")[0] == 200


def test_a_foreign_name_is_refused(database: Database) -> None:
    """A web site whose name was rebound to 127.0.0.1 reads nothing."""
    with DashboardServer(database) as dashboard:
        for path in PATHS[:-1]:
            assert ask(dashboard.url + path, Host="evil.example:8765")[0] == 421
        for name in ("localhost", "127.0.0.1:1", "[::1]:8765"):
            assert ask(dashboard.url, Host=name)[0] == 200


def test_nothing_can_be_written(database: Database) -> None:
    """Every path answers 405 to whatever isn't a reading; headers are strict even then."""
    with DashboardServer(database) as dashboard:
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            for path in PATHS:
                status, headers, _ = ask(dashboard.url + path, method)
                assert status == 405
                assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert ask(f"{dashboard.url}events", "HEAD")[0] == 405
        assert ask(f"{dashboard.url}../../settings.py")[0] == 404
        assert ask(f"{dashboard.url}events?run=1;drop")[0] == 400


@pytest.mark.parametrize(
    ("command", "settings", "sentence"),
    [
        ("dashboard", {"DASHBOARD_HOST": "0.0.0.0"}, "set DASHBOARD_PASSWORD"),
        ("crawl events", {"DASHBOARD_HOST": "0.0.0.0"}, "set DASHBOARD_PASSWORD"),
        ("dashboard", {"DASHBOARD_HOST": "::"}, "set DASHBOARD_PASSWORD"),
        ("dashboard", {"DASHBOARD_HOST": "a b"}, "DASHBOARD_HOST is 'a b'"),
        (
            "crawl events",
            {"DASHBOARD_HOST": "a..b", "DASHBOARD_PASSWORD": "p"},
            "DASHBOARD_HOST is 'a..b'",
        ),
        ("crawl events", {"DASHBOARD_PORT": "70000"}, "DASHBOARD_PORT is '70000'"),
    ],
)
def test_an_open_page_is_refused(command: str, settings: dict[str, str], sentence: str) -> None:
    """On another address a password is needed: a sentence, exit 2, nothing listens."""
    settings = {"API_BASE_URL": "http://127.0.0.1:1", "API_KEY": "k", "DASHBOARD_PORT": "0",
                **settings}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "scrapy", *command.split()],
        cwd=PROJECT, env={**environment(None, None), **settings}, check=False,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_refuses_is_said_at_the_start(database: Database) -> None:
    """A wrong name ends the command with a sentence and exit 2: waiting wouldn't mend it."""
    wrong = Database({**database.params, "dbname": "there_is_none"})
    done = subprocess.run(
        [sys.executable, "-m", "scrapy", "dashboard", "-s", "DASHBOARD_PORT=0"],
        cwd=PROJECT, env=environment(None, wrong), check=False,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "The database can't be used" in done.stderr
    assert "there_is_none" in done.stderr
    assert database.params.get("password", "no-password") not in done.stderr + done.stdout
