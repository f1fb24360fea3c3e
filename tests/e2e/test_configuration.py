"""What a user gets for a wrong setting: an exit status, one clear sentence, and no secret."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from crawling import PROJECT, Crawled, crawl, environment, pages_fetched, start_crawl
from mockserver import MockServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from databases import Database

CANARY = "kanarienvogel"
ADDRESS = "http://127.0.0.1:1/api/v1"


def assert_says(done: Crawled, status: int, *words: str) -> None:
    """The status, the words in one line of the output, no traceback and no secret."""
    assert done.status == status, done.log
    assert "Traceback" not in done.log, done.log
    assert CANARY not in done.log, done.log
    lines = [line for line in done.log.splitlines() if all(word in line for word in words)]
    assert lines, f"{words} aren't said together:\n{done.log}"


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"API_BASE_URL": "", "API_KEY": CANARY}, ("API_BASE_URL isn't set", "/api/v1", ".env")),
        ({"API_BASE_URL": ADDRESS, "API_KEY": ""}, ("API_KEY isn't set", "API_KEY_FILE")),
        ({"API_BASE_URL": "127.0.0.1/api/v1"}, ("API_BASE_URL is '127.0.0.1/api/v1'", "http://")),
        ({"API_BASE_URL": f"http://u:{CANARY}@h/v1"}, ("API_BASE_URL holds a user", "take it out")),
        ({"PAGINATION": "random"}, ("PAGINATION is 'random'", "auto, offset, page, cursor")),
        ({"BULK_PAGE_SIZE": "many"}, ("BULK_PAGE_SIZE is 'many'", "between 1 and 1000000")),
        ({"DATABASE_URL": f"postgresql://u:x/{CANARY}@h/d"}, ("DATABASE_URL can't be read",)),
        ({"API_KEY": "", "API_KEY_FILE": CANARY}, ("API_KEY_FILE names a file", "No such file")),
    ],
    ids=["no address", "no key", "no scheme", "password in the address", "pagination", "page size",
         "database url", "key file"],
)  # fmt: skip
def test_a_wrong_setting_ends_with_2(env: Mapping[str, str], words: tuple[str, ...]) -> None:
    """Before any request: exit 2 and a sentence, alone, that names the setting and the way out."""
    done = crawl(None, None, env={"API_BASE_URL": ADDRESS, "API_KEY": CANARY, **env})
    assert_says(done, 2, "datasync-crawler: ", *words)
    assert len(done.log.splitlines()) == 1, done.log


@pytest.mark.parametrize(
    ("mode", "text", "is_told"),
    [
        (0o644, f"API_KEY={CANARY}", True),
        (0o640, f"# mine\nexport DB_PASSWORD='{CANARY}'", True),
        (0o600, f"API_KEY={CANARY}", False),
        (0o644, "API_KEY=\nWORKERS=2", False),
    ],
)
def test_a_secret_that_others_can_read_is_told(
    tmp_path: Path, mode: int, text: str, *, is_told: bool
) -> None:
    """Of .env, at a crawl's start: how it stands, and what to run."""
    (tmp_path / "scrapy.cfg").write_text("[settings]\ndefault = datasync_crawler.settings\n")
    file = tmp_path / ".env"
    file.write_text(text)
    file.chmod(mode)
    done = subprocess.run(
        [sys.executable, "-m", "scrapy", "crawl", "events"],
        cwd=tmp_path,
        env={**environment(None, None), "PYTHONPATH": str(PROJECT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (f"run chmod 600 {file}" in done.stderr) == is_told, done.stderr
    assert_says(Crawled(done.returncode, done.stderr), 2, "API_BASE_URL isn't set")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-s", "JOBDIR=/dev/null"], ("JOBDIR is '/dev/null'", "Set it to a folder")),
        (["-O", "x.xml"], ("format 'xml'", "-O events.jsonl")),
        (["-O", f"ftp://u:{CANARY}@h/x.xml"], ("ftp://u:***@h/x.xml has the", "-O events.jsonl")),
        (
            ["-O", "x.csv", "-s", "FEED_EXPORT_FIELDS=id,colour"],
            ("the unknown field 'colour'", "id, session_id"),
        ),
        (["-O", "x.csv", "-s", "FEED_EXPORT_ENCODING=latin-1"], ("'latin-1'", "are always UTF-8")),
        (["-O", "x.jsonl", "-s", "FEED_EXPORT_INDENT=2"], ("an indent", "one event per line")),
        (["-s", "DOWNLOAD_DELAY=2"], ("DOWNLOAD_DELAY is set", "RATE_LIMIT", "WORKERS=1")),
        (["-a", "parse=1"], ("no argument 'parse'", "-s NAME=value")),
        (["-a", f"API_KEY={CANARY}"], ("no argument 'API_KEY'", "-s NAME=value")),
        (["-s", "HEARTBEAT_INTERVAL=0"], ("HEARTBEAT_INTERVAL is '0'", "more than 0")),
    ],
)
def test_a_wrong_option_ends_with_2(args: list[str], words: tuple[str, ...]) -> None:
    """Scrapy's own options get the same answer where they can't work."""
    done = crawl(None, None, *args, env={"API_BASE_URL": ADDRESS, "API_KEY": CANARY})
    assert_says(done, 2, "datasync-crawler: ", *words)
    assert len(done.log.splitlines()) == 1, done.log


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("CONCURRENT_REQUESTS=many", "CONCURRENT_REQUESTS is 'many': set it to a number"),
        ("DOWNLOAD_TIMEOUT=2 min", "DOWNLOAD_TIMEOUT is '2 min': set it to a number"),
        ("LOG_ENABLED=perhaps", "LOG_ENABLED is 'perhaps': set it to True or False"),
        ("LOG_FILE=/dev/null/x", "LOG_FILE is '/dev/null/x', which can't be written"),
    ],
)
def test_a_wrong_value_for_scrapy_ends_with_2(setting: str, words: str) -> None:
    """Scrapy itself would end with a traceback and 1."""
    done = crawl(None, None, "-s", setting, env={"API_BASE_URL": ADDRESS, "API_KEY": CANARY})
    assert_says(done, 2, words)


