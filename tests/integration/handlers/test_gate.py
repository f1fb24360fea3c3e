"""The gate by itself: whoever is let out is counted, and is counted no more when it ends."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import scrapy
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.settings import Settings
from scrapy.statscollectors import MemoryStatsCollector

from datasync_crawler import signals
from datasync_crawler.app import App
from datasync_crawler.handlers.gate import CrawlStopping, Gate

if TYPE_CHECKING:
    from databases import Database


def make_gate(database: Database, **own: str) -> Gate:
    settings = Settings()
    settings.setmodule("datasync_crawler.settings")
    own |= {"API_BASE_URL": "http://127.0.0.1:1/api/v1", **database.environment}
    own.setdefault("API_KEY", "k")
    settings.setdict(own, priority="cmdline")
    crawler = Crawler(scrapy.Spider, settings)
    crawler._stats = MemoryStatsCollector(crawler)
    crawler._engine = SimpleNamespace(scraper=SimpleNamespace(slot=None))  # nothing waits
    return Gate(crawler, App.of(crawler))


async def let_out_next(gate: Gate, sent_at: float) -> None:
    """Answers the one in flight. On return the waiting one is let out, but hasn't run since."""
    await asyncio.sleep(0)
    gate.answered(Response("http://127.0.0.1:1/api/v1", status=200), sent_at)
    assert gate._limiter.in_flight == 0
    await asyncio.sleep(0)
    assert gate._limiter.in_flight == 1


def test_a_request_cancelled_between_its_permit_and_sending_frees_its_place(
    database: Database,
) -> None:
    """Let out and cancelled in the same moment: nobody is in flight, and the next one goes."""

    async def run() -> None:
        gate = make_gate(database)
        sent_at = await gate.acquire()
        waiting = asyncio.ensure_future(gate.acquire())  # the first request of all goes alone
        await let_out_next(gate, sent_at)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert gate._limiter.in_flight == 0
        sent_at = await gate.acquire()
        assert gate._limiter.in_flight == 1
        gate.failed(sent_at)
        gate._stopping()

    asyncio.run(run())


def test_a_request_let_out_as_the_crawl_closes_isnt_sent(database: Database) -> None:
    """Nothing goes out after the stop, and nothing stays counted."""

    async def run() -> None:
        gate = make_gate(database)
        sent_at = await gate.acquire()
        waiting = asyncio.ensure_future(gate.acquire())
        await let_out_next(gate, sent_at)
        gate._crawler.signals.send_catch_log(signals.stopping)
        with pytest.raises(CrawlStopping):
            await waiting
        assert gate._limiter.in_flight == 0
        with pytest.raises(CrawlStopping):
            await gate.acquire()

    asyncio.run(run())


@pytest.mark.parametrize(("workers", "first"), [(2, 8), (100, 100)])
def test_workers_is_the_most_that_is_let_out(database: Database, workers: int, first: int) -> None:
    """Also above the HTTP pool's size: who asks for a hundred in flight gets them."""

    async def run() -> None:
        gate = make_gate(database, WORKERS=str(workers), CONCURRENT_REQUESTS=str(first))
        gate.answered(Response("http://127.0.0.1:1/api/v1", status=200), await gate.acquire())
        permits = [asyncio.ensure_future(gate.acquire()) for _ in range(workers + 1)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sum(permit.done() for permit in permits) == workers
        gate._stopping()
        with pytest.raises(CrawlStopping):
            await permits[-1]

    asyncio.run(run())


def test_a_key_in_a_rate_limit_header_isnt_logged(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """An invalid header is quoted in the log, with our own key taken out."""

    async def run() -> None:
        gate = make_gate(database, API_KEY="a-very-secret-key")
        sent_at = await gate.acquire()
        headers = {"X-RateLimit-Limit": "a-very-secret-key"}
        gate.answered(Response("http://127.0.0.1:1/api/v1", headers=headers), sent_at)
        gate._stopping()

    with caplog.at_level(logging.INFO):
        asyncio.run(run())
    assert "Ignored invalid rate-limit fields: x-ratelimit-limit: [API_KEY]" in caplog.text
    assert "a-very-secret" not in caplog.text
