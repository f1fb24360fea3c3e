"""The recipes of docs/other-apis.md, as they stand there, against the real servers."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import foreign
import pytest
from crawling import PROJECT, assert_equals_truth, crawl
from faults.truth import truths
from mockserver import MockServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from databases import Database

DOCUMENT = (PROJECT / "docs" / "other-apis.md").read_text(encoding="utf-8")
#: These two take half a minute to install: only where DATASYNC_ALL_SERVERS is set, as in CI.
ON_REQUEST = set() if os.environ.get("DATASYNC_ALL_SERVERS") else {"json-server-1", "feathers"}
#: Requests that a run may take when nothing is new: both ends, and the end confirmed.
MOST_AGAIN = 3


@dataclass(frozen=True)
class Recipe:
    """One command of the document. *kind*: the server that it is for."""

    title: str
    kind: str
    schema: str
    env: dict[str, str]
    args: tuple[str, ...]


def recipes() -> Iterator[Recipe]:
    """A crawl per section of the document; the server is the one that it starts on that port."""
    kinds = dict(re.findall(r"tests/support/foreign\.py (\S+) +(\d+)", DOCUMENT))
    at = {port: kind for kind, port in kinds.items()}
    for section in DOCUMENT.split("\n## ")[1:]:
        title = section.partition("\n")[0]
        for block in re.findall(r"```sh\n(API_KEY=.*?)```", section, re.DOTALL):
            key, scrapy, command, spider, *args = shlex.split(block.replace("\\\n", " "))
            assert (scrapy, command, spider) == (".venv/bin/scrapy", "crawl", "events")
            port = re.search(r"http://127\.0\.0\.1:(\d+)", block)
            schema = re.search(r"DB_SCHEMA=(\w+)", block)
            assert port is not None
            assert schema is not None
            yield Recipe(title, at[port[1]], schema[1], dict([key.split("=", 1)]), tuple(args))


RECIPES = list(recipes())


@pytest.fixture(scope="module")
def serving() -> Iterator[Callable[[str], str]]:
    """Gives the address of a server of a kind, which runs until the last recipe has ended."""
    running: dict[str, str] = {}
    missing: dict[str, str] = {}
    with ExitStack() as servers:

        def address(kind: str) -> str:
            if kind in ON_REQUEST:
                pytest.skip(f"set DATASYNC_ALL_SERVERS=1 to install {kind} and run this")
            if kind not in running | missing:
                try:
                    running[kind] = servers.enter_context(foreign.serving(kind))
                except foreign.Missing as error:
                    missing[kind] = str(error)
            if kind in missing:
                pytest.skip(missing[kind])
            return running[kind]

        yield address


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.schema)
def test_a_recipe(database: Database, serving: Callable[[str], str], recipe: Recipe) -> None:
    """Complete, with each event once and its content; a second run finds nothing new, and cheaply
    where the API says its total.
    """
    address = serving(recipe.kind)
    args = [re.sub(r"http://127\.0\.0\.1:\d+", address, arg) for arg in recipe.args]
    for new in (foreign.EVENTS, 0):
        done = crawl(None, database, *args, env=recipe.env)
        assert done.status == 0, done.log
        assert " INFO: complete: " in done.log
        assert done.line("events stored") == f"{foreign.EVENTS:,}"
        assert done.line("run: new  ") == f"{new:,}"
        assert done.line("run: already stored") == "0"
    assert stored(database, recipe.schema) == truth()
    requests = database.value(
        f"SELECT (stats->>'downloader/request_count')::int FROM {recipe.schema}.crawl_runs "
        "ORDER BY id DESC LIMIT 1"
    )
    has_total = database.value(f"SELECT total FROM {recipe.schema}.proofs LIMIT 1") is not None
    assert requests <= MOST_AGAIN or not has_total


def test_json_server_by_numbered_pages(database: Database, serving: Callable[[str], str]) -> None:
    """json-server 0.17 by `_page`, which it counts from 1."""
    named = {"BULK_PATH": "/events", "OFFSET_PARAM": "_page", "LIMIT_PARAM": "_limit",
             "BULK_PAGE_SIZE": "300", "PAGINATION": "page", "TIMESTAMP_FIELD": "created_at",
             "DB_SCHEMA": "numbered", "API_BASE_URL": serving("json-server-0.17")}  # fmt: skip
    args = [word for name, value in named.items() for word in ("-s", f"{name}={value}")]
    done = crawl(None, database, *args, env={"API_KEY": "none"})
    assert done.status == 0, done.log
    assert stored(database, "numbered") == truth()


def truth() -> set[tuple[object, ...]]:
    """What each server has."""
    return {
        (str(one["id"]), one["type"], one["user"], one["properties"]["page"], one["created_at"])
        for one in foreign.events()
    }


def stored(database: Database, schema: str) -> set[tuple[object, ...]]:
    """Id, type, user, page and time of each event."""
    rows = database.execute(
        "SELECT id, type, (extra->>'user')::int, properties->>'page', "
        f"\"timestamp\" AT TIME ZONE 'UTC' FROM {schema}.events"
    )
    assert len(rows) == foreign.EVENTS
    return {(*row[:4], f"{row[4].isoformat()}+00:00") for row in rows}


def test_the_document_has_a_recipe_for_each_server() -> None:
    """No server without a recipe, and no recipe twice."""
    assert {recipe.kind for recipe in RECIPES} == set(foreign.KINDS)
    assert len({recipe.schema for recipe in RECIPES}) == len(RECIPES) == 9


def test_columns_of_ones_own(database: Database) -> None:
    """The document's generated columns, index and view stay, and are right for each event, after an
    upgrade from version 0.1's ledger, in further crawls, and when events are overwritten.
    """
    (own,) = re.findall(r"```sql\n(.*?)```", DOCUMENT, re.DOTALL)
    with MockServer("--events", "600") as mock:
        assert crawl(mock, database, "-s", "BULK_PAGE_SIZE=100").status == 0
        for statement in own.split(";")[:-1]:
            database.execute(statement)
        database.execute("ALTER TABLE checkpoint DROP before_id, DROP repeated, DROP total")
        database.execute("ALTER TABLE source DROP overlap")
        database.execute("DROP TABLE seams, proofs")
        mock.config(events=900)
        database.execute("UPDATE events SET properties = '{}' WHERE type = 'click'")
        args = ("-s", "BULK_PAGE_SIZE=100", "-s", "ON_DUPLICATE=update")
        done = crawl(mock, database, *args)
    assert done.status == 0, done.log
    assert_equals_truth(database, truths(1, 0, 900))
    wrong = database.value(
        "SELECT count(*) FROM events WHERE page IS DISTINCT FROM properties->>'page' OR day IS "
        "DISTINCT FROM (\"timestamp\" AT TIME ZONE 'UTC')::date OR account IS DISTINCT FROM "
        "extra->>'user'"
    )
    assert wrong == 0
    views = database.value("SELECT sum(views) FROM views_per_day")
    assert views == database.value("SELECT count(*) FROM events WHERE type = 'page_view'") > 200
    assert database.value("SELECT count(*) FROM pg_indexes WHERE indexname = 'events_day_page_idx'")


def test_an_expression_that_fails_rejects_its_event(database: Database) -> None:
    """With PostgreSQL's reason; all others are stored."""
    with MockServer("--events", "300") as mock:
        assert crawl(mock, database).status == 0
        kept = database.value("SELECT count(*) FROM events WHERE type <> 'click'")
        database.execute("TRUNCATE events, checkpoint")
        database.execute(
            "ALTER TABLE events ADD COLUMN number int "
            "GENERATED ALWAYS AS (CASE type WHEN 'click' THEN name::int END) STORED"
        )
        done = crawl(mock, database)
    assert done.status == 0, done.log
    assert database.value("SELECT count(*) FROM events") == kept
    assert database.execute("SELECT DISTINCT reason FROM rejected_events") == [
        ("PostgreSQL refuses it: invalid text representation (22P02)",)
    ]


def test_a_column_that_must_have_a_value_is_refused(database: Database) -> None:
    """Exit status 2 and a sentence: no event could be stored."""
    with MockServer("--events", "10") as mock:
        assert crawl(mock, database).status == 0
        database.execute("ALTER TABLE events ADD COLUMN owner text NOT NULL DEFAULT 'me'")
        assert crawl(mock, database).status == 0
        database.execute("ALTER TABLE events ALTER COLUMN owner DROP DEFAULT")
        done = crawl(mock, database)
    assert done.status == 2
    assert "owner is not ours and must have a value" in done.log
