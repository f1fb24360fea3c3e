"""Batching: collects pages and passes them to writer threads while other pages are fetched.

Owns the database session and the writer threads. `process_item` returns when the page is committed,
so that Scrapy counts it as active and stops fetching at SCRAPER_SLOT_MAX_ACTIVE_SIZE. Must not run
SQL or change events.
"""

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from scrapy.exceptions import CloseSpider, DropItem
from scrapy.utils.asyncio import run_in_thread

from datasync_crawler import signals
from datasync_crawler import stats as stat
from datasync_crawler.app import App, Component
from datasync_crawler.crawl.values import LeaseLost
from datasync_crawler.errors import CrawlError
from datasync_crawler.monitor.progress import bucket
from datasync_crawler.store.connection import STORE_ERRORS, one_line
from datasync_crawler.store.session import Session
from datasync_crawler.store.writer import Writer

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.settings import BaseSettings

    from datasync_crawler.items import EventPage


#: Longest wait of a page for others in its transaction, in seconds.
LONGEST_WAIT_S: Final = 0.2

Waiting = tuple["EventPage", "asyncio.Future[None]"]


class PostgresPipeline(Component):
    """Settings: the database's, DB_WRITERS, BATCH_ROWS, DB_MAX_WAIT, ON_DUPLICATE.

    Stats: events/…, database/…. Stops the crawl when the database is lost.
    """

    def __init__(self, crawler: "Crawler") -> None:
        self._crawler = crawler
        app = App.of(crawler)
        self._config, self._stop = app.config, app.stop
        self._session = Session(app.database, self._config.schema)
        self._waiting: deque[Waiting] = deque()
        self._waiting_rows = 0
        self._idle: list[Writer] = []
        self._writing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._threads = ThreadPoolExecutor(self._config.db_writers, thread_name_prefix="writer")
        self._values_are_as_served = _only_ours(crawler.settings)
        crawler.signals.connect(self._stopping, signals.stopping)

    async def open_spider(self) -> None:
        """Opens the session. A database error ends the crawl with its sentence."""
        config = self._config
        try:
            run_id = await run_in_thread(
                self._session.open,
                api_base_url=config.api_base_url,
                pagination=config.pagination,
            )
        except CrawlError as error:
            self._crawler.stats.set_value(stat.STOP_SENTENCE, str(error))
            raise CloseSpider(error.reason) from None
        self._crawler.stats.set_value(stat.RUN_ID, run_id)
        self._idle = [
            Writer(
                self._session,
                on_duplicate=config.on_duplicate,
                max_wait_s=config.db_max_wait_s,
                stop=self._stop,
            )
            for _ in range(config.db_writers)
        ]

    async def process_item(self, item: "EventPage") -> "EventPage":
        """Returns the page when it is committed; drops it, which leaves a gap, when it can't be."""
        # `plain` holds for the body as served, not for values that a user's component has changed.
        item.plain = item.plain and self._values_are_as_served
        loop = asyncio.get_running_loop()
        committed: asyncio.Future[None] = loop.create_future()
        self._waiting.append((item, committed))
        self._waiting_rows += item.received
        if self._waiting_rows >= self._config.batch_rows or item.alone:
            self._dispatch(even_if_small=item.alone)
        elif self._timer is None:
            self._timer = loop.call_later(LONGEST_WAIT_S, self._flush)
        try:
            await committed
        except LeaseLost as error:
            raise DropItem(str(error), log_level="DEBUG") from None
        except STORE_ERRORS as error:
            # A CrawlError ends the crawl, which logs it once; others are logged for each page.
            logged = isinstance(error, CrawlError)
            raise DropItem(one_line(error), log_level="DEBUG" if logged else "WARNING") from None
        return item

    async def close_spider(self) -> None:
        """Closes the connections; Scrapy has waited for all pages by then."""
        if self._timer is not None:
            self._timer.cancel()
        await run_in_thread(self._close)

    # --- batches ----------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._timer = None
        self._dispatch(even_if_small=True)

    def _dispatch(self, *, even_if_small: bool = False) -> None:
        """Starts idle writers on full batches, and on small ones if *even_if_small*."""
        while (
            self._idle
            and self._waiting
            and (even_if_small or self._waiting_rows >= self._config.batch_rows)
        ):
            batch = self._next_batch()
            writing = asyncio.ensure_future(self._write(self._idle.pop(), batch))
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)

    def _next_batch(self) -> list[Waiting]:
        batch = [self._waiting.popleft()]
        rows = batch[0][0].received
        while self._waiting and rows + self._waiting[0][0].received <= self._config.batch_rows:
            batch.append(self._waiting.popleft())
            rows += batch[-1][0].received
        self._waiting_rows -= rows
        return batch

    async def _write(self, writer: Writer, batch: list[Waiting]) -> None:
        loop = asyncio.get_running_loop()
        pages = [page for page, _ in batch]
        problem: Exception | None = None
        try:
            await loop.run_in_executor(self._threads, writer.write, pages)
        except Exception as error:  # noqa: BLE001  # raised for each page below
            problem = error
        self._idle.append(writer)
        self._count(pages, writer)
        if isinstance(problem, CrawlError):
            self._crawler.signals.send_catch_log(
                signals.stop_requested, reason=problem.reason, sentence=str(problem)
            )
        for page, committed in batch:
            if committed.done():
                continue
            if page.committed:
                committed.set_result(None)
            elif page.fenced:
                committed.set_exception(LeaseLost("its lease is another process's"))
            else:
                committed.set_exception(problem or RuntimeError(f"{page!r} wasn't committed"))
        # Pages that came while all writers were busy have waited long enough.
        self._dispatch(even_if_small=self._timer is None)

    def _count(self, pages: list["EventPage"], writer: Writer) -> None:
        stats = self._crawler.stats
        for page in pages:
            if page.committed:
                stats.inc_value(stat.PAGES_COMMITTED)
                stats.inc_value(stat.RECEIVED, page.received)
                stats.inc_value(stat.INSERTED, page.inserted)
                stats.inc_value(stat.DUPLICATES, page.duplicates)
                if page.pass_no > 0:  # else it is counted where it stands in the pass
                    stats.inc_value(stat.CHANGED, page.changed)
                stats.inc_value(stat.REJECTED, page.rejected)
        done = writer.stats
        stats.inc_value(stat.TRANSACTIONS, done.transactions)
        stats.inc_value("database/merges", done.merges)
        stats.inc_value(stat.RECONNECTS, done.reconnects)
        stats.inc_value("database/refused_rows", done.refused_rows)
        write_s = stats.get_value(stat.WRITE_S, 0.0) + done.seconds
        stats.set_value(stat.WRITE_S, round(write_s, 3))
        if done.transactions:
            commit_s = done.seconds / done.transactions
            stats.inc_value(f"{stat.COMMIT_BUCKET}{bucket(commit_s)}", done.transactions)
        writer.reset_stats()

    def _stopping(self) -> None:
        self._dispatch(even_if_small=True)

    def _close(self) -> None:
        for writer in self._idle:
            writer.close()
        self._threads.shutdown()


def _only_ours(settings: "BaseSettings") -> bool:
    """Whether only the project's own pipelines and spider handle a page before it is stored.

    Checking the events for changes instead would cost a third of the time of encoding a page.
    """
    pipelines = settings.getdict("ITEM_PIPELINES")
    used = [name for name, place in pipelines.items() if place is not None]
    modules = [name if isinstance(name, str) else name.__module__ for name in used]
    ours = all(name.startswith("datasync_crawler.") for name in modules)
    return ours and not settings.getdict("SPIDER_MIDDLEWARES")
