"""Scrapy's own commands that look at single pages: no run, no lock, no database."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from crawling import PROJECT, environment
from mockserver import MockServer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from databases import Database


def scrapy(*words: str, env: Mapping[str, str]) -> tuple[int, str]:
    """Exit status, and all that was printed."""
    done = subprocess.run(
        [sys.executable, "-m", "scrapy", *words],
        cwd=PROJECT, env=env, capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


COMMANDS = {
    "fetch": (["fetch"], '"total":40'),
    "view": (["view"], "Spider closed (finished)"),
    "shell": (["shell", "-c", "response.json()['meta']"], "'total': 40"),
    "parse": (["parse", "--spider=events", "--nolinks"], "'inserted': 0"),
    "bench": (["bench", "-s", "CLOSESPIDER_TIMEOUT=1"], "closespider_timeout"),
}


@pytest.mark.parametrize(("words", "printed"), COMMANDS.values(), ids=COMMANDS)
def test_looking_at_a_page_opens_no_database(
    database: Database, words: list[str], printed: str
) -> None:
    """The API gets its key and the page is shown; in the database there is nothing, not a table."""
    with MockServer("--events", "40") as mock:
        url = [f"{mock.url}/events/bulk?offset=0&limit=40"] if words[0] != "bench" else []
        env = {**environment(mock, database), "BROWSER": "true"}
        status, said = scrapy(*words, *url, env=env)
    assert printed in said, said
    assert "Traceback" not in said, said
    assert status == 0
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert database.value(tables) == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_without_settings_a_sentence_is_said(name: str) -> None:
    """No traceback: what is missing, how to set it, and 2."""
    env = {**environment(None, None), "API_BASE_URL": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    status, said = scrapy(name, *([] if name == "bench" else ["http://127.0.0.1:1/"]), env=env)
    assert (status, len(said.splitlines())) == (2, 1), said
    assert said.startswith("datasync-crawler: API_BASE_URL isn't set")
