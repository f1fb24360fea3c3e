"""Progress: a live panel in a terminal, else a line every few seconds; at the end the summary.

Settings: PROGRESS_INTERVAL (0: neither). Reads stats. Must not touch the database.
"""

import logging
import sys
import time
from typing import TYPE_CHECKING, Final

from scrapy import signals
from scrapy.utils.asyncio import AsyncioLoopingCall

from datasync_crawler import stats as stat
from datasync_crawler.app import Component
from datasync_crawler.extensions.flight import Flight
from datasync_crawler.monitor import progress, summary

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

    from datasync_crawler.monitor.panel import Panel

logger = logging.getLogger(__name__)

#: Seconds between two drawings of the panel. One takes 2 ms: every half second, 1.7 % of a crawl.
PANEL_INTERVAL_S: Final = 1.0


class Progress(Component):
    """Shows the figures and lines of `monitor.progress` and `monitor.summary`."""

    def __init__(self, crawler: "Crawler") -> None:
        self._crawler = crawler
        self._interval_s = crawler.settings.getfloat("PROGRESS_INTERVAL")
        self._started_at = time.monotonic()
        self._meter = progress.Meter(self._started_at)
        self._loop = AsyncioLoopingCall(self._say)
        self._panel: Panel | None = None
        crawler.signals.connect(self._spider_opened, signals.spider_opened)
        crawler.signals.connect(self._spider_closed, signals.spider_closed)

    def _spider_opened(self) -> None:
        self._started_at = time.monotonic()
        self._meter = progress.Meter(self._started_at)
        if self._interval_s <= 0:
            return
        self._panel = _panel()
        self._loop.start(PANEL_INTERVAL_S if self._panel else self._interval_s, now=False)

    def _say(self) -> None:
        figures = self._figures()
        if self._panel is None:
            if not figures.follows:  # between two looks nothing changes
                logger.info("%s", progress.line(figures))
        else:
            self._panel.show(figures)

    def _figures(self) -> progress.Figures:
        now, stats = time.monotonic(), self._crawler.stats.get_stats()
        flight = self._crawler.get_extension(Flight)
        gaps = 0 if flight is None else flight.ranges.gaps(now, stats.get(stat.TOTAL))
        return self._meter.read(now, time.time(), stats, gaps=gaps)

    def _spider_closed(self, reason: str) -> None:
        if self._loop.running:
            self._loop.stop()
        lasted_s = time.monotonic() - self._started_at
        stats = self._crawler.stats.get_stats()
        outcome = summary.outcome(progress.ended(reason, stats), lasted_s, stats)
        panel, self._panel = self._panel, None
        if panel is not None:
            panel.stop()
            schema = self._crawler.settings.get("DB_SCHEMA") or "public"
            whereabouts = [
                ("the rows", f"table {schema}.events: scrapy psql opens it"),
                ("next", "scrapy verify" if outcome.complete else "scrapy status"),
            ]
            panel.summary([*summary.rows(outcome), *whereabouts], summary.verdict(outcome))
        if panel is None or self._crawler.settings.get("LOG_FILE"):
            for line in summary.summary(outcome):
                # A warning, so that LOG_LEVEL=WARNING shows it.
                missing = line.startswith("NOT complete")
                logger.log(logging.WARNING if missing else logging.INFO, "%s", line)


def _panel() -> "Panel | None":
    """A started panel, when standard error is a terminal that can show one."""
    if not sys.stderr.isatty():
        return None
    from datasync_crawler.monitor.panel import Panel  # noqa: PLC0415  # 0.1 s

    panel = Panel(sys.stderr)
    if not panel.is_possible:
        return None
    panel.start()
    return panel
