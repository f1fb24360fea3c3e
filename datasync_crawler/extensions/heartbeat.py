"""The heartbeat: writes the run's figures into ``crawl_runs`` every second, and the run's end.

Settings: HEARTBEAT_INTERVAL and the database's. Reads stats. When the database is away the next
beat tries again; the writers wait for it.
"""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from scrapy import signals
from scrapy.utils.asyncio import AsyncioLoopingCall

from datasync_crawler import stats as stat
from datasync_crawler.app import App, Component
from datasync_crawler.extensions.flight import Flight
from datasync_crawler.monitor import progress
from datasync_crawler.store.connection import STORE_ERRORS
from datasync_crawler.store.runs import RunLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from scrapy.crawler import Crawler

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Groups of stats that are written: the part before the slash.
GROUPS: Final = {
    "crawl", "database", "downloader", "events", "latency", "pages", "rate_limit", "retry",
    "scheduler", "throttle",
}  # fmt: skip
#: Beats between two thinnings of the samples, the first of them at the start.
THIN_EVERY: Final = 300
#: Histograms that a sample holds, by the beginning of their stats' names.
HISTOGRAMS: Final = (stat.LATENCY_BUCKET, stat.COMMIT_BUCKET)
#: Ranges of each state in a beat, at most.
MOST_RANGES: Final = 64


class Heartbeat(Component):
    """Writes on a thread of its own, one beat at a time; a slow database skips beats."""

    def __init__(self, crawler: "Crawler") -> None:
        self._crawler = crawler
        self._app = App.of(crawler)
        self._interval_s = crawler.settings.getfloat("HEARTBEAT_INTERVAL")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="heartbeat")
        self._loop = AsyncioLoopingCall(self._beat)
        self._meter = progress.Meter(time.monotonic())
        self._log: RunLog | None = None
        self._beats = 0
        self._others_before: int | None = None  # events that others had received at the start
        self._busy = False
        self._away = False
        crawler.signals.connect(self._spider_opened, signals.spider_opened)
        crawler.signals.connect(self._spider_closed, signals.spider_closed)

    def _spider_opened(self) -> None:
        run_id = self._crawler.stats.get_value(stat.RUN_ID)
        if run_id is None:
            return  # the database couldn't be opened, which the pipeline has logged
        self._meter = progress.Meter(time.monotonic())
        self._log = RunLog(self._app.database, self._app.config.schema, run_id)
        self._loop.start(self._interval_s)

    def _stats(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The run's stats with its current figures, and the sample of them that is kept."""
        now = time.monotonic()
        stats = self._crawler.stats.get_stats()
        flight = self._crawler.get_extension(Flight)
        gaps = 0 if flight is None else flight.ranges.gaps(now, stats.get(stat.TOTAL))
        figures = self._meter.read(now, time.time(), stats, gaps=gaps)
        written = {name: value for name, value in stats.items() if name.split("/")[0] in GROUPS}
        written["now"] = msgspec.to_builtins(figures)
        if flight is not None:
            ranges = flight.ranges.ranges(now, figures.traffic.in_flight)
            written["ranges"] = {state: few[:MOST_RANGES] for state, few in ranges.items()}
        return written, _sample(stats, figures)

    def _beat(self) -> None:
        if self._busy or self._log is None:
            return
        self._busy = True
        (stats, sample), log, thin = self._stats(), self._log, self._beats % THIN_EVERY == 0
        self._beats += 1

        def beat() -> tuple[int, int]:
            others = log.beat(stats, sample)
            if thin:
                log.thin()
            return others

        beating = asyncio.ensure_future(self._in_thread(beat))
        beating.add_done_callback(self._beaten)

    def _beaten(self, beating: "asyncio.Task[tuple[int, int]]") -> None:
        self._busy = False
        problem = beating.exception()
        if problem is None:
            others, received = beating.result()
            if self._others_before is None:
                self._others_before = received
            set_value = self._crawler.stats.set_value
            set_value(stat.PROCESSES, 1 + others)
            set_value(stat.RECEIVED_BY_OTHERS, received - self._others_before)
        if problem is not None and not self._away:
            logger.warning("The heartbeat can't be written for now (%s).", type(problem).__name__)
        self._away = problem is not None

    async def _spider_closed(self, reason: str) -> None:
        if self._loop.running:
            self._loop.stop()
        log = self._log
        if log is not None:
            stats, sample = self._stats()
            try:
                ended = progress.ended(reason, stats)
                await self._in_thread(lambda: log.finish(ended, stats, sample))
            except STORE_ERRORS as error:
                logger.warning("The run's end can't be written (%s).", type(error).__name__)
            await self._in_thread(log.close)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, function: "Callable[[], T]") -> "T":
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def _sample(stats: dict[str, Any], figures: progress.Figures) -> dict[str, Any]:
    """A sample: growing sums and histograms, and the quota. Times in seconds."""
    api = figures.traffic
    histograms = {name: n for name, n in stats.items() if name.startswith(HISTOGRAMS)}
    return {
        **histograms,
        "done": figures.done,
        "received": stats.get(stat.RECEIVED, 0),
        "responses": stats.get("downloader/response_count", 0),
        "in_flight": api.in_flight,
        "remaining": api.remaining,
        "limit": api.limit,
        "paused": api.paused_for_s > 0,
    }
