"""``scrapy psql`` against a real server: the right database and schema, no password in sight."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from datasync_crawler.commands import psql
from datasync_crawler.local_postgres.embedded import ensure_running
from datasync_crawler.local_postgres.home import STATE_DIR
from datasync_crawler.store import local

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def server(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ensure_running(tmp_path / "data", port=port) as running:
        yield running
    if running.home.parent == STATE_DIR:
        shutil.rmtree(running.home)


def scrapy_psql(settings, *arguments):
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "scrapy", "psql", *arguments],
        cwd=PROJECT,
        env=environment | settings,
        capture_output=True,
        text=True,
        check=False,
    )


def test_url_with_odd_schema(server):
    """DATABASE_URL and DB_SCHEMA reach psql whatever characters they hold."""
    name = "it's a \\ base"
    local.ensure_database(server, name)
    url = f"postgresql://datasync:{server.password}@127.0.0.1:{server.port}/{quote(name)}"
    settings = {"DATABASE_URL": url, "DB_SCHEMA": 'a "b\\ c'}
    done = scrapy_psql(
        settings, "-XAt", "-c", "SELECT current_database()", "-c", "SHOW search_path"
    )
    assert (done.stdout, done.stderr) == ('it\'s a \\ base\n"a ""b\\ c"\n', "")


def test_its_exit_status_is_psqls(server):
    """A statement that fails gives psql's own status."""
    url = f"postgresql://datasync:{server.password}@127.0.0.1:{server.port}/postgres"
    assert scrapy_psql({"DATABASE_URL": url}, "-X", "-c", "SELECT nonsense").returncode == 1


def test_malformed_url_is_said():
    """A DATABASE_URL that can't be read: exit 2, one sentence, nothing of it echoed."""
    done = scrapy_psql({"DATABASE_URL": "postgresql://u:canary@[bad"})
    assert done.returncode == 2
    assert done.stderr.startswith("datasync-crawler: DATABASE_URL can't be read.")
    assert "canary" not in done.stderr


def test_secrets_stay_off_the_command_line(monkeypatch):
    """The password goes by the environment; every other keyword is quoted for libpq."""
    monkeypatch.setenv("PGPASSWORD", "another")
    params = {"host": "h", "user": "it's\\", "password": "canary", "sslpassword": "canary"}
    params |= {"sslmode": "verify-full", "dbname": "d"}
    command, environment = psql.psql_call("/bin/psql", params, "public")
    assert command == [
        "/bin/psql",
        "--dbname",
        "host='h' user='it\\'s\\\\' sslmode='verify-full' dbname='d'",
    ]
    assert environment["PGPASSWORD"] == "canary"
    # pg_dump, which psql starts for a backup, connects in the same way.
    assert (environment["PGSSLMODE"], environment["PGDATABASE"]) == ("verify-full", "d")
