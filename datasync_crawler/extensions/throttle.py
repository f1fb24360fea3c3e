"""AutoThrottle for an API: the number of requests in flight, not a delay between them.

Settings: AUTOTHROTTLE_ENABLED, WORKERS, CONCURRENT_REQUESTS (the first number),
CONCURRENT_REQUESTS_PER_DOMAIN (the most). Stats: throttle/in_flight_limit. Must not delay
anything: the rate controller paces.
"""

from typing import TYPE_CHECKING

from scrapy.extensions.throttle import AutoThrottle

from datasync_crawler.config import Config
from datasync_crawler.core.concurrency import InFlight

if TYPE_CHECKING:
    from scrapy import Request, Spider
    from scrapy.crawler import Crawler
    from scrapy.http import Response


class LatencyThrottle(AutoThrottle):
    """Keeps the delay at 0 and sets how many requests are in flight, from how long answers take.

    With WORKERS that is the most; without, the HTTP pool's size.
    """

    def __init__(self, crawler: "Crawler") -> None:
        super().__init__(crawler)
        settings = crawler.settings
        most = Config.from_settings(settings).workers or settings.getint(
            "CONCURRENT_REQUESTS_PER_DOMAIN"
        )
        self._in_flight = InFlight(first=settings.getint("CONCURRENT_REQUESTS"), most=most)

    def _spider_opened(self, spider: "Spider") -> None:
        super()._spider_opened(spider)
        downloader = self.crawler.engine.downloader
        downloader._delay = 0.0  # as the base class does
        downloader.domain_concurrency = downloader.total_concurrency = self._in_flight.limit

    def _response_downloaded(
        self, response: "Response", request: "Request", spider: "Spider"
    ) -> None:
        """Called for each answer; a refusal is quick and says nothing about the load."""
        took_s = request.meta.get("took_s")
        if took_s is None or response.status != 200:
            return
        limit = self._in_flight.answered(took_s)
        downloader = self.crawler.engine.downloader
        # The slot of the next request may not be there yet: it takes the downloader's number.
        downloader.domain_concurrency = downloader.total_concurrency = limit
        _, slot = self._get_slot(request, spider)
        if slot is not None:
            slot.delay = 0.0
            slot.concurrency = limit
        self.crawler.stats.set_value("throttle/in_flight_limit", limit)
