"""The mistakes of the first hour: what is printed, to the word, and the exit status."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import certificates
import pytest
from certificates import Authority
from crawling import PROJECT, crawl, environment, run_scrapy, start_crawl
from mockserver import MockServer
from ports import free_port
from support_servers import Answer, serving

from datasync_crawler.errors import STOPPED_EARLY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from databases import Database


def serve(events: list[Any], key: str = "data", total: int | None = None) -> Any:
    """A server that pages through *events*, under *key*."""

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        if path != "/events/bulk":
            return None
        offset, limit = int(query["offset"]), int(query["limit"])
        page = events[offset : offset + limit]
        return {}, {key: page, "total": len(events) if total is None else total}

    return serving(answer)


def said(log: str) -> str:
    """What stands behind the verdict."""
    (line,) = [line for line in log.splitlines() if "NOT complete: " in line]
    return line.partition("NOT complete: ")[2]


def foreign(number: int) -> list[dict[str, Any]]:
    return [
        {"event_id": f"e{one}", "created_at": 1_769_541_612 + one, "kind": "x"}
        for one in range(number)
    ]


def test_other_field_names_stop_the_first_page(database: Database) -> None:
    """Nothing can be stored: exit 2 at once, with the fields that were seen and their settings;
    with the settings the same crawl is complete.
    """
    with serve(foreign(50)) as url:
        env = {"API_BASE_URL": url, "API_KEY": "k", **database.environment}
        done = crawl(None, None, env=env)
        assert done.status == 2, done.log
        assert said(done.log) == (
            "Nothing of the first page can be stored: 50 of 50 events are rejected (id: missing). "
            "Their fields are event_id, created_at, kind. Set ID_FIELD (now id) to the one that "
            "holds the id, and TIMESTAMP_FIELD (now timestamp) to the one that holds the time."
        )
        done = crawl(None, None, "-s", "ID_FIELD=event_id", env=env)
        assert done.status == 2, done.log
        assert "(timestamp: missing or null). Their fields are event_id, created_at, kind." in said(
            done.log
        )
        mapped = ("-s", "ID_FIELD=event_id", "-s", "TIMESTAMP_FIELD=created_at")
        done = crawl(None, None, *mapped, env=env)
        assert done.status == 0, done.log
    assert database.execute("SELECT count(*), min(extra::text) FROM events") == [
        (50, '{"kind": "x"}')
    ]


def test_a_list_elsewhere_is_named(database: Database) -> None:
    """EVENTS_KEY is wrong: exit 2 at once, with the place where a list stands."""
    with serve(foreign(3), key="items") as url:
        done = crawl(None, None, env={"API_BASE_URL": url, "API_KEY": "k", **database.environment})
    assert (done.status, said(done.log)) == (
        2,
        (
            "The first answer has no list at EVENTS_KEY (data). It has one at items: set "
            "EVENTS_KEY to items."
        ),
    )


def test_an_empty_first_answer_with_a_total_is_a_mistake(database: Database) -> None:
    """Exit 2, with the total and the settings that may be wrong."""
    with serve([], total=5000) as url:
        done = crawl(None, None, env={"API_BASE_URL": url, "API_KEY": "k", **database.environment})
    assert (done.status, said(done.log)) == (
        2,
        (
            "the API counts 5,000 events, and its first answer holds none: EVENTS_KEY doesn't name "
            "the list that they are in, or OFFSET_PARAM, LIMIT_PARAM or QUERY_PARAMS ask for none. "
            "Look at an answer with scrapy fetch."
        ),
    )


def test_too_many_rejections_are_no_success(database: Database) -> None:
    """Complete, with their number, and exit status 1: of the crawl and of verify; with a higher
    MAX_REJECTED it is 0.
    """
    events = [
        {"id": f"e{one}" if one % 10 else None, "timestamp": 1_769_541_612 + one}
        for one in range(100)
    ]
    sentence = (
        "10 of 100 events are rejected, more than MAX_REJECTED (0.01) allows: scrapy status names "
        "the reasons. Map the fields with ID_FIELD and TIMESTAMP_FIELD, or raise MAX_REJECTED."
    )
    with serve(events) as url:
        env = {"API_BASE_URL": url, "API_KEY": "k", **database.environment}
        done = crawl(None, None, env=env)
        assert done.status == 1, done.log
        assert "complete, with 10 rejected: proved against the API's total (100)" in done.log
        assert f"INFO: {sentence}\n" in done.log
        shown = scrapy("status", env=env)
        assert (shown.returncode, shown.stdout.splitlines()[-1]) == (0, sentence)
        values = json.loads(scrapy("verify", "--json", env=env).stdout)
        assert (values["complete"], values["problems"]) == (False, [sentence])
        verified = subprocess.run(
            [sys.executable, "-m", "scrapy", "verify"],
            cwd=PROJECT, env={**environment(None, None), **env}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert (verified.returncode, verified.stdout.splitlines()[-1]) == (1, sentence)
        assert "\nCOMPLETE, with 10 rejected: " in verified.stdout
        done = crawl(None, None, "-s", "MAX_REJECTED=0.1", env=env)
        assert done.status == 0, done.log
        offline = scrapy("verify", "--offline", env=env).stdout
        assert "total             100 (the last known; the API wasn't asked)" in offline


def test_a_mistyped_first_address_is_replaced(database: Database) -> None:
    """A source without a row of the ledger doesn't lock the schema; one with rows does."""
    good = [{"id": f"e{one}", "timestamp": 1_769_541_612 + one} for one in range(5)]
    with serve([]) as wrong, serve(good) as right, serve(good) as other:
        env = {"API_KEY": "k", **database.environment}
        assert crawl(None, None, env={**env, "API_BASE_URL": wrong}).status == 1
        assert crawl(None, None, env={**env, "API_BASE_URL": right}).status == 0
        done = crawl(None, None, env={**env, "API_BASE_URL": other})
        assert done.status == 2, done.log
        assert f"holds the events of {right}, not of {other}" in said(done.log)


