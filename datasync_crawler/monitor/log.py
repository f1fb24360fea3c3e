"""Log lines about items: a page's name, never its events."""

import logging
from typing import TYPE_CHECKING, Any

from scrapy.logformatter import LogFormatter

from datasync_crawler.api.secrets import without_password

if TYPE_CHECKING:
    from scrapy import Request, Spider
    from scrapy.http import Response
    from scrapy.logformatter import LogFormatterResult


class WithoutPasswords(logging.Filter):
    """Removes passwords from Scrapy's lines about feeds, which repeat their addresses."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every line through."""
        record.msg, record.args = without_password(record.getMessage()), None
        return True


class QuietLogFormatter(LogFormatter):
    """Leaves out Scrapy's DEBUG line for each page, which would hide all others."""

    def crawled(  # type: ignore[override]
        self, request: "Request", response: "Response", spider: "Spider"
    ) -> "LogFormatterResult | None":
        """No line."""
        return None

    def scraped(  # type: ignore[override]
        self, item: Any, response: Any, spider: "Spider"
    ) -> "LogFormatterResult | None":
        """No line."""
        return None

    def dropped(
        self, item: Any, exception: BaseException, response: Any, spider: "Spider"
    ) -> "LogFormatterResult":
        """A line for a page that couldn't be stored: its range is a gap and is tried again."""
        return {
            "level": logging.getLevelName(getattr(exception, "log_level", None) or "WARNING"),
            "msg": "%(item)r can't be stored for now: %(exception)s.",
            "args": {"item": item, "exception": exception},
        }
