"""`scrapy verify`, `status` and `redrive`: what they say of a crawl, and how they exit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from crawling import Crawled, assert_equals_truth, crawl, environment, run_scrapy
from databases import own_database
from faults.truth import truths
from mockserver import MockServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from databases import Database, Server

EVENTS = 3000
SETTINGS = (
    "-s", "BULK_PAGE_SIZE=200", "-s", "RETRY_BACKOFF_BASE=0.02", "-s", "RETRY_BACKOFF_CAP=0.05",
    "-s", "RETRY_TIMES=2",
)  # fmt: skip

DOUBT = "UPDATE checkpoint SET last_id = 'another' WHERE first_offset = 399"
UNBALANCE = """ALTER TABLE checkpoint DROP CONSTRAINT checkpoint_check;
               UPDATE checkpoint SET inserted = inserted + 1 WHERE first_offset = 0"""


def scrapy(
    mock: MockServer | None, database: Database | None, command: str, *args: str, **env: str
) -> Crawled:
    """Runs a command of ours to its end."""
    done = run_scrapy(command, *args, env={**environment(mock, database), **env})
    return Crawled(done.returncode, done.stdout + done.stderr)


def as_json(done: Crawled) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(done.log)
    return values


def test_a_complete_crawl_is_proved(database: Database) -> None:
    """Exit 0 with and without the API, a report that adds up, in lines and as JSON."""
    with MockServer("--events", str(EVENTS)) as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
        before = mock.stats()["requests"]
        done = scrapy(mock, database, "verify")
        assert done.status == 0, done.log
        assert "COMPLETE: every offset below 3,000 is committed" in done.log
        assert "as the API says now" in done.log
        assert "seams             15 exact" in done.log
        assert mock.stats()["requests"] - before == 1
        values = as_json(scrapy(mock, database, "verify", "--offline", "--json"))
        assert mock.stats()["requests"] - before == 1
    assert (values["complete"], values["total"], values["covered"]) == (True, EVENTS, EVENTS)
    assert values["received"] == values["inserted"] + values["duplicates"] + values["rejected"]
    assert (values["rows"], values["distinct"], values["problems"]) == (EVENTS, EVENTS, [])


@pytest.fixture(scope="module")
def crawled(server: Server) -> Iterator[tuple[MockServer, str]]:
    """The API of a complete crawl with rejections, and the name of its database, to be copied."""
    with (
        own_database(server) as database,
        MockServer("--events", str(EVENTS), "--fault", "bad-events:kind=no-id,each=100") as mock,
    ):
        assert crawl(mock, database, *SETTINGS).status == 0
        assert scrapy(mock, database, "verify", "--offline").status == 0
        database.close()  # a database that is copied has no connections
        yield mock, database.params["dbname"]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("DELETE FROM events WHERE id IN (SELECT id FROM events LIMIT 3)",
         "3 stored events are gone"),
        ("INSERT INTO events (id) VALUES ('alien')", "1 events that no crawl has inserted"),
        ("DELETE FROM checkpoint WHERE first_offset = 399", "(1 gap: 399–597)"),
        ("DELETE FROM checkpoint WHERE first_offset >= 2190", "(1 gap: 2190–2999)"),
        ("DELETE FROM rejected_events WHERE position = 99", "are missing from rejected_events"),
        ("UPDATE source SET total = 4000", "1,000 of 4,000 offsets were never committed"),
        (UNBALANCE,
         "1 ranges of the ledger don't add up"),
        (DOUBT, "1 seam between neighbouring ranges can't be joined"),
        ("DELETE FROM proofs", "No run has proved this pass yet"),
    ],
    ids=["deleted", "alien", "gap", "end", "rejection", "total", "unbalanced", "doubt",
         "proof"],
)  # fmt: skip
def test_what_somebody_has_harmed_is_found(
    server: Server, crawled: tuple[MockServer, str], harm: str, said: str
) -> None:
    """Exit 1, and the sentence that says what is wrong."""
    mock, template = crawled
    with own_database(server, template) as database:
        database.execute(harm)
        done = scrapy(mock, database, "verify", "--offline")
    assert done.status == 1
    assert said in done.log
    assert "NOT COMPLETE" in done.log


def test_events_that_the_api_has_added_are_missing(database: Database) -> None:
    """Asked, the API knows of more than the ledger: exit 1; the crawl fetches them, exit 0."""
    with MockServer("--events", str(EVENTS)) as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
        mock.config(events=EVENTS + 10)
        done = scrapy(mock, database, "verify")
        assert done.status == 1
        assert "3000–3009" in done.log
        assert crawl(mock, database, *SETTINGS).status == 0
        assert scrapy(mock, database, "verify").status == 0


def test_verify_without_a_word_from_the_api(database: Database) -> None:
    """Refused, redirected, unreachable, no page: exit 1, a sentence, no key; by cursor: answered.

    The key never travels to where a redirect leads.
    """
    with MockServer("--events", "10") as other, MockServer("--events", str(EVENTS)) as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
        for fault, said in (
            ("401:start=1", "the key is wrong"),
            (f"redirect:to={other.url},every=1", "HTTP 302"),
            ("html:every=1", "is no page"),
            ("reset-before:every=1", "couldn't be fetched"),
        ):
            mock.config(fault=[fault])
            done = scrapy(mock, database, "verify")
            assert (done.status, said in done.log) == (1, True), done.log
            assert mock.key not in done.log
        assert other.stats()["requests"] == 0
        mock.config(fault=[])
    gone = scrapy(mock, database, "verify")
    assert gone.status == 1
    assert "use --offline" in gone.log


def test_verify_of_a_crawl_by_cursor(database: Database) -> None:
    """Without a bulk endpoint the regular one is asked; there are no random pages to audit."""
    with MockServer("--events", "500", "--no-bulk") as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
        done = scrapy(mock, database, "verify")
        audited = scrapy(mock, database, "verify", "--audit", "3")
    assert done.status == 0, done.log
    assert audited.status == 2
    assert "this API is read by cursor" in audited.log


def test_wrong_settings_and_empty_schemas(database: Database) -> None:
    """Exit 2 for what is set wrongly, 1 where nothing was crawled; no traceback."""
    with MockServer("--events", "300") as mock:
        for command in ("verify", "status"):
            none = scrapy(mock, database, command)
            assert (none.status, "Nothing has been crawled" in none.log) == (1, True)
            odd = scrapy(mock, database, command, "everything")
            assert (odd.status, "doesn't know 'everything'" in odd.log) == (2, True)
        assert crawl(mock, database, *SETTINGS).status == 0
        other = scrapy(
            mock, database, "verify", "--offline", API_BASE_URL="http://127.0.0.1:1/api/v1"
        )
        assert (other.status, "holds the events of" in other.log) == (2, True)
        unset = scrapy(None, database, "verify")
        assert (unset.status, "API_BASE_URL isn't set" in unset.log) == (2, True)


def test_status_of_a_crawl_with_gaps_and_rejections(database: Database) -> None:
    """Total, done, gaps, frontier, rejections by reason, runs and their outcome; no request."""
    faults = ("--fault", "bad-events:kind=no-id,each=100", "--fault", "html:offset=1000")
    with MockServer("--events", str(EVENTS), *faults) as mock:
        assert crawl(mock, database, *SETTINGS).status == 1
        before = mock.stats()["requests"]
        done = scrapy(mock, database, "status")
        values = as_json(scrapy(mock, database, "status", "--json"))
        assert mock.stats()["requests"] == before
    assert done.status == 0, done.log
    assert "1 gap: 996–1194" in done.log
    assert "not complete (incomplete)" in done.log
    assert (values["total"], values["covered"], values["frontier"]) == (EVENTS, EVENTS - 199, 996)
    assert [entry["events"] for entry in values["rejections"]] == [28]
    assert values["rejections"][0]["reason"] in done.log
    database.execute(
        "UPDATE crawl_runs SET finished_at = NULL, finish_reason = NULL, "
        "heartbeat_at = now() - interval '1 minute'"
    )
    assert "crashed" in scrapy(None, database, "status").log


def test_a_terminal_without_unicode_gets_its_answer(database: Database) -> None:
    """What its encoding can't show stands there as an escape; the command and its status hold."""
    with MockServer("--events", str(EVENTS), "--fault", "html:offset=1000") as mock:
        assert crawl(mock, database, *SETTINGS).status == 1
    done = scrapy(None, database, "status", PYTHONIOENCODING="latin-1")
    assert done.status == 0, done.log
    assert r"1 gap: 996\u20131194" in done.log


