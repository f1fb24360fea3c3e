"""Whatever happens to a request, the crawl ends: components of a user's own that fail or drop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from crawling import PROJECT, crawl
from mockserver import MockServer

if TYPE_CHECKING:
    from pathlib import Path

    from databases import Database

COMPONENTS = '''
class DropsRequests:
    """A spider middleware that lets no request of offset 398 through."""

    async def process_start(self, start):
        async for request in start:
            if "offset=398" not in request.url:
                yield request


class DropsPages:
    """A spider middleware that swallows one page."""

    async def process_spider_output(self, response, result):
        async for one in result:
            if "offset=398" not in response.url:
                yield one


class Fails:
    """A spider middleware that fails over one page."""

    def process_spider_input(self, response):
        if "offset=398" in response.url:
            raise RuntimeError("no")
'''


@pytest.mark.parametrize("component", ["DropsRequests", "DropsPages", "Fails"])
def test_a_page_that_a_users_component_loses_is_named(
    database: Database, tmp_path: Path, component: str
) -> None:
    """The crawl ends with 1, with all other pages stored and the offsets in the last line."""
    (tmp_path / "users_own.py").write_text(COMPONENTS)
    middlewares = f'{{"users_own.{component}": 500}}'
    env = {"PYTHONPATH": f"{tmp_path}:{PROJECT}"}
    args = ("-s", "BULK_PAGE_SIZE=200", "-s", f"SPIDER_MIDDLEWARES={middlewares}",
            "-s", "RETRY_TIMES=1", "-s", "RETRY_BACKOFF_BASE=0.02")  # fmt: skip
    with MockServer("--events", "1000") as mock:
        done = crawl(mock, database, *args, env=env, timeout_s=110)
    assert done.status == 1, done.log
    assert "offsets 399–597" in done.log
    assert database.value("SELECT count(*) FROM events") == 1000 - 199
