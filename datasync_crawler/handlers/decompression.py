"""Scrapy's decompression of bodies, with a bound on the bytes held at once.

A body waits until there is room for it; none that Scrapy would accept is rejected.
"""

import asyncio
import gc
import traceback
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from scrapy.downloadermiddlewares.httpcompression import HttpCompressionMiddleware

from datasync_crawler.events.scan import printable
from datasync_crawler.handlers.transport import MOST_BYTES, RETRY_S, bytes_waiting

if TYPE_CHECKING:
    from scrapy import Request, Spider
    from scrapy.crawler import Crawler
    from scrapy.http import Response

#: Bytes of unpacked bodies that may wait when one more is unpacked, whose size isn't known before.
_MOST_WAITING: Final = MOST_BYTES // 2
#: Waits of RETRY_S between two garbage collections: one a second, of about 50 ms.
_COLLECT_EVERY: Final = 50


class BoundedDecompression(HttpCompressionMiddleware):
    """Takes the place of HttpCompressionMiddleware, with its settings."""

    def __init__(self, crawler: "Crawler") -> None:
        super().__init__(crawler=crawler)
        self._crawler = crawler
        self._unpacked: WeakSet[Response | Request] = WeakSet()

    async def process_response(  # type: ignore[override]
        self, request: "Request", response: "Response", spider: "Spider | None" = None
    ) -> "Request | Response":
        """Scrapy's, once there is room."""
        if b"Content-Encoding" not in response.headers:
            return response
        looks = 0
        while self._waiting() > _MOST_WAITING:
            if looks % _COLLECT_EVERY == 0:  # an exception's reference cycle may hold a body
                gc.collect()
            looks += 1
            await asyncio.sleep(RETRY_S)
        try:
            unpacked = super().process_response(request, response)
        except Exception as error:
            _forget_frames(error)
            raise
        self._unpacked.add(unpacked)
        return unpacked

    def _warn_unknown_encoding(self, response: "Response", encodings: list[bytes]) -> None:
        """Scrapy's warning, with control characters of the header escaped."""
        names = [printable(name.decode("latin-1")).encode("ascii", "replace") for name in encodings]
        super()._warn_unknown_encoding(response, names)

    def _waiting(self) -> int:
        unpacked = sum(len(response.body) for response in self._unpacked)
        return max(unpacked, bytes_waiting(self._crawler))


def _forget_frames(error: BaseException) -> None:
    """Clears the frames of a traceback, which may hold 64 MB of unpacked body.

    A reference cycle keeps them until the next collection: 155 answers of 1.6 kB took 5.7 GB
    (Scrapy 2.19).
    """
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