@pytest.fixture(scope="module")
def unreachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Addresses where no API answers, by what is wrong with them."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    contexts = {shape: authority.certificate(shape) for shape in ("good", "expired")}
    with certificates.serving(contexts) as https, serve([]) as http:
        good, expired = (https[shape].server_port for shape in ("good", "expired"))
        yield {
            "refused": f"http://127.0.0.1:{free_port()}/api/v1",
            "unknown": "https://api.nowhere.invalid/api/v1",
            "http": http.replace("http:", "https:") + "/api/v1",
            "https": f"http://localhost:{good}/api/v1",
            "expired": f"https://localhost:{expired}/api/v1",
        }


#: The last line, with HOST and URL as placeholders.
UNREACHABLE = {
    "refused": (
        "HOST can't be reached: the connection was refused (4 tries). Nothing listens on that "
        "port: check host and port of API_BASE_URL, or start the API."
    ),
    "unknown": (
        "HOST can't be reached: there is no host of that name (4 tries). Check the host in "
        "API_BASE_URL, and this machine's network and DNS."
    ),
    "http": (
        "HOST can't be reached: this server speaks http on that port, not https. Set API_BASE_URL "
        "to the port where it speaks https, or to http://HOST/api/v1 if the key and the events may "
        "travel unencrypted."
    ),
    "https": (
        "HOST can't be reached: this server speaks https on that port, not http. Set API_BASE_URL "
        "to https://HOST/api/v1."
    ),
    "expired": (
        "HOST can't be reached: its certificate can't be verified (REASON), so the key isn't sent. "
        "Check the host in API_BASE_URL and this machine's clock; name the certificate of an "
        "authority of your own with SSL_CERT_FILE; else the API's owner has to renew it."
    ),
}


@pytest.mark.parametrize("kind", UNREACHABLE)
def test_an_unreachable_api_is_named(
    database: Database, unreachable: dict[str, str], kind: str
) -> None:
    """At once or after four tries: exit 1, the cause and the likely remedy in the last line; of
    verify, too.
    """
    url = unreachable[kind]
    host = url.split("/")[2]
    env = {"API_BASE_URL": url, "API_KEY": "k", **database.environment}
    done = crawl(None, None, "-s", "RETRY_BACKOFF_BASE=0.05", env=env)
    told = re.sub(r"verified \([^)]*\)", "verified (REASON)", said(done.log))
    assert (done.status, told.replace(host, "HOST")) == (1, UNREACHABLE[kind]), done.log
    assert done.log.count("Can't reach") == (" tries)" in told)
    assert database.execute("SELECT finish_reason FROM crawl_runs") == [("unreachable",)]
    verified = scrapy("verify", env=env)
    told = re.sub(r"verified \([^)]*\)", "verified (REASON)", verified.stderr)
    wanted = UNREACHABLE[kind].replace(" (4 tries)", "")
    assert (verified.returncode, told.splitlines()[-1].replace(host, "HOST")) == (
        1, f"datasync-crawler: {wanted} Or use --offline."
    )  # fmt: skip