def test_a_key_may_end_with_an_equals_sign(database: Database) -> None:
    """Base64 does; an empty `-s` value is an unset one, this isn't."""
    with MockServer("--events", "10", key="a2V5==") as mock:
        done = crawl(
            mock, database, "-s", "API_KEY=a2V5==", "-s", "WORKERS=", env={"API_KEY": CANARY}
        )
    assert_says(done, 0, "complete: proved")
    assert "a2V5==" not in done.log


def test_an_unknown_database_is_refused(database: Database) -> None:
    """The server answers no: exit 2, and which database it was."""
    done = crawl(
        None, database, env={"API_BASE_URL": ADDRESS, "API_KEY": CANARY, "DB_NAME": "nosuch"}
    )
    params = database.params
    make = f"createdb -h {params['host']} -p {params['port']} -U {params['user']} nosuch, if its"
    assert_says(
        done, 2, "NOT complete", 'database "nosuch" does not exist', make, "Check DATABASE_URL"
    )
    assert done.log.count("nosuch, if its name is right") == 1  # told once


def test_a_wrong_password_is_refused_and_not_echoed(database: Database) -> None:
    """Neither the password of DB_PASSWORD nor that of a DATABASE_URL comes back."""
    where = database.environment
    url = (
        f"postgresql://{where['DB_USER']}:{CANARY}@{where['DB_HOST']}:{where['DB_PORT']}"
        f"/{where['DB_NAME']}"
    )
    for env in ({"DB_PASSWORD": CANARY}, {"DATABASE_URL": url}):
        done = crawl(None, database, env={"API_BASE_URL": ADDRESS, "API_KEY": CANARY, **env})
        assert_says(done, 2, "NOT complete", "password authentication failed", "DB_PASSWORD")


def test_an_unreachable_database_ends_with_1() -> None:
    """Nobody there: not a matter of configuration for sure, so 1, with where it was looked for."""
    env = {
        "API_BASE_URL": ADDRESS,
        "API_KEY": CANARY,
        "DATABASE_URL": f"postgresql://u:{CANARY}@127.0.0.1:1/d",
    }
    done = crawl(None, None, env=env)
    assert_says(done, 1, "NOT complete", "Connection refused", "host=127.0.0.1", "the server runs")


