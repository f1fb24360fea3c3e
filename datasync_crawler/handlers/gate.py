"""The gate: where every request waits until it may be sent. Carries out what the limiter decides.

Owns the queue and its timer. Must not decide when a request may go (`ratelimit` does), send it
(`wire` does), nor write or say anything itself (`memory` and `told` do).
"""

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from scrapy import signals as scrapy_signals
from scrapy.exceptions import IgnoreRequest

from datasync_crawler import signals
from datasync_crawler.handlers.memory import Memory
from datasync_crawler.handlers.told import Told, clock_time
from datasync_crawler.ratelimit.limiter import Outcome

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.http import Response

    from datasync_crawler.app import App


class CrawlStopping(IgnoreRequest):
    """The request wasn't sent, or was given up, because the crawl is closing.

    Raised by the gate and the download handler.
    """


class Gate:
    """First come, first served; one pause holds all.

    Settings: RATE_LIMIT, RATE_LIMIT_SHARE, RATE_LIMIT_MAX_WAIT, WORKERS, MAX_BYTES_IN_FLIGHT,
    CONCURRENT_REQUESTS and CONCURRENT_REQUESTS_PER_DOMAIN (first and most in flight). Asks for the
    crawl's end when the key is refused or a pause is too long.
    """

    def __init__(self, crawler: "Crawler", app: "App") -> None:
        self._crawler = crawler
        self._max_wait_s = app.config.rate_limit_max_wait_s
        self._limiter = app.limiter()
        self._queue: deque[asyncio.Future[float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._in_flight_limit: int | None = None  # as the others know it
        self._told = Told(crawler.stats, app.config.without_key)
        self._memory = Memory(self._limiter, app)
        crawler.signals.connect(self._stopping, signals.stopping)
        crawler.signals.connect(self._memory.close, scrapy_signals.spider_closed)

    # --- one request's way ------------------------------------------------------------------------

    async def acquire(self) -> float:
        """Waits until the next request may go out; returns the moment (monotonic s) it was let go.

        Every one must end in `answered` or `failed`. Raises CrawlStopping.
        """
        await self._memory.recalled()
        if self._closed:
            raise CrawlStopping("the crawl is closing")
        permit: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._queue.append(permit)
        self._let_out()
        try:
            sent_at = await permit
        except asyncio.CancelledError:
            # Let out and cancelled before it could say so: its place is free again.
            if permit.done() and not permit.cancelled() and permit.exception() is None:
                self._unused(permit.result())
            raise
        if self._closed:  # between being let out and getting here
            self._unused(sent_at)
            raise CrawlStopping("the crawl is closing")
        return sent_at

    def _unused(self, sent_at: float) -> None:
        self._limiter.cancelled(sent_at)
        self._wake()

    def failed(self, sent_at: float) -> None:
        """No answer came to the request let go at *sent_at*."""
        self._limiter.failed(time.monotonic(), sent_at)
        self._wake()

    def answered(self, response: "Response", sent_at: float) -> Outcome:
        """An answer came to the request let go at *sent_at*; returns what it means."""
        now = time.monotonic()
        headers = {
            name.decode("latin-1").lower(): b", ".join(values).decode("latin-1")
            for name, values in response.headers.items()
        }
        outcome = self._limiter.answered(
            now, time.time(), response.status, headers, response.body, sent_at=sent_at
        )
        self._told.answered(outcome.messages, self._limiter, now)
        self._tell_in_flight_limit()
        if outcome.kind == "unauthorized":
            self._stop(
                "unauthorized",
                f"The API refuses the key (HTTP {response.status}): it is wrong or has expired. "
                "Everything fetched so far is committed. Set API_KEY to a valid key and run the "
                "same command again: it goes on where it was.",
            )
        self._wake()
        return outcome

    def _tell_in_flight_limit(self) -> None:
        limit = self._limiter.in_flight_limit.limit(self._waiting_bytes())
        if limit != self._in_flight_limit:
            self._in_flight_limit = limit
            self._crawler.signals.send_catch_log(signals.in_flight_limit_changed, limit=limit)

    # --- the queue --------------------------------------------------------------------------------

    def _let_out(self) -> None:
        """Lets out as many as the limiter allows, and comes back when it says so."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and not self._closed:
            if self._queue[0].done():
                self._queue.popleft()
                continue
            now = time.monotonic()
            decision = self._limiter.ask(now, self._waiting_bytes())
            pause_s = self._told.decided(decision, self._limiter, now)
            if decision.delay_s > 0:
                self._memory.paused(pause_s)
                self._timer = asyncio.get_running_loop().call_later(decision.delay_s, self._let_out)
                self._check_wait(now)
                return
            self._queue.popleft().set_result(now)

    def _wake(self) -> None:
        """Something changed: ask again, soon."""
        if self._queue:
            asyncio.get_running_loop().call_soon(self._let_out)

    def _waiting_bytes(self) -> int:
        """Bodies that are being parsed or wait for their commit."""
        slot = self._crawler.engine.scraper.slot
        return 0 if slot is None else slot.active_size

    def _check_wait(self, now: float) -> None:
        wait_s = self._limiter.waits_too_long(now)
        if wait_s is None:
            return
        refused_s = self._limiter.refused_for_s(now)
        asks = f"The API's limit asks for a pause of {wait_s:.0f} s"
        if wait_s <= self._max_wait_s:
            asks = (
                f"The API has refused every request for {refused_s:.0f} s and asks for "
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
        self._closed = True  # not one request more, whatever the engine still has
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
