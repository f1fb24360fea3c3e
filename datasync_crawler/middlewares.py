"""Retries with exponential backoff, jitter and a cap.

An answer of the rate limit (429 and the like) is sent again after its pause and uses up no retry.
Must not wait itself: the scheduler does.
"""

import logging
import time
from typing import TYPE_CHECKING, Final

from scrapy.downloadermiddlewares.retry import RetryMiddleware
from scrapy.exceptions import IgnoreRequest

from datasync_crawler import request_notes, signals
from datasync_crawler import stats as stat
from datasync_crawler.api.reach import Unreachable, host_of
from datasync_crawler.app import App
from datasync_crawler.events.scan import printable

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.http import Response
    from scrapy.settings import BaseSettings

logger = logging.getLogger(__name__)

#: Tries of a request while the API has never answered: about 3 s.
FIRST_TRIES: Final = 4


class BackoffRetryMiddleware(RetryMiddleware):
    """Settings: RETRY_TIMES, RETRY_HTTP_CODES, RETRY_BACKOFF_*. Stats: retry/…, rate_limit/….

    Sends `stop_requested` when the API can't be reached from the start.
    """

    def __init__(self, settings: "BaseSettings") -> None:
        super().__init__(settings)
        self._logged_kinds: set[str] = set()

    def process_response(
        self, request: "Request", response: "Response", spider: object = None
    ) -> "Request | Response":
        """Sends the rate limit's answers again as they are: they aren't failures of the page.

        The rate limiter decides which answers those are, and paces them.
        """
        if self.crawler.stats.get_value(stat.TROUBLE):
            self.crawler.stats.set_value(stat.TROUBLE, None)
        if request_notes.is_limited(request):
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
        if isinstance(exception, Unreachable):
            return self._retry_unreachable(request, exception)
        again = self._retry(request, exception)
        if again is not None:
            self._show(f"no answer from {host_of(request.url)}", again, self.max_retry_times + 1)
        return again

    def _retry_unreachable(self, request: "Request", why: Unreachable) -> "Request | None":
        tries = 1 + int(request.meta.get("retry_times", 0))
        most = min(FIRST_TRIES, self.max_retry_times + 1)
        if why.is_final or tries >= most:
            self.crawler.stats.set_value(stat.TROUBLE, None)
            self.crawler.signals.send_catch_log(
                signals.stop_requested, reason="unreachable", sentence=why.sentence(tries)
            )
            return None
        again = self._retry(request, why)
        if again is not None:
            self._show(f"can't reach {why.host}", again, most)
        return again

    def _show(self, trouble: str, again: "Request", most: int) -> None:
        """For panel, page and log: which try comes when."""
        number = again.meta["retry_times"] + 1
        self.crawler.stats.set_value(stat.TROUBLE, f"{trouble}: try {number} of {most}")
        self.crawler.stats.set_value(stat.NEXT_TRY_AT, time.time() + request_notes.delay_s(again))

    def _retry(
        self, request: "Request", reason: "str | Exception | type[Exception]"
    ) -> "Request | None":
        again = super()._retry(request, reason)
        if again is not None:
            self._log_first(request, reason)
            request_notes.delay_retry(again, self.crawler.settings)
        return again

    def _log_first(self, request: "Request", reason: "str | Exception | type[Exception]") -> None:
        """Logs the first failure of a kind; the stats `retry/…` count the others."""
        kind = reason if isinstance(reason, str) else type(reason).__name__
        if kind not in self._logged_kinds:
            self._logged_kinds.add(kind)
            cause = printable(App.of(self.crawler).config.without_key(str(reason) or kind))
            if isinstance(reason, Unreachable):
                logger.warning("Can't reach %s (%s): trying again.", reason.host, cause)
                return
            logger.warning(
                "No usable answer from %s (%s): such pages are tried again, up to %d times each.",
                request.url, cause, self.max_retry_times,
            )  # fmt: skip
