"""A baseline: Scrapy as its tutorial has it, an item per event, with a pipeline that COPYs batches.

    python benchmarks/per_event.py < JOB

JOB as for loaders.py. Prints the seconds from the spider's opening to the last commit.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import psycopg2
import scrapy
from loaders import BATCH_ROWS, IN_FLIGHT, copy_events
from scrapy.crawler import CrawlerProcess
from scrapy.utils.asyncio import run_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

JOB: dict[str, Any] = {}


class EventSpider(scrapy.Spider):
    """A request a page, an item an event."""

    name = "per_event"

    async def start(self) -> AsyncIterator[scrapy.Request]:
        for offset in range(0, JOB["events"], JOB["limit"]):
            url = f"{JOB['url']}/events/bulk?offset={offset}&limit={JOB['limit']}"
            yield scrapy.Request(url, headers={"X-API-Key": JOB["key"]}, dont_filter=True)

    def parse(self, response: Any) -> Iterator[dict[str, Any]]:
        yield from response.json()["data"]


class CopyPipeline:
    """Collects items and writes them off the event loop, 5,000 a transaction."""

    def open_spider(self) -> None:
        self.began = time.perf_counter()
        self.connection = psycopg2.connect(JOB["dsn"])
        self.one_at_a_time = asyncio.Lock()
        self.waiting: list[dict[str, Any]] = []

    async def process_item(self, item: dict[str, Any]) -> dict[str, Any]:
        self.waiting.append(item)
        if len(self.waiting) >= BATCH_ROWS:
            rows, self.waiting = self.waiting, []
            async with self.one_at_a_time:
                await run_in_thread(copy_events, self.connection, rows)
        return item

    def close_spider(self) -> None:
        copy_events(self.connection, self.waiting)
        self.connection.close()
        print(time.perf_counter() - self.began)


def main() -> None:
    """Runs the spider."""
    JOB.update(json.load(sys.stdin))
    process = CrawlerProcess(
        {
            "ITEM_PIPELINES": {CopyPipeline: 100},
            "CONCURRENT_REQUESTS": IN_FLIGHT,
            "CONCURRENT_REQUESTS_PER_DOMAIN": IN_FLIGHT,
            "DOWNLOAD_DELAY": 0,
            "ROBOTSTXT_OBEY": False,
            "COOKIES_ENABLED": False,
            "TELNETCONSOLE_ENABLED": False,
            "LOG_LEVEL": "ERROR",
            "DEFAULT_REQUEST_HEADERS": {"Accept-Encoding": "identity"},
        }
    )
    process.crawl(EventSpider)
    process.start()


if __name__ == "__main__":
    main()
