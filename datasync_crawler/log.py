"""What the log says of items: a page's name, never its events."""

from typing import TYPE_CHECKING, Any

from scrapy.logformatter import LogFormatter

if TYPE_CHECKING:
    from scrapy import Request, Spider
    from scrapy.http import Response
    from scrapy.logformatter import LogFormatterResult


class QuietLogFormatter(LogFormatter):
    """A DEBUG line a page would be all that one sees: left out."""

    def crawled(  # type: ignore[override]
        self, request: "Request", response: "Response", spider: "Spider"
    ) -> "LogFormatterResult | None":
        """No line; the heartbeat and progress say it."""
        return None

    def scraped(  # type: ignore[override]
        self, item: Any, response: Any, spider: "Spider"
    ) -> "LogFormatterResult | None":
        """No line."""
        return None
