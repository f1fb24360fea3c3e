"""Scrapy's decompression of bodies, with bounds on what is held at once.

Must not refuse what Scrapy takes: a body waits until there is room for it.
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

#: Of bodies that wait, while one more is unpacked, whose size nobody knows before.
_MOST_WAITING: Final = MOST_BYTES // 2
#: Looks whether there is room: one collection a second at most, of about 50 ms.
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
        """Scrapy's line, where a header of the API must not write lines of its own."""
        said = [printable(name.decode("latin-1")).encode("ascii", "replace") for name in encodings]
        super()._warn_unknown_encoding(response, said)

    def _waiting(self) -> int:
        unpacked = sum(len(response.body) for response in self._unpacked)
        return max(unpacked, bytes_waiting(self._crawler))


def _forget_frames(error: BaseException) -> None:
    """Drops what the frames hold in which it was raised: up to 64 MB that had been unpacked.

    A reference cycle keeps those alive until they are collected: 155 answers of 1.6 kB took 5.7 GB
    (Scrapy 2.19).
    """
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
