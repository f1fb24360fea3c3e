"""Ranges in flight, and the latency of responses.

Uses no settings. Handles Scrapy's signals of requests and items; sets the stats `latency/…`. Other
components read `Flight.ranges`.
"""

import time
from typing import TYPE_CHECKING, Any

from scrapy import signals

from datasync_crawler import stats as stat
from datasync_crawler.app import Component
from datasync_crawler.items import EventPage
from datasync_crawler.monitor import progress
from datasync_crawler.request_notes import ask_of

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler
    from scrapy.http import Response


class Flight(Component):
    """Follows each request from the downloader to the commit of its page."""

    def __init__(self, crawler: "Crawler") -> None:
        self._crawler = crawler
        self.ranges = progress.Flight()
        for handler, signal in (
            (self._sent, signals.request_reached_downloader),
            (self._left, signals.request_left_downloader),
            (self._answered, signals.response_downloaded),
            (self._committed, signals.item_scraped),
        ):
            crawler.signals.connect(handler, signal)

    def _sent(self, request: "Request") -> None:
        ask = ask_of(request)
        if ask is not None and ask.pass_no > 0:
            self.ranges.sent(ask.first, ask.count)

    def _left(self, request: "Request") -> None:
        ask = ask_of(request)
        if ask is not None and ask.pass_no > 0:
            self.ranges.left(ask.first, time.monotonic())

    def _answered(self, response: "Response", request: "Request") -> None:
        latency_s = request.meta.get("download_latency")
        if latency_s is not None:
            stats = self._crawler.stats
            stats.inc_value(f"{stat.LATENCY_BUCKET}{progress.bucket(latency_s)}")
            stats.inc_value("latency/count")
            sum_s = stats.get_value(stat.LATENCY_SUM_S, 0.0)
            stats.set_value(stat.LATENCY_SUM_S, sum_s + latency_s)

    def _committed(self, item: Any) -> None:
        if isinstance(item, EventPage):
            self.ranges.committed(item.first_offset)
