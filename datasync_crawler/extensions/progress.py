"""Progress for a person: a line every few seconds, and the summary at the end.

Settings: PROGRESS_INTERVAL. Reads stats, sends no signals. Must not touch the database.
"""

import logging
import time
from typing import TYPE_CHECKING, Any, Self

from scrapy import signals
from scrapy.utils.asyncio import AsyncioLoopingCall

from datasync_crawler.core import progress

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

    def _stat(self, name: str, default: Any = 0) -> Any:
        return self._crawler.stats.get_value(name, default)

    def _spider_opened(self) -> None:
        self._started_at = time.monotonic()
        self._meter = progress.Meter(self._started_at)
        if self._interval_s > 0:
            self._loop.start(self._interval_s, now=False)

    def _say(self) -> None:
        received = self._stat("events/received")
        total = self._stat("crawl/total", None)
        done = self._stat("crawl/covered_before") + received - self._stat("events/reread")
        figures = self._meter.figures(
            time.monotonic(),
            received=received,
            done=done if total is None else min(done, total),
            rejected=self._stat("events/rejected"),
            total=total,
        )
        logger.info("%s", progress.line(figures))

    def _spider_closed(self, reason: str) -> None:
        if self._loop.running:
            self._loop.stop()
        outcome = progress.Outcome(
            reason=reason,
            complete=self._stat("crawl/complete", default=False),
            total=self._stat("crawl/total", None),
            stored=self._stat("crawl/stored", None),
            received=self._stat("events/received"),
            inserted=self._stat("events/inserted"),
            duplicates=self._stat("events/duplicates") - self._stat("events/reread"),
            reread=self._stat("events/reread"),
            changed=self._stat("events/changed"),
            rejected_now=self._stat("crawl/rejected_now", None),
            rejected=self._stat("events/rejected"),
            seconds=time.monotonic() - self._started_at,
            missing=self._stat("crawl/missing", None),
            added_since=self._stat("crawl/added_since"),
            sentence=self._stat("crawl/stop_sentence", None),
        )
        for line in progress.summary(outcome):
            logger.info("%s", line)
