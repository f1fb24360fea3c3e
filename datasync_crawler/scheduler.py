"""Scrapy's scheduler with delayed requests and without a queue on disk.

The ledger says what is to be fetched, so a queue in JOBDIR would be of no use to the next process.
Queues that an earlier version left in JOBDIR stay untouched: a pickle is never read. Must not
decide what is fetched.
"""

import asyncio
from typing import TYPE_CHECKING

from scrapy.core.scheduler import Scheduler

from datasync_crawler import signals
from datasync_crawler.request_notes import take_delay_s

if TYPE_CHECKING:
    from scrapy import Request, Spider
    from twisted.internet.defer import Deferred


class LedgerScheduler(Scheduler):
    """Settings: none. JOBDIR is accepted and ignored."""

    def open(self, spider: "Spider") -> "Deferred[None] | None":
        """Starts empty: the planner asks for what the ledger lacks."""
        self._delayed: dict[Request, asyncio.TimerHandle] = {}
        self._stopped = False
        self.dqdir = None
        assert self.crawler is not None
        self.crawler.signals.connect(self._stopping, signals.stopping)
        return super().open(spider)

    def enqueue_request(self, request: "Request") -> bool:
        """Schedules *request*, after the delay that a retry has noted on it.

        Returns False for a delayed request while the crawl is closing.
        """
        delay_s = take_delay_s(request)
        if delay_s <= 0:
            return super().enqueue_request(request)
        if self._stopped:
            return False
        loop = asyncio.get_running_loop()
        self._delayed[request] = loop.call_later(delay_s, self._release, request)
        return True

    def has_pending_requests(self) -> bool:
        """Whether requests are queued or delayed."""
        return bool(self._delayed) or super().has_pending_requests()

    def _release(self, request: "Request") -> None:
        del self._delayed[request]
        assert self.crawler is not None
        self.crawler.engine.crawl(request)

    def _stopping(self) -> None:
        self._stopped = True
        for timer in self._delayed.values():
            timer.cancel()
        self._delayed.clear()