def test_a_log_of_warnings_alone_says_that_it_isnt_complete() -> None:
    """LOG_LEVEL=WARNING, as cron likes it: the last word of an incomplete crawl is there."""
    url = "postgresql://u@127.0.0.1:1/d"
    env = {"API_BASE_URL": ADDRESS, "API_KEY": CANARY, "DATABASE_URL": url}
    done = crawl(None, None, "-L", "WARNING", env=env)
    assert_says(done, 1, "WARNING: NOT complete", "the server runs")


def test_a_wrong_key_ends_with_1_and_names_the_setting(database: Database) -> None:
    """401: the crawl stops at once, says which setting to change, and keeps the key to itself."""
    with MockServer("--events", "10") as mock:
        done = crawl(mock, database, env={"API_KEY": CANARY})
    assert_says(done, 1, "NOT complete", "HTTP 401", "Set API_KEY")
    assert database.execute("SELECT finish_reason FROM crawl_runs") == [("unauthorized",)]


def test_a_path_that_isnt_there_ends_with_1(database: Database) -> None:
    """404: not retried, and the settings to look at."""
    with MockServer("--events", "10") as mock:
        done = crawl(mock, database, env={"BULK_PATH": "/nothing/here", "PAGINATION": "offset"})
        assert_says(done, 1, "NOT complete", "HTTP 404", "API_BASE_URL", "BULK_PATH")
        assert pages_fetched(mock) == 0


def test_an_api_that_isnt_there_ends_with_1(database: Database) -> None:
    """Nobody listens: tried again, then the cause and the setting to look at."""
    env = {"API_BASE_URL": "http://127.0.0.1:1/api/v1", "API_KEY": CANARY}
    done = crawl(None, database, "-s", "RETRY_TIMES=1", "-s", "RETRY_BACKOFF_BASE=0.01", env=env)
    assert_says(
        done, 1, "NOT complete: 127.0.0.1:1 can't be reached: the connection was refused (2 tries)"
    )


def test_another_api_in_the_schema_is_refused(database: Database) -> None:
    """One source a schema, or every count would be wrong: exit 2, nothing fetched, nothing lost."""
    with MockServer("--events", "20") as first, MockServer("--events", "20") as second:
        assert crawl(first, database).status == 0
        done = crawl(second, database)
        assert_says(done, 2, "NOT complete", f"holds the events of {first.url}", "DB_SCHEMA")
        assert pages_fetched(second) == 0
        elsewhere = crawl(second, database, env={"DB_SCHEMA": 'an "other" one'})
        assert elsewhere.status == 0, elsewhere.log
    assert database.value("SELECT count(*) FROM events") == 20
    assert database.value('SELECT count(*) FROM "an ""other"" one".events') == 20


@pytest.mark.parametrize("setting", ["ID_FIELD=key", "PAGINATION=page", "ON_DUPLICATE=update"])
def test_a_second_process_with_other_settings_is_refused(database: Database, setting: str) -> None:
    """What would make it see or store something else; the first one isn't disturbed."""
    with MockServer("--events", "3000", "--latency-ms", "3000") as mock:
        first = start_crawl(mock, database, "-s", "BULK_PAGE_SIZE=300")
        deadline = time.monotonic() + 60
        while database.value("SELECT to_regclass('leases')") is None or not database.value(
            "SELECT count(*) FROM leases WHERE owner IS NOT NULL"
        ):
            assert time.monotonic() < deadline, "the first crawl doesn't begin"
        done = crawl(mock, database, "-s", setting)
        mock.config(latency_ms=0)
        log, _ = first.communicate(timeout=120)
    name, _, value = setting.partition("=")
    assert_says(done, 2, "NOT complete", "Another process is crawling into this schema")
    assert f"{value!r} here" in done.log
    assert name in done.log
    assert first.returncode == 0, log


def test_a_spider_that_isnt_there_ends_with_2() -> None:
    """`scrapy crawl nosuch` says which there is; asked for by the same command."""
    done = subprocess.run(
        [sys.executable, "-m", "scrapy", "crawl", "nosuch"],
        cwd=PROJECT,
        env=environment(None, None),
        capture_output=True,
        text=True,
        check=False,
    )
    assert_says(
        Crawled(done.returncode, done.stdout + done.stderr), 2, "no spider 'nosuch'", "crawl events"
    )