def test_redrive_mends_what_is_good_now(database: Database) -> None:
    """Rejected events and a failed range are fetched again; what is good now is stored."""
    faults = ("--fault", "bad-events:kind=no-id,each=100", "--fault", "html:offset=1000")
    with MockServer("--events", str(EVENTS), *faults) as mock:
        assert crawl(mock, database, *SETTINGS).status == 1
        assert database.value("SELECT count(*) FROM rejected_events") == 28
        mock.config(fault=["bad-events:kind=no-id,each=1000"])
        done = scrapy(mock, database, "redrive", *SETTINGS)
        assert done.status == 0, done.log
        assert database.execute("SELECT position FROM rejected_events ORDER BY 1") == [
            (999,), (1999,), (2999,)
        ]  # fmt: skip
        mock.config(fault=[])
        assert scrapy(mock, database, "redrive", *SETTINGS).status == 0
        assert database.value("SELECT count(*) FROM rejected_events") == 0
        assert_equals_truth(database, truths(1, 0, EVENTS))
        assert scrapy(mock, database, "verify").status == 0


def test_redrive_by_cursor_reads_all_again(database: Database) -> None:
    """Positions can't be asked for by cursor: a new pass over everything."""
    fault = ("--fault", "bad-events:kind=no-id,each=50")
    with MockServer("--events", "500", "--no-bulk", *fault) as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
        assert database.value("SELECT count(*) FROM rejected_events") == 10
        mock.config(fault=[])
        assert scrapy(mock, database, "redrive", *SETTINGS).status == 0
    assert_equals_truth(database, truths(1, 0, 500))
    assert database.value("SELECT count(*) FROM rejected_events") == 0


