"""Stopping: announces that the crawl is closing, and closes it when a component requests that.

Uses no settings. Sends `signals.stopping`, handles `signals.stop_requested`.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from scrapy import signals as scrapy_signals
from scrapy.utils.asyncio import AsyncioLoopingCall

from datasync_crawler import signals
from datasync_crawler import stats as stat
from datasync_crawler.app import Component
from datasync_crawler.store.connection import cut_all

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

logger = logging.getLogger(__name__)

#: Seconds, after which a database that doesn't answer is cut off.
LONGEST_STOP_S: Final = 20.0
#: Seconds between two checks whether the engine is closing: Scrapy has no signal for it.
POLL_S: Final = 0.1


class StopControl(Component):
    """Polls the engine, and closes the crawl on `stop_requested`."""

    def __init__(self, crawler: "Crawler") -> None:
        self._crawler = crawler
        self._announced = False
        self._closing: asyncio.Task[None] | None = None
        self._watch = AsyncioLoopingCall(self._look)
        crawler.signals.connect(self._engine_started, scrapy_signals.engine_started)
        crawler.signals.connect(self._spider_closed, scrapy_signals.spider_closed)
        crawler.signals.connect(self._stop_requested, signals.stop_requested)

    def _engine_started(self) -> None:
        self._watch.start(POLL_S)

    def _spider_closed(self) -> None:
        if self._watch.running:
            self._watch.stop()

    def _look(self) -> None:
        engine = self._crawler.engine
        # Scrapy 2.19 has no public attribute for a closing engine.
        slot = engine._slot
        if engine._stopping or (slot is not None and slot.closing is not None):
            self._announce()

    def _announce(self) -> None:
        if not self._announced:
            self._announced = True
            self._crawler.signals.send_catch_log(signals.stopping)
            # A page whose commit is cut off is committed or a gap.
            asyncio.get_running_loop().call_later(LONGEST_STOP_S, cut_all)

    def _stop_requested(self, reason: str, sentence: str) -> None:
        if self._closing is not None:
            return
        stats = self._crawler.stats
        if self._announced:  # already closing: the cause of the first failure is kept
            if stats.get_value(stat.STOP_SENTENCE) is None:
                stats.set_value(stat.STOP_SENTENCE, sentence)
            return
        logger.debug("%s", sentence)  # the run's last line says it
        stats.set_value(stat.STOP_SENTENCE, sentence)
        self._closing = asyncio.ensure_future(
            self._crawler.engine.close_spider_async(reason=reason)
        )
        self._announce()
