"""The download handler: waits at the gate, then sends, with the key (`keyed`).

Must not pace, parse bodies or retry.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from scrapy.utils.asyncio import run_in_thread

from datasync_crawler import signals
from datasync_crawler.app import App, Component
from datasync_crawler.handlers.gate import CrawlStopping, Gate
from datasync_crawler.handlers.keyed import KeyedHandler
from datasync_crawler.handlers.reach import diagnose
from datasync_crawler.request_notes import mark_limited

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler
    from scrapy.http import Response

#: Seconds that downloads in flight still have when the crawl stops.
STOP_GRACE_S: Final = 1.5


class PacedDownloadHandler(Component):
    """Settings: those of `keyed` and of the gate.

    Notes on each request whether its answer was the rate limit's, for the retry middleware.
    """

    lazy = True  # else each scheme would get a handler, and so a gate of its own

    def __init__(self, crawler: "Crawler") -> None:
        app = App.of(crawler)
        self._inner = KeyedHandler(crawler)
        self._gate = Gate(crawler, app)
        self._base_url = app.config.api_base_url
        self._has_answered = False
        self._downloads: set[asyncio.Task[Response]] = set()
        crawler.signals.connect(self._stopping, signals.stopping)

    async def download_request(self, request: "Request") -> "Response":
        """Sends when the gate allows it, and passes the answer to the gate.

        Raises CrawlStopping when the crawl closes, Unreachable while the API has never answered
        and can't be reached, and whatever Scrapy's handler raises.
        """
        sent_at = await self._gate.acquire()
        download = asyncio.ensure_future(self._inner.download_request(request))
        self._downloads.add(download)
        try:
            response = await download
        except asyncio.CancelledError:
            self._gate.failed(sent_at)
            raise CrawlStopping("the crawl is closing") from None
        except Exception as error:
            self._gate.failed(sent_at)
            if self._has_answered:
                raise
            proxy = request.meta.get("proxy")
            unreachable = await run_in_thread(diagnose, self._base_url, error, proxy)
            raise unreachable or error from error
        finally:
            self._downloads.discard(download)
        self._has_answered = True
        outcome = self._gate.answered(response, sent_at)
        mark_limited(request, is_limited=outcome.kind == "limited")
        return response

    async def close(self) -> None:
        """Scrapy's: closes the connections."""
        await self._inner.close()

    def _stopping(self) -> None:
        asyncio.get_running_loop().call_later(STOP_GRACE_S, self._cancel_downloads)

    def _cancel_downloads(self) -> None:
        for download in self._downloads:
            download.cancel()
