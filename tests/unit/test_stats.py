"""What one component tells another is spelled once."""

import re
from collections import defaultdict
from pathlib import Path

PACKAGE = Path("datasync_crawler")
STAT = re.compile(r'"((?:crawl|events|pages|database|rate_limit|latency|throttle|retry)/[a-z_/]+)')
NOTE = re.compile(r'(?:meta(?:\.get|\.pop)?|cb_kwargs(?:\.get)?)[\[(]"(\w+)"')
#: Set by Scrapy, or with a meaning of its own there.
SCRAPYS = {"retry_times", "download_latency", "proxy"}


def modules_of(pattern: re.Pattern[str]) -> dict[str, set[str]]:
    """The modules that spell each name."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in PACKAGE.rglob("*.py"):
        for name in pattern.findall(file.read_text(encoding="utf-8")):
            found[name].add(str(file))
    return found


def test_a_stat_is_spelled_in_one_module():
    """A name that a second module needs is in stats.py: a slip would be read as 0, in silence."""
    found = modules_of(STAT)
    assert len(found) > 40
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def test_a_note_on_a_request_is_spelled_in_one_module():
    """Keys of meta and cb_kwargs that components share are in request_notes.py alone."""
    found = modules_of(NOTE)
    assert "number" in found
    shared = {name: files for name, files in found.items() if len(files) > 1}
    assert shared.keys() <= SCRAPYS | {"ask"}
    assert shared.get("ask", set()) <= {
        str(PACKAGE / "request_notes.py"), str(PACKAGE / "spiders" / "events.py")
    }  # fmt: skip
