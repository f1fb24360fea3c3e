"""The API key: added here, and here alone, to a copy of each request to the API's own origin.

A request that holds the key itself would be pickled into JOBDIR and follow redirects.
"""

from typing import TYPE_CHECKING

from datasync_crawler.api.addresses import origin
from datasync_crawler.app import App
from datasync_crawler.handlers.transport import BoundedHandler

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler
    from scrapy.http import Response


class KeyedHandler(BoundedHandler):
    """The download handler under `wire`, and by itself that of commands that fetch single pages.

    Settings: API_BASE_URL, API_KEY or API_KEY_FILE, API_KEY_HEADER.
    """

    lazy = True

    def __init__(self, crawler: "Crawler") -> None:
        super().__init__(crawler)
        config = App.of(crawler).config
        self._credentials = {config.api_key_header: config.api_key}
        self._origin = origin(config.api_base_url)

    async def download_request(self, request: "Request") -> "Response":
        """Sends the copy."""
        credentials = self._credentials if origin(request.url) == self._origin else {}
        sent = request.replace(headers={**request.headers, **credentials})
        response = await super().download_request(sent)
        # Scrapy writes the latency to the copy; the stats read it from the original.
        request.meta.update(sent.meta)
        return response
