"""A process that sends requests through the gate, for tests of the quota that processes share.

    python tests/support/quota_worker.py URL KEY TOTAL CONCURRENT [NAME=value …]

Work is shared by the sequence `work`: a process takes the next number and asks for that page until
it is served. Prints "ready", begins when a line arrives, and ends after the number TOTAL.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import scrapy
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.settings import Settings
from scrapy.statscollectors import MemoryStatsCollector

from datasync_crawler import signals
from datasync_crawler.app import App
from datasync_crawler.handlers.gate import Gate

if TYPE_CHECKING:
    from datasync_crawler.store.connection import Connector

_open = build_opener(ProxyHandler({})).open


def make_gate(**own: str) -> Gate:
    """A gate without an engine: nothing waits to be stored."""
    settings = Settings()
    settings.setmodule("datasync_crawler.settings")
    settings.setdict(own, priority="cmdline")
    crawler = Crawler(scrapy.Spider, settings)
    crawler._stats = MemoryStatsCollector(crawler)
    engine: Any = SimpleNamespace(scraper=SimpleNamespace(slot=None))
    crawler._engine = engine
    return Gate(crawler, App.of(crawler))


def fetch(url: str, key: str) -> Response:
    """One request, on a thread."""
    try:
        with _open(Request(url, headers={"X-API-Key": key}), timeout=30) as answer:
            return Response(url, answer.status, headers=dict(answer.headers), body=answer.read())
    except HTTPError as error:
        with error:
            return Response(url, error.code, headers=dict(error.headers), body=error.read())


class Work:
    """The numbers that are left, for all processes."""

    def __init__(self, connector: Connector, total: int) -> None:
        self._connection = connector.connect_autocommit()
        self._total = total
        self._mutex = threading.Lock()

    def next(self) -> int | None:
        with self._mutex, self._connection.cursor() as cursor:
            cursor.execute("SELECT nextval('public.work')")
            row = cursor.fetchone()
        assert row is not None
        number: int = row[0]
        return number if number <= self._total else None


async def send(gate: Gate, work: Work, url: str, key: str) -> None:
    """Takes numbers and asks for their pages, one at a time."""
    while (number := await asyncio.to_thread(work.next)) is not None:
        page = f"{url}/events/bulk?offset={number - 1}&limit=1"
        status = 0
        while status != 200:
            sent_at = await gate.acquire()
            answer = await asyncio.to_thread(fetch, page, key)
            gate.answered(answer, sent_at)
            status = answer.status


async def run(url: str, key: str, total: int, concurrent: int, own: dict[str, str]) -> None:
    """Until there are no numbers left."""
    gate = make_gate(API_BASE_URL=url, API_KEY=key, **own)
    work = Work(App.of(gate._crawler).database, total)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.gather(*(send(gate, work, url, key) for _ in range(concurrent)))
    gate._crawler.signals.send_catch_log(signals.stopping)
    await gate._spider_closed()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    base_url, api_key, number, most, *settings = sys.argv[1:]
    asyncio.run(run(base_url, api_key, int(number), int(most),
                    dict(setting.split("=", 1) for setting in settings)))  # fmt: skip
