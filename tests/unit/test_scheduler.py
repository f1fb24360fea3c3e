"""The scheduler: delayed requests, and no queue on disk."""

from __future__ import annotations

import asyncio
import json
import pickle
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import scrapy
from scrapy.utils.test import get_crawler

from datasync_crawler import signals
from datasync_crawler.scheduler import LedgerScheduler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SETTINGS = {
    "SCHEDULER": "datasync_crawler.scheduler.LedgerScheduler",
    "DUPEFILTER_CLASS": "scrapy.dupefilters.BaseDupeFilter",
    "DOWNLOAD_HANDLERS": dict.fromkeys(("data", "file", "ftp", "http", "https")),
    "EXTENSIONS": {"scrapy.extensions.spiderstate.SpiderState": None},
}


class Pages(scrapy.Spider):
    name = "pages"

    def parse(self, response: scrapy.http.Response) -> None:
        """The callback that is named in the queue."""


def request(
    number: int, *, delay_s: float | None = None, priority: int = 0, callback: Any = None
) -> scrapy.Request:
    meta = {} if delay_s is None else {"delay_s": delay_s}
    url = f"http://127.0.0.1/?offset={number}"
    return scrapy.Request(url, callback=callback, meta=meta, priority=priority)


@asynccontextmanager
async def opened(jobdir: Path | None) -> AsyncIterator[LedgerScheduler]:
    """A scheduler as the engine opens it, beside a real engine; closed as by a clean stop."""
    jobdir_setting = {} if jobdir is None else {"JOBDIR": str(jobdir)}
    crawler = get_crawler(Pages, {**SETTINGS, **jobdir_setting})
    crawler.spider = crawler._create_spider()
    crawler.engine = crawler._create_engine()
    try:
        scheduler = LedgerScheduler.from_crawler(crawler)
        assert isinstance(scheduler, LedgerScheduler)
        scheduler.open(crawler.spider)
        yield scheduler
    finally:
        crawler.engine.downloader.close()
    scheduler.close("finished")


def test_requests_live_in_memory() -> None:
    """They come in, go out, and nothing is pending then."""

    async def scenario() -> None:
        async with opened(None) as scheduler:
            assert scheduler.enqueue_request(request(1))
            assert scheduler.has_pending_requests()
            assert scheduler.next_request() is not None
            assert not scheduler.has_pending_requests()

    asyncio.run(scenario())


class Planted:
    """Runs a program when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_nothing_in_a_jobdir_is_unpickled(tmp_path: Path) -> None:
    """A planted queue file runs nothing and stays as it is; the crawl begins with nothing."""
    queue = tmp_path / "state" / "requests.queue"
    mark = tmp_path / "mark"
    (queue / "0").mkdir(parents=True)
    (queue / "active.json").write_text(json.dumps({"": [0]}))
    pickled = pickle.dumps(Planted(mark))
    (queue / "0" / "q00000").write_bytes(pickled + len(pickled).to_bytes(4, "big"))

    async def scenario() -> None:
        async with opened(tmp_path / "state") as scheduler:
            assert not scheduler.has_pending_requests()
            assert scheduler.next_request() is None
            assert scheduler.enqueue_request(request(77))
            assert scheduler.next_request() is not None

    asyncio.run(scenario())
    assert not mark.exists()
    assert (queue / "0" / "q00000").read_bytes().startswith(pickled)


# --- delayed requests -----------------------------------------------------------------------------


def test_a_delayed_request_is_pending_and_comes_when_it_is_time() -> None:
    """It isn't given out before, keeps the crawl alive meanwhile, and the engine gets it then."""

    async def scenario() -> None:
        async with opened(None) as scheduler:
            assert scheduler.crawler is not None
            released: asyncio.Queue[scrapy.Request] = asyncio.Queue()
            scheduler.crawler.engine.crawl = released.put_nowait  # type: ignore[method-assign,assignment]
            late = request(1, delay_s=0.01)
            assert scheduler.enqueue_request(late)
            assert "delay_s" not in late.meta
            assert scheduler.has_pending_requests()
            assert scheduler.next_request() is None
            assert await released.get() is late
            assert not scheduler.has_pending_requests()
            assert scheduler.enqueue_request(late)
            assert scheduler.next_request() is late

    asyncio.run(scenario())


@pytest.mark.parametrize("delay_s", [0, 0.0, -1.0])
def test_no_delay_is_none(delay_s: float) -> None:
    """Zero and less are scheduled at once, and the mark is gone."""

    async def scenario() -> None:
        async with opened(None) as scheduler:
            now = request(1, delay_s=delay_s)
            assert scheduler.enqueue_request(now)
            assert scheduler.next_request() is now
            assert now.meta == {}

    asyncio.run(scenario())


def test_delayed_requests_are_dropped_at_a_stop() -> None:
    """A stop waits for nothing: their ranges are gaps that the next run finds."""

    async def scenario() -> None:
        async with opened(None) as scheduler:
            assert scheduler.crawler is not None
            assert scheduler.enqueue_request(request(1, delay_s=3600))
            assert scheduler.enqueue_request(request(2, delay_s=3600))
            timers = list(scheduler._delayed.values())
            scheduler.crawler.signals.send_catch_log(signals.stopping)
            assert not scheduler.has_pending_requests()
            assert all(timer.cancelled() for timer in timers)

    asyncio.run(scenario())


def test_a_request_delayed_after_the_stop_is_dropped_at_once() -> None:
    """A retry of a download that ends while the crawl closes must not come back after its end."""

    async def scenario() -> None:
        async with opened(None) as scheduler:
            assert scheduler.crawler is not None
            scheduler.crawler.signals.send_catch_log(signals.stopping)
            assert not scheduler.enqueue_request(request(1, delay_s=0.01))
            assert not scheduler.has_pending_requests()

    asyncio.run(scenario())
