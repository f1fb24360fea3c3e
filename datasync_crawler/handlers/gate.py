"""The gate: where every request waits until the limiter lets it be sent.

Owns the queue and its timer. `ratelimit` decides when a request may go, `permits` asks for the
quota that all processes share, `wire` sends it, `memory` stores what was learned, and `report` logs
it and sets the stats.
"""

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from scrapy import signals as scrapy_signals
from scrapy.exceptions import IgnoreRequest

from datasync_crawler import signals
from datasync_crawler.api import answers
from datasync_crawler.handlers.memory import Memory
from datasync_crawler.handlers.permits import Permits
from datasync_crawler.handlers.report import LimiterReport, clock_time
from datasync_crawler.handlers.transport import bytes_waiting
from datasync_crawler.ratelimit.decisions import Decision, Outcome
from datasync_crawler.ratelimit.shared import SharedQuota
from datasync_crawler.store.rate_limits import LimitMemory

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.http import Response

    from datasync_crawler.app import App


class CrawlStopping(IgnoreRequest):
    """The request wasn't sent, or was cancelled, because the crawl is closing.

    Raised by the gate and the download handler.
    """


class Gate:
    """First come, first served. A pause holds all requests.

    Settings: RATE_LIMIT, RATE_LIMIT_SHARE, RATE_LIMIT_MAX_WAIT, WORKERS, MAX_BYTES_IN_FLIGHT,
    CONCURRENT_REQUESTS and CONCURRENT_REQUESTS_PER_DOMAIN (first and most in flight). Sends
    `stop_requested` on a 401, on a 403 that isn't a rate limit's, and when a pause is too long.
    """

    def __init__(self, crawler: "Crawler", app: "App") -> None:
        self._crawler = crawler
        self._max_wait_s = app.config.rate_limit_max_wait_s
        self._limiter = app.limiter()
        self._queue: deque[asyncio.Future[float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._in_flight_limit: int | None = None  # as last announced
        self._report = LimiterReport(crawler.stats, app.config.without_key)
        self._store = LimitMemory(app.database, app.config.schema, app.config.api_key)
        self._memory = Memory(self._limiter, self._store)
        self._quota = SharedQuota(self._limiter, max_wait_s=app.config.db_max_wait_s)
        self._permits = Permits(self._quota, self._store, self._release)
        crawler.signals.connect(self._stopping, signals.stopping)
        crawler.signals.connect(self._spider_closed, scrapy_signals.spider_closed)

    # --- one request ------------------------------------------------------------------------------

    async def acquire(self) -> float:
        """Waits until the next request may be sent; returns that moment in monotonic seconds.

        Each must be followed by `answered` or `failed`. Raises CrawlStopping.
        """
        await self._memory.recalled()
        if self._closed:
            raise CrawlStopping("the crawl is closing")
        permit: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._queue.append(permit)
        self._release()
        try:
            sent_at = await permit
        except asyncio.CancelledError:
            # Released, but cancelled before the caller could send: the permit is unused.
            if permit.done() and not permit.cancelled() and permit.exception() is None:
                self._unused(permit.result())
            raise
        if self._closed:  # between the release and here
            self._unused(sent_at)
            raise CrawlStopping("the crawl is closing")
        return sent_at

    def _unused(self, sent_at: float) -> None:
        self._limiter.cancelled(sent_at)
        self._quota.ended(sent_at)
        self._wake()

    def failed(self, sent_at: float) -> None:
        """The request sent at *sent_at* got no answer."""
        self._limiter.failed(time.monotonic(), sent_at)
        self._quota.ended(sent_at)
        self._wake()

    def answered(self, response: "Response", sent_at: float) -> Outcome:
        """The request sent at *sent_at* was answered; returns what the answer means."""
        now = time.monotonic()
        headers = answers.header_texts(response.headers)
        outcome = self._limiter.answered(
            now, time.time(), response.status, headers, response.body, sent_at=sent_at
        )
        self._quota.ended(sent_at, outcome.kind)
        self._report.answered(outcome.messages, self._limiter, now)
        self._announce_in_flight_limit()
        if outcome.kind == "unauthorized":
            self._stop(
                "unauthorized",
                f"The API rejects the key (HTTP {response.status}): it is wrong or has expired. "
                "Everything fetched so far is committed. Set API_KEY to a valid key and run the "
                "same command again: it goes on where it was.",
            )
        self._wake()
        return outcome

    def _announce_in_flight_limit(self) -> None:
        limit = self._limiter.in_flight_limit.limit(bytes_waiting(self._crawler))
        if limit != self._in_flight_limit:
            self._in_flight_limit = limit
            self._crawler.signals.send_catch_log(signals.in_flight_limit_changed, limit=limit)

    # --- the queue --------------------------------------------------------------------------------

    def _release(self) -> None:
        """Releases as many requests as the limiter allows, and sets the timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and not self._closed:
            if self._queue[0].done():
                self._queue.popleft()
                continue
            now = time.monotonic()
            decision = self._decide(now)
            if decision.delay_s > 0:
                self._wait(decision, now)
                break
            self._report.decided(decision, self._limiter, now)
            self._limiter.sent(now)
            self._quota.sent(now)
            self._queue.popleft().set_result(now)
        if not self._closed and self._quota.is_due(time.monotonic()):
            self._permits.ask(0, bytes_waiting(self._crawler))

    def _decide(self, now: float) -> Decision:
        decision = self._limiter.check(
            now, bytes_waiting(self._crawler), by_advertised=not self._quota.keeps_left
        )
        return decision if decision.delay_s > 0 else self._quota.decide(now)

    def _wait(self, decision: Decision, now: float) -> None:
        if decision.reason == "permit":  # this takes a millisecond: no pause
            self._permits.ask(len(self._queue), bytes_waiting(self._crawler))
        else:
            self._memory.paused(self._report.decided(decision, self._limiter, now))
            self._check_wait(now, decision)
        self._timer = asyncio.get_running_loop().call_later(decision.delay_s, self._release)

    def _wake(self) -> None:
        """Asks the limiter again, in the loop's next turn."""
        if self._queue or self._quota.is_due(time.monotonic()):
            asyncio.get_running_loop().call_soon(self._release)

    def _check_wait(self, now: float, decision: Decision) -> None:
        is_limits = decision.reason in {"limit", "pause"}
        wait_s = self._limiter.waits_too_long(now, decision.delay_s if is_limits else 0.0)
        if wait_s is None:
            return
        refused_s = self._limiter.refused_for_s(now)
        asks = f"The API's limit asks for a pause of {wait_s:.0f} s"
        if wait_s <= self._max_wait_s:
            asks = (
                f"The API has let no request through for {refused_s:.0f} s and asks for "
                f"{wait_s:.0f} s more, together"
            )
        else:
            asks += ","
        self._stop(
            "rate_limited",
            f"{asks} longer than RATE_LIMIT_MAX_WAIT ({self._max_wait_s:.0f} s). Run the same "
            f"command again after {clock_time(wait_s)}.",
        )

    # --- the end ----------------------------------------------------------------------------------

    def _stop(self, reason: str, sentence: str) -> None:
        self._closed = True  # the engine may still hold requests
        self._crawler.signals.send_catch_log(
            signals.stop_requested, reason=reason, sentence=sentence
        )

    def _stopping(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        while self._queue:
            permit = self._queue.popleft()
            if not permit.done():
                permit.set_exception(CrawlStopping("the crawl is closing"))

    async def _spider_closed(self) -> None:
        await self._permits.close()
        await self._memory.close()
        self._store.close()
