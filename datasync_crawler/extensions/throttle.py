"""AutoThrottle for an API: the number of requests in flight, not a delay between them.

Settings: AUTOTHROTTLE_ENABLED, WORKERS, CONCURRENT_REQUESTS. Must not delay anything: the rate
controller paces.
"""

from typing import TYPE_CHECKING

from scrapy.extensions.throttle import AutoThrottle

from datasync_crawler.config import Config

if TYPE_CHECKING:
    from scrapy import Request, Spider
    from scrapy.core.downloader import Slot
    from scrapy.crawler import Crawler
    from scrapy.http import Response


class LatencyThrottle(AutoThrottle):
    """Keeps the delay at 0 and sets how many requests are in flight."""

    def __init__(self, crawler: "Crawler") -> None:
        super().__init__(crawler)
        workers = Config.from_settings(crawler.settings).workers
        self._in_flight = workers or crawler.settings.getint("CONCURRENT_REQUESTS")

    def _spider_opened(self, spider: "Spider") -> None:
        super()._spider_opened(spider)
        self.crawler.engine.downloader._delay = 0.0  # as the base class does
        self.crawler.engine.downloader.total_concurrency = self._in_flight

    def _response_downloaded(
        self, response: "Response", request: "Request", spider: "Spider"
    ) -> None:
        _, slot = self._get_slot(request, spider)
        if slot is not None:
            self._adjust(slot)

    def _adjust(self, slot: "Slot") -> None:
        slot.delay = 0.0
        slot.concurrency = self._in_flight
