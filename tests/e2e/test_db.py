"""`scrapy db url` and `scrapy db serve`: other programs get to the database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import pytest
from crawling import PROJECT, crawl, environment
from mockserver import MockServer
from psycopg2.extensions import parse_dsn
from test_verify import SETTINGS, scrapy

from datasync_crawler.commands.db import postgres_url

if TYPE_CHECKING:
    from pathlib import Path

    from databases import Database


@pytest.mark.parametrize(
    "params",
    [
        {"host": "db.example.com", "dbname": "datasync"},
        {"host": "::1", "port": "5433", "user": "a b", "password": "p@ss/w:rd%", "dbname": "x/y"},
        {"host": "/var/run/postgresql", "user": "datasync", "dbname": "datasync"},
        {"host": "a,b", "port": "1,2", "dbname": "d", "options": "-c search_path=x"},
        {"service": "events"},
    ],
)  # fmt: skip
def test_a_url_says_what_the_keywords_say(params: dict[str, str]) -> None:
    """Libpq reads it back as it was, whatever the password holds."""
    assert parse_dsn(postgres_url(params)) == params


def test_the_url_of_a_server_leads_there(database: Database) -> None:
    """One line, usable as it is; there is nothing to serve, which is said."""
    with MockServer("--events", "500") as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
    done = scrapy(None, database, "db", "url")
    assert done.status == 0, done.log
    with closing(psycopg2.connect(done.log.strip())) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM events")
        assert cursor.fetchone() == (500,)
    serve = scrapy(None, database, "db", "serve")
    assert serve.status == 2
    assert "a server is configured" in serve.log
    assert scrapy(None, database, "db", "drop").status == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_embedded_server_runs_while_it_is_served(tmp_path: Path, number: int) -> None:
    """Reachable at its URL until the signal; then it has ended, with 0."""
    env = {**environment(None, None), "DATA_DIR": str(tmp_path / "data"), "DB_NAME": "kept",
           "API_BASE_URL": "http://127.0.0.1:9/api/v1"}  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "scrapy", "db", "serve"],
        cwd=PROJECT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert "until Ctrl-C" in process.stdout.readline()
    with closing(psycopg2.connect(url)) as connection:
        assert connection.info.dbname == "kept"
    asked = subprocess.run(
        [sys.executable, "-m", "scrapy", "db", "url"],
        cwd=PROJECT, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert asked.stdout.strip() == url
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(url)