def test_a_wrong_redrive_argument_is_refused(database: Database) -> None:
    """`-a redrive=yes` ends with 2 and a sentence, before any request."""
    with MockServer("--events", "10") as mock:
        done = crawl(mock, database, "-a", "redrive=yes")
        assert mock.stats()["requests"] == 0
    assert done.status == 2
    assert "pass -a redrive=1" in done.log


@pytest.mark.parametrize("update", [False, True], ids=["keep", "update"])
def test_redrive_all_finds_what_is_late_or_edited(database: Database, update: bool) -> None:
    """A complete set is read again in whole: an event that came into its middle is stored, one that
    differs is counted, and overwritten where that is asked for.
    """
    with MockServer("--events", str(EVENTS)) as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
        late, edited = (
            database.value(f"SELECT first_id FROM checkpoint WHERE first_offset = {first}")
            for first in (399, 598)
        )
        database.execute("DELETE FROM events WHERE id = %s", [late])
        database.execute("UPDATE checkpoint SET inserted = inserted - 1, "
                         "duplicates = duplicates + 1 WHERE first_offset = 399")  # fmt: skip
        database.execute("UPDATE events SET name = 'before' WHERE id = %s", [edited])
        on_duplicate = ("-s", "ON_DUPLICATE=update") if update else ()
        done = scrapy(mock, database, "redrive", "--all", *SETTINGS, *on_duplicate)
    assert done.status == 0, done.log
    assert done.line("run: new  ") == "1"
    # Once, although a seam beside it was read again.
    assert done.line("run: edited").startswith("1 (other content than stored")
    name = database.value("SELECT name FROM events WHERE id = %s", [edited])
    assert (name == "before") is not update


def test_an_answer_that_is_no_page_costs_the_audit_a_sentence(database: Database) -> None:
    """No traceback, whatever the API sends by then."""
    with MockServer("--events", "400") as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
        total = ("--fault", "html:start=2,every=1")  # the first request is for the total
        with MockServer("--events", "400", *total, port=0) as broken:
            database.execute("UPDATE source SET api_base_url = %s", (broken.url,))
            done = scrapy(broken, database, "verify", "--audit", "2")
    assert done.status == 1
    assert "Traceback" not in done.log, done.log
    assert "The API's answer is no page (the body is HTML or XML, not JSON): try later." in done.log


def test_ids_are_shown_without_control_characters(database: Database) -> None:
    """An id is text as the API served it: on a terminal it would be carried out."""
    with MockServer("--events", "20") as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
        database.execute("UPDATE proofs SET head_id = %s, tail_id = %s", ("\x1b[2J", "a\nforged"))
        done = scrapy(mock, database, "verify", "--offline")
        moved = scrapy(
            mock, database, "source", "--move-to", mock.url.replace("127.0.0.1", "localhost")
        )
    assert done.status == 0, done.log
    assert "  head             [2J\n" in done.log
    assert "  tail            a forged\n" in done.log
    assert moved.status == 2
    assert "\x1b" not in moved.log, moved.log
