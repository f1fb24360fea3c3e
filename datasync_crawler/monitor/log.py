"""What the log says of items: a page's name, never its events."""

import logging
from typing import TYPE_CHECKING, Any

from scrapy.logformatter import LogFormatter

from datasync_crawler.api.secrets import without_password

if TYPE_CHECKING:
    from scrapy import Request, Spider
    from scrapy.http import Response
    from scrapy.logformatter import LogFormatterResult


class WithoutPasswords(logging.Filter):
    """Scrapy's lines about feeds repeat their addresses, which may hold a password."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every line through."""
        record.msg, record.args = without_password(record.getMessage()), None
        return True


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

    def dropped(
        self, item: Any, exception: BaseException, response: Any, spider: "Spider"
    ) -> "LogFormatterResult":
        """A page that couldn't be stored: its range stays a hole and is tried again."""
        return {
            "level": logging.getLevelName(getattr(exception, "log_level", None) or "WARNING"),
            "msg": "%(item)r can't be stored for now: %(exception)s.",
            "args": {"item": item, "exception": exception},
        }
