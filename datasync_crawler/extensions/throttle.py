"""AutoThrottle for an API: sets the number of requests in flight instead of a delay.

Settings: AUTOTHROTTLE_ENABLED, CONCURRENT_REQUESTS (the first number). Handles
`signals.in_flight_limit_changed`. Stats: throttle/in_flight_limit. The rate limiter
decides the number and delays requests.
"""

from typing import TYPE_CHECKING

from scrapy.extensions.throttle import AutoThrottle

from datasync_crawler import signals

if TYPE_CHECKING:
    from scrapy import Request, Spider
    from scrapy.crawler import Crawler
    from scrapy.http import Response


class LatencyThrottle(AutoThrottle):
    """Keeps the delay at 0 and sets Scrapy's concurrency to the in-flight limit."""

    def __init__(self, crawler: "Crawler") -> None:
        super().__init__(crawler)
        crawler.signals.connect(self._in_flight_limit_changed, signals.in_flight_limit_changed)

    def _spider_opened(self, spider: "Spider") -> None:
        super()._spider_opened(spider)
        self.crawler.engine.downloader._delay = 0.0  # as the base class does

    def _response_downloaded(
        self, response: "Response", request: "Request", spider: "Spider"
    ) -> None:
        """No delay from latency."""

    def _in_flight_limit_changed(self, limit: int) -> None:
        downloader = self.crawler.engine.downloader
        # A slot that is created later takes the downloader's number.
        downloader.domain_concurrency = downloader.total_concurrency = limit
        for slot in downloader.slots.values():
            slot.delay = 0.0
            slot.concurrency = limit
        self.crawler.stats.set_value("throttle/in_flight_limit", limit)
