"""scheduler.py on real queue files: whatever a JOBDIR holds, the crawl starts, and empty."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import scrapy
from scrapy.utils.test import get_crawler

from datasync_crawler import signals
from datasync_crawler.scheduler import LedgerScheduler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

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


def left_behind(jobdir: Path, count: int = 5) -> Path:
    """Lets an earlier process stop cleanly with requests in its queue; gives the queue's folder."""

    async def scenario() -> None:
        async with opened(jobdir) as scheduler:
            for number in range(count):
                assert scheduler.enqueue_request(
                    request(number, priority=number % 2, callback=scheduler.spider.parse)
                )
            assert scheduler.has_pending_requests() == (count > 0)

    asyncio.run(scenario())
    return jobdir / "requests.queue"


def reopened(jobdir: Path) -> int:
    """Opens it again: it has to be empty and to work. Gives the requests that were counted."""

    async def scenario() -> int:
        async with opened(jobdir) as scheduler:
            assert not scheduler.has_pending_requests()
            assert scheduler.next_request() is None
            assert scheduler.enqueue_request(request(77))
            taken = scheduler.next_request()
            assert taken is not None
            assert taken.url.endswith("=77")
            assert scheduler.next_request() is None
            assert scheduler.stats is not None
            left = scheduler.stats.get_value("scheduler/left_in_jobdir")
            assert isinstance(left, int)
            return left

    return asyncio.run(scenario())


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings of our own logger so far."""
    caplog.set_level(logging.INFO)

    def read() -> list[str]:
        return [
            record.getMessage()
            for record in caplog.records
            if record.levelno >= logging.WARNING and record.name == "datasync_crawler.scheduler"
        ]

    return read


def test_without_a_jobdir_nothing_is_kept() -> None:
    """Requests live in memory, and nothing of a queue is said."""

    async def scenario() -> None:
        async with opened(None) as scheduler:
            assert scheduler.enqueue_request(request(1))
            assert scheduler.has_pending_requests()
            assert scheduler.next_request() is not None
            assert not scheduler.has_pending_requests()
            assert scheduler.stats is not None
            assert scheduler.stats.get_value("scheduler/left_in_jobdir") is None

    asyncio.run(scenario())


def test_a_clean_stop_is_no_warning(tmp_path: Path, warnings: Callable[[], list[str]]) -> None:
    """What a stopped run left is counted, told of once, and dropped: the ledger plans anew."""
    left_behind(tmp_path)
    assert reopened(tmp_path) == 5
    assert reopened(tmp_path) == 0
    assert warnings() == []


def test_an_empty_stop_is_no_warning(tmp_path: Path, warnings: Callable[[], list[str]]) -> None:
    """A run that ended with nothing to do leaves a queue without requests."""
    left_behind(tmp_path, count=0)
    assert reopened(tmp_path) == 0
    assert warnings() == []


def data_files(queue: Path) -> Iterator[Path]:
    found = [path for path in queue.rglob("*") if path.is_file() and path.name != "active.json"]
    assert found
    yield from found


def killed(queue: Path) -> None:
    """A killed process hasn't written active.json."""
    (queue / "active.json").unlink()


def truncated(queue: Path) -> None:
    for path in data_files(queue):
        path.write_bytes(path.read_bytes()[:-7])


def emptied(queue: Path) -> None:
    for path in data_files(queue):
        path.write_bytes(b"")


def zeroed(queue: Path) -> None:
    """As a file is found after a power failure."""
    for path in data_files(queue):
        path.write_bytes(bytes(path.stat().st_size))


def deleted(queue: Path) -> None:
    for path in data_files(queue):
        path.unlink()


def garbage(queue: Path) -> None:
    """Whole records of which none is a pickle."""
    for path in data_files(queue):
        path.write_bytes(
            path.read_bytes().replace(b"http", b"\x80\xff\x00.").replace(b"\x80", b".")
        )


def overcounted(queue: Path) -> None:
    """The file's own count says four thousand million."""
    for path in data_files(queue):
        path.write_bytes(b"\xff\xff\xff\xff" + path.read_bytes()[4:])


def another_spiders(queue: Path) -> None:
    """A callback that this spider doesn't have."""
    for path in data_files(queue):
        path.write_bytes(path.read_bytes().replace(b"parse", b"prase"))


def folders_in_place_of_files(queue: Path) -> None:
    for path in list(data_files(queue)):
        path.unlink()
        path.mkdir()


def index_is(content: bytes) -> Callable[[Path], None]:
    def damage(queue: Path) -> None:
        (queue / "active.json").write_bytes(content)

    damage.__name__ = repr(content)
    return damage


DAMAGES: list[Callable[[Path], None]] = [
    killed, truncated, emptied, zeroed, deleted, garbage, overcounted, another_spiders,
    folders_in_place_of_files,
    *map(index_is, (b"", b"{", b"null", b"[]", b"{}", b"42", b'"x"', b"\xff", b"[1e400]", b"[[[",
                    b'{"127.0.0.1": "x"}', b'{"../../x": [0]}', b'{"127.0.0.1": [99]}')),
]  # fmt: skip


# queuelib doesn't close a file whose header it can't read.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_queue_is_told_of_and_replaced(
    damage: Callable[[Path], None], tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    """Whatever was done to the files: no exception, one warning that says that nothing is lost, an
    empty queue that works, and nothing to warn of the next time.
    """
    queue = left_behind(tmp_path)
    damage(queue)
    reopened(tmp_path)
    said = warnings()
    assert len(said) == 1, said
    assert "Nothing is lost: the ledger" in said[0]
    reopened(tmp_path)
    assert len(warnings()) == 1


def test_a_deleted_queue_is_no_news(tmp_path: Path, warnings: Callable[[], list[str]]) -> None:
    """Who deletes the whole folder wants to begin without it."""
    shutil.rmtree(left_behind(tmp_path))
    assert reopened(tmp_path) == 0
    assert warnings() == []


def test_a_clean_stop_writes_the_index(tmp_path: Path) -> None:
    """What lets the next process tell a clean stop from a kill."""
    queue = left_behind(tmp_path)
    assert json.loads((queue / "active.json").read_text())


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
    """A stop waits for nothing: their ranges are holes that the next run finds."""

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