def test_an_api_that_moved_is_followed_when_it_serves_the_same_events(database: Database) -> None:
    """The new address is taken where head and tail are the same, whatever came later; else
    nothing is changed, exit 2.
    """
    events = [{"id": f"e{one}", "timestamp": 1_769_541_612 + one} for one in range(50)]
    added = [{"id": f"new{one}", "timestamp": 1_769_549_612 + one} for one in range(3)]
    with (
        serve(events) as old, serve([*added, *events, *added]) as new, serve(events[:-1]) as fewer,
        serve(foreign(50)) as other, serve(events[1:]) as later,
    ):  # fmt: skip
        env = {"API_BASE_URL": old, "API_KEY": "k", **database.environment}
        assert crawl(None, None, env=env).status == 0
        assert crawl(None, None, env={**env, "API_BASE_URL": new}).status == 2
        for wrong, why in (
            (fewer, "the event at offset 49 isn't there; stored is e49"),
            (later, "the first stored event (e0) isn't among the first 49 there"),
        ):
            refused = scrapy("source", "--move-to", wrong, env=env)
            assert (refused.returncode, refused.stderr) == (
                2,
                (
                    f"datasync-crawler: {wrong} doesn't serve the events of {old}: {why}. Nothing "
                    "is changed. If it is another API, set DB_SCHEMA to a new schema for it.\n"
                ),
            )
        assert scrapy("source", "--move-to", other, env=env).returncode == 2
        assert scrapy("source", "--move-to", "not-an-address", env=env).returncode == 2
        assert scrapy("source", env=env).stdout == f"{old}\n"
        moved = scrapy("source", "--move-to", new, env=env)
        assert (moved.returncode, moved.stdout) == (
            0,
            (
                f"Schema public holds the events of {new} from now on, no longer of {old}: it "
                "serves the first and the last of 50 events as before. Set API_BASE_URL to the new "
                "address.\n"
            ),
        )
        assert crawl(None, None, env={**env, "API_BASE_URL": new}).status == 0
    assert database.value("SELECT count(*) FROM events") == 53


@pytest.mark.parametrize("way", [("--no-bulk",), ()])
def test_an_unfinished_crawl_of_an_api_that_moved_goes_on(
    database: Database, way: tuple[str, ...]
) -> None:
    """What is committed is compared; by cursor, the first event and the total. No crawl may run."""
    with MockServer("--events", "300", "--fault", "500:start=3", *way) as old:
        few = ("-s", "RETRY_TIMES=0", "-s", "BULK_PAGE_SIZE=50", "-s", "WORKERS=1")
        assert crawl(old, database, *few).status == 1
    with MockServer("--events", "300", *way) as new:
        env = {**environment(new, database)}
        database.execute("UPDATE crawl_runs SET finished_at = NULL, heartbeat_at = now()")
        busy = scrapy("source", "--move-to", new.url, env=env)
        assert (busy.returncode, "A crawl is running into schema public" in busy.stderr) == (
            1,
            True,
        )
        database.execute("UPDATE crawl_runs SET finished_at = now()")
        moved = scrapy("source", "--move-to", new.url, env=env)
        assert moved.returncode == 0, moved.stderr
        assert "holds the events of" in scrapy("source", "--move-to", new.url, env=env).stdout
        assert crawl(new, database).status == 0
    assert database.value("SELECT count(*) FROM events") == 300


