"""One response of the API for the commands that ask it without a crawl. Must not send requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasync_crawler.config import Config
    from datasync_crawler.events.decoding import WirePage


def page_in(body: bytes, config: Config) -> WirePage:
    """The page, bounded as in a crawl. Raises CrawlError for what is no page."""
    from datasync_crawler.errors import CrawlError  # noqa: PLC0415  # commands load at every start
    from datasync_crawler.events.decoding import PageDecoder, WireError  # noqa: PLC0415
    from datasync_crawler.handlers.asking import MOST_EVENTS  # noqa: PLC0415

    most = max(MOST_EVENTS, 10 * config.page_size)
    try:
        return PageDecoder(config.page_format).decode(body, most)
    except WireError as error:
        reason = config.without_key(error.reason)
        raise CrawlError(f"The API's answer is no page ({reason}): try later.") from None
