"""commands/ingest.py: what the processes of one crawl share, and what each has for itself."""

from __future__ import annotations

from argparse import Namespace

import pytest
from scrapy.settings import Settings

from datasync_crawler.commands.ingest import _commands


def options(*pairs: str, logfile: str | None = None) -> Namespace:
    return Namespace(set=list(pairs), logfile=logfile, loglevel="DEBUG", nolog=False)


@pytest.mark.parametrize(
    "given",
    [options("WORKERS=4", logfile="a.log"), options("LOG_FILE=a.log", "WORKERS=4")],
    ids=["option", "setting"],
)
def test_the_log_file_is_the_first_process_s(given: Namespace) -> None:
    """Two processes in one file would overwrite each other; all else holds for all."""
    commands = _commands(given, Settings())
    assert "a.log" in " ".join(commands.first)
    assert "a.log" not in " ".join(commands.other)
    assert commands.other[-3:] == ["-s", "WORKERS=4", "--loglevel=DEBUG"]


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_the_other_pages_have_a_free_port_of_this_machine(host: str) -> None:
    """Whether the first one's port stands in `-s`, the environment or .env; no port, no page."""
    given = options(f"DASHBOARD_HOST={host}", "DASHBOARD_PORT=8765")
    commands = _commands(given, Settings({"DASHBOARD_PORT": "8765"}))
    assert commands.first[-5:-1] == ["-s", f"DASHBOARD_HOST={host}", "-s", "DASHBOARD_PORT=8765"]
    last = ["-s", "DASHBOARD_PORT=0", "-s", "DASHBOARD_HOST=127.0.0.1", "--loglevel=DEBUG"]
    assert commands.other[-5:] == last
    assert "DASHBOARD" not in " ".join(_commands(options(), Settings()).other)