def test_reasons_beyond_those_listed_are_summed_up(database: Database) -> None:
    """A list that is cut says how many events and reasons it leaves out; log prefixes are short."""
    with serve([{"id": "e", "timestamp": 1_769_541_612}]) as url:
        env = {"API_BASE_URL": url, "API_KEY": "k", **database.environment}
        done = crawl(None, None, env=env)
    assert done.status == 0, done.log
    assert re.search(
        r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[progress\] INFO: run: new  ", done.log, re.MULTILINE
    )
    database.execute(
        "INSERT INTO rejected_events SELECT n, 0, 'reason ' || least(n, 14), '' "
        "FROM generate_series(1, 23) AS n"
    )
    lines = scrapy("status", env=env).stdout.splitlines()
    assert "              10 × reason 14" in lines
    assert "              4 × … more in 4 reasons" in lines


def test_a_set_that_became_smaller_is_explained(database: Database) -> None:
    """Run, verify: complete by what is served now, and what is kept beside it."""
    events = [{"id": f"e{one}", "timestamp": 1_769_541_612 + one} for one in range(60)]
    with serve(events) as url:
        env = {"API_BASE_URL": url, "API_KEY": "k", **database.environment}
        assert crawl(None, None, env=env).status == 0
        del events[10:]
        done = crawl(None, None, env=env)
        verified = scrapy("verify", env=env)
    more = (
        "The table holds 50 events more than the API serves now: those that it served before are "
        "kept."
    )
    assert (done.status, done.line("table: events stored")) == (0, "60"), done.log
    assert "complete: proved against the API's total (10)\n" in done.log
    assert f"INFO: {more}\n" in done.log
    assert (verified.returncode, verified.stdout.splitlines()[-1]) == (0, more)


def test_own_columns_and_views_survive(database: Database) -> None:
    """A generated column and a view of the user's are there after the next run, with its rows."""
    events = [{"id": f"e{one}", "timestamp": 1_769_541_612 + one} for one in range(5)]
    with serve(events) as url:
        env = {"API_BASE_URL": url, "API_KEY": "k", **database.environment}
        assert crawl(None, None, env=env).status == 0
        database.execute("ALTER TABLE events ADD size int GENERATED ALWAYS AS (length(id)) STORED")
        database.execute("CREATE VIEW sizes AS SELECT sum(size) AS size FROM events")
        events += [{"id": "later", "timestamp": 1_769_541_700}]
        assert crawl(None, None, env=env).status == 0
    assert database.execute("SELECT size FROM sizes") == [(15,)]


@pytest.mark.parametrize(
    ("slip", "meant", "command"),
    [("WORKRS", "WORKERS", "crawl"), ("BULK_PAGESIZE", "BULK_PAGE_SIZE", "crawl"),
     ("DATABSE_URL", "DATABASE_URL", "status"), ("PAGE_SIZE", "BULK_PAGE_SIZE", "shell")],
)  # fmt: skip
def test_a_misspelt_setting_is_refused(slip: str, meant: str, command: str) -> None:
    """With -s, by every kind of command: exit 2, one line, nothing is done."""
    args = ["crawl", "events"] if command == "crawl" else [command]
    done = scrapy(*args, "-s", f"{slip}=3")
    assert (done.returncode, done.stderr) == (
        2, f"datasync-crawler: -s {slip} isn't a setting: did you mean {meant}?\n"
    )  # fmt: skip


def test_a_setting_of_the_users_own_is_none_of_ours() -> None:
    """A name that is like none of ours is let through, as Scrapy does."""
    done = scrapy("crawl", "events", "-s", "MY_PIPELINE_OPTION=3")
    assert "API_BASE_URL isn't set" in done.stderr


def test_a_slip_in_the_environment_is_refused_until_the_right_name_is_set() -> None:
    """DATABSE_URL would have sent the rows to the embedded database."""
    done = scrapy("status", env={"DATABSE_URL": "postgresql://u:secret@h/d"})
    assert (done.returncode, done.stderr) == (
        2,
        (
            "datasync-crawler: The environment sets DATABSE_URL, which isn't a setting: did you "
            "mean DATABASE_URL? If it is another program's, set DATABASE_URL too, or unset "
            "DATABSE_URL for this command.\n"
        ),
    )
    both = {"DATABSE_URL": "x", "DATABASE_URL": "postgresql://u@127.0.0.1:1/d"}
    assert "isn't a setting" not in scrapy("status", env=both).stderr


