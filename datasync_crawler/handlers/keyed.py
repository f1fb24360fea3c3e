"""The download handler of commands that fetch single pages (commands/looking.py)."""

from typing import TYPE_CHECKING

from datasync_crawler.api.addresses import origin
from datasync_crawler.app import App
from datasync_crawler.handlers.transport import BoundedHandler

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler
    from scrapy.http import Response


class KeyedHandler(BoundedHandler):
    """Adds the key to a copy of each request to the API's own origin. Settings: API_*."""

    lazy = True

    def __init__(self, crawler: "Crawler") -> None:
        super().__init__(crawler)
        config = App.of(crawler).config
        self._credentials = {config.api_key_header: config.api_key}
        self._origin = origin(config.api_base_url)

    async def download_request(self, request: "Request") -> "Response":
        """Scrapy's."""
        if origin(request.url) == self._origin:
            request = request.replace(headers={**request.headers, **self._credentials})
        return await super().download_request(request)
