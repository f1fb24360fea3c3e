"""A user's own pipeline beside ours: what it changes is stored as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from crawling import crawl
from mockserver import MockServer

if TYPE_CHECKING:
    from pathlib import Path

    from databases import Database

#: All that COPY's text format escapes, and what looks like its escapes.
NAME = "tab\there, line\nthere, back\\slash, \\N, \r, \\."
PIPELINE = f"""
class Rename:
    def process_item(self, item):
        for event in item.events:
            event.name = {NAME!r}
        return item
"""


def test_values_that_a_pipeline_has_changed_are_escaped(database: Database, tmp_path: Path) -> None:
    """The pages of the mock need no escaping, and promise so; changed ones do."""
    (tmp_path / "mine.py").write_text(PIPELINE)
    pipelines = {
        "datasync_crawler.pipelines.normalize.NormalizePipeline": 100,
        "mine.Rename": 500,
        "datasync_crawler.pipelines.postgres.PostgresPipeline": 900,
    }
    with MockServer("--events", "50") as mock:
        setting = f"ITEM_PIPELINES={json.dumps(pipelines)}"
        done = crawl(mock, database, "-s", setting, env={"PYTHONPATH": str(tmp_path)})
    assert done.status == 0, done.log
    assert database.execute("SELECT DISTINCT name FROM events") == [(NAME,)]
    assert database.value("SELECT count(*) FROM events") == 50