@pytest.mark.parametrize(
    ("name", "way_out"),
    [("WORKRS", "did you mean WORKERS?"),
     ("HTTPS_PROXY", "take it out, or set it in the environment if it is another program's."),
     ("POSTGRES_IMAGE", None), ("COMPOSE_PROFILES", None), ("MAX_REJECTED", None)],
)  # fmt: skip
def test_an_unknown_name_in_dotenv_is_refused(
    tmp_path: Path, name: str, way_out: str | None
) -> None:
    """What neither the crawler nor docker-compose.yml reads is a mistake."""
    (tmp_path / "scrapy.cfg").write_text("[settings]\ndefault = datasync_crawler.settings\n")
    file = tmp_path / ".env"
    file.write_text(f"{name}=0.5\n")
    done = scrapy("psql", "--help", folder=tmp_path)
    wanted = f"datasync-crawler: {file} sets {name}, which isn't a setting: {way_out}\n"
    assert (done.returncode, done.stderr) == ((2, wanted) if way_out else (0, ""))


@pytest.mark.parametrize("scheme", ["postgresql+psycopg2", "postgres+asyncpg"])
def test_an_sqlalchemy_url_says_what_to_drop(scheme: str) -> None:
    """Without a word of the password."""
    done = scrapy("status", env={"DATABASE_URL": f"{scheme}://u:kanarienvogel@h/d"})
    plain, driver = scheme.split("+")
    assert (done.returncode, done.stderr) == (
        2,
        (
            f"datasync-crawler: DATABASE_URL begins with {scheme}://, as SQLAlchemy writes it: "
            f"drop +{driver}, so that it begins with {plain}://, and leave the rest as it is.\n"
        ),
    )


@pytest.mark.parametrize(
    ("words", "wrong"),
    [(("crawl", "events", "--workers", "3"), "--workers"),
     (("crawl", "events", "WORKERS=3"), "WORKERS=3"),
     (("redrive", "everything"), "everything")],
)  # fmt: skip
def test_an_unknown_option_of_a_crawl_is_named(words: tuple[str, ...], wrong: str) -> None:
    """Which word it is, and how a setting is given."""
    done = scrapy(*words)
    said = done.stderr.partition("error: ")[2]
    assert (done.returncode, said) == (
        2,
        f"{wrong!r} isn't an option: a setting is given as -s NAME=value, such as -s WORKERS=4.\n",
    )


def test_ctrl_c_before_the_crawl_has_begun_is_a_sentence(database: Database) -> None:
    """While it still connects to the database: no traceback, exit status 1."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        host, port = silent.getsockname()
        env = {**database.environment, "API_BASE_URL": "http://127.0.0.1:1/api/v1", "API_KEY": "k",
               "DB_HOST": host, "DB_PORT": str(port)}  # fmt: skip
        process = start_crawl(None, None, env=env)
        with silent.accept()[0]:
            process.send_signal(signal.SIGINT)
            log, _ = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in log) == (1, False), log
    assert log.splitlines()[-1] == f"datasync-crawler: {STOPPED_EARLY}"


def test_docker_is_in_the_help() -> None:
    """`sh run-ingestion.sh --help` names the option that the script itself takes."""
    assert "run-ingestion.sh --docker" in " ".join(scrapy("ingest", "--help").stdout.split())


def test_the_first_line_says_where_events_come_from_and_go(database: Database) -> None:
    """Address, server, database and schema; no key, no password."""
    params = database.params
    with serve([{"id": "a", "timestamp": 1_769_541_612}]) as url:
        env = {"API_BASE_URL": url, "API_KEY": "kanarienvogel", **database.environment}
        done = crawl(None, None, env=env)
    first = done.log.splitlines()[0]
    assert f"{url} → PostgreSQL {params['host']}" in first
    assert first.endswith(f"/{params['dbname']}, schema public")
    assert "kanarienvogel" not in done.log


def scrapy(
    *args: str, env: Mapping[str, str] | None = None, folder: Path = PROJECT
) -> subprocess.CompletedProcess[str]:
    """`scrapy` as somebody types it."""
    path = {} if folder == PROJECT else {"PYTHONPATH": str(PROJECT)}
    return run_scrapy(*args, env={**environment(None, None), **path, **(env or {})}, folder=folder)
