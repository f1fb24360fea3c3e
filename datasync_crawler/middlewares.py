"""Retries with exponential backoff, jitter and a cap.

An answer of the rate limit (429 and the like) is sent again after its pause and uses up no retry.
Must not wait itself: the scheduler does.
"""

import logging
import random
from typing import TYPE_CHECKING

from scrapy.downloadermiddlewares.retry import RetryMiddleware
from scrapy.exceptions import IgnoreRequest

from datasync_crawler.app import App
from datasync_crawler.events.scan import printable
from datasync_crawler.ratelimit.backoff import delay_s

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.http import Response
    from scrapy.settings import BaseSettings

logger = logging.getLogger(__name__)


class BackoffRetryMiddleware(RetryMiddleware):
    """Settings: RETRY_TIMES, RETRY_HTTP_CODES, RETRY_BACKOFF_*. Stats: retry/…, rate_limit/…."""

    def __init__(self, settings: "BaseSettings") -> None:
        super().__init__(settings)
        self._base_s = settings.getfloat("RETRY_BACKOFF_BASE")
        self._cap_s = settings.getfloat("RETRY_BACKOFF_CAP")
        self._logged_kinds: set[str] = set()

    def process_response(
        self, request: "Request", response: "Response", spider: object = None
    ) -> "Request | Response":
        """Sends the rate limit's answers again as they are: they aren't failures of the page.

        The rate limiter decides which answers those are (`meta["limited"]`), and paces them.
        """
        if request.meta.get("limited"):
            self.crawler.stats.inc_value(f"rate_limit/answers_{response.status}")
            again: Request = request.copy()
            again.dont_filter = True
            again.priority = max(request.priority, 1)  # before fresh pages: it has waited longer
            return again
        if response.status in self.retry_http_codes:
            return self._retry(request, f"HTTP {response.status}") or response
        return response

    def process_exception(
        self, request: "Request", exception: Exception, spider: object = None
    ) -> "Request | Response | None":
        """Retries after any exception, except IgnoreRequest, which is our own."""
        if isinstance(exception, IgnoreRequest):
            return None
        return self._retry(request, exception)

    def _retry(
        self, request: "Request", reason: "str | Exception | type[Exception]"
    ) -> "Request | None":
        again = super()._retry(request, reason)
        if again is not None:
            self._log_first(request, reason)
            again.meta["delay_s"] = delay_s(
                again.meta["retry_times"],
                base_s=self._base_s,
                cap_s=self._cap_s,
                random=random.random,
            )
        return again

    def _log_first(self, request: "Request", reason: "str | Exception | type[Exception]") -> None:
        """Logs the first failure of a kind; the stats `retry/…` count the others."""
        kind = reason if isinstance(reason, str) else type(reason).__name__
        if kind not in self._logged_kinds:
            self._logged_kinds.add(kind)
            cause = printable(App.of(self.crawler).config.without_key(str(reason) or kind))
            logger.warning(
                "No usable answer from %s (%s): such pages are tried again, up to %d times each.",
                request.url, cause, self.max_retry_times,
            )  # fmt: skip
