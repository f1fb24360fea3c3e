"""Progress for a person: a line every few seconds, and the summary at the end.

Settings: PROGRESS_INTERVAL. Reads stats, sends no signals. Must not touch the database.
"""

import logging
import time
from typing import TYPE_CHECKING, Self

from scrapy import signals
from scrapy.utils.asyncio import AsyncioLoopingCall

from datasync_crawler.core import progress
from datasync_crawler.extensions.flight import Flight

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

logger = logging.getLogger(__name__)


class Progress:
    """Logs what `core.progress` says of the stats."""

    def __init__(self, crawler: "Crawler") -> None:
        self._crawler = crawler
        self._interval_s = crawler.settings.getfloat("PROGRESS_INTERVAL")
        self._started_at = time.monotonic()
        self._meter = progress.Meter(self._started_at)
        self._loop = AsyncioLoopingCall(self._say)
        crawler.signals.connect(self._spider_opened, signals.spider_opened)
        crawler.signals.connect(self._spider_closed, signals.spider_closed)

    @classmethod
    def from_crawler(cls, crawler: "Crawler") -> Self:
        """Scrapy's constructor."""
        return cls(crawler)

    def _spider_opened(self) -> None:
        self._started_at = time.monotonic()
        self._meter = progress.Meter(self._started_at)
        if self._interval_s > 0:
            self._loop.start(self._interval_s, now=False)

    def _say(self) -> None:
        logger.info("%s", progress.line(self._figures()))

    def _figures(self) -> progress.Figures:
        now, stats = time.monotonic(), self._crawler.stats.get_stats()
        flight = self._crawler.get_extension(Flight)
        holes = 0 if flight is None else flight.ranges.holes(now, stats.get("crawl/total"))
        return self._meter.read(now, time.time(), stats, holes=holes)

    def _spider_closed(self, reason: str) -> None:
        if self._loop.running:
            self._loop.stop()
        lasted_s = time.monotonic() - self._started_at
        for line in progress.summary(
            progress.outcome(reason, lasted_s, self._crawler.stats.get_stats())
        ):
            logger.info("%s", line)
