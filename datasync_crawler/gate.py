"""The gate: where every request waits for its turn. Carries out what the rate controller decides.

Owns the queue, the timer, the memory of limits over runs, and what is told of pauses. Must not
decide when a request may go (`core.ratelimit` does) nor send it (`handlers` does).
"""

import asyncio
import logging
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from scrapy import signals as scrapy_signals
from scrapy.exceptions import IgnoreRequest
from scrapy.utils.asyncio import run_in_thread

from datasync_crawler import signals
from datasync_crawler.core.progress import SHORTEST_PAUSE_S
from datasync_crawler.core.ratelimit import Decision, Outcome, RateController
from datasync_crawler.store.connection import STORE_ERRORS, Connector
from datasync_crawler.store.limits import LimitMemory

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.http import Response

    from datasync_crawler.config import Config

logger = logging.getLogger(__name__)

#: A pause of this length is written down when it begins, in seconds: a process that is killed
#: during it must not run into the closed window again.
WRITTEN_PAUSE_S: Final = 2.0
#: A wait for a spent budget gets log lines from this length on, in seconds: a bucket that gives a
#: token every few seconds would fill the log. Pauses that the API asks for always get theirs.
LOGGED_WAIT_S: Final = 10.0


class CrawlStopping(IgnoreRequest):
    """The request wasn't sent, or was given up, because the crawl is closing.

    Raised by the gate and the download handler.
    """


class Gate:
    """First come, first served; one pause holds all. Settings: RATE_LIMIT_MAX_WAIT, WORKERS.

    Stats: rate_limit/…. Asks for the crawl's end when the key is refused or a pause is too long.
    """

    def __init__(self, crawler: "Crawler", config: "Config") -> None:
        self._crawler = crawler
        self._max_wait_s = config.rate_limit_max_wait_s
        self._controller = RateController(
            # How many help is the throttle's business; here it's about the most.
            max_in_flight=config.workers
            or crawler.settings.getint("CONCURRENT_REQUESTS_PER_DOMAIN"),
            max_wait_s=config.rate_limit_max_wait_s,
            random=random.random,
        )
        self._without_key = config.without_key
        self._queue: deque[asyncio.Future[float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._paused_at: float | None = None
        self._logs_resume = False
        self._written_until = 0.0  # monotonic s: the pause's end as the database knows it
        self._connector = Connector(config.database)
        self._memory = LimitMemory(self._connector, config.schema, config.api_key)
        self._recalling: asyncio.Task[None] | None = None
        self._remembering: asyncio.Task[None] | None = None
        crawler.signals.connect(self._stopping, signals.stopping)
        crawler.signals.connect(self._spider_closed, scrapy_signals.spider_closed)

    # --- one request's way ------------------------------------------------------------------------

    async def turn(self) -> float:
        """Waits until the next request may go out; returns the moment (monotonic s) it was let go.

        Every turn must end in `answered` or `failed`. Raises CrawlStopping.
        """
        if self._recalling is None:
            self._recalling = asyncio.ensure_future(self._recall())
        if not self._recalling.done():
            await asyncio.shield(self._recalling)
        if self._closed:
            raise CrawlStopping("the crawl is closing")
        turn: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._let_out()
        try:
            sent_at = await turn
        except asyncio.CancelledError:
            # Let out and cancelled before it could say so: its place is free again.
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._unused(turn.result())
            raise
        if self._closed:  # between being let out and getting here
            self._unused(sent_at)
            raise CrawlStopping("the crawl is closing")
        return sent_at

    def _unused(self, sent_at: float) -> None:
        self._controller.sent_nothing(time.monotonic(), sent_at=sent_at)
        self._wake()

    def failed(self, sent_at: float) -> None:
        """No answer came to the request let go at *sent_at*."""
        self._controller.failed(time.monotonic(), sent_at=sent_at)
        self._log_notes()
        self._wake()

    def answered(self, response: "Response", sent_at: float) -> Outcome:
        """An answer came to the request let go at *sent_at*; returns what it means."""
        now = time.monotonic()
        headers = {
            name.decode("latin-1").lower(): b", ".join(values).decode("latin-1")
            for name, values in response.headers.items()
        }
        body = response.body if response.status in {429, 503} else b""
        outcome = self._controller.answered(
            now, time.time(), response.status, headers, body, sent_at=sent_at
        )
        self._log_notes()
        self._tell_budget(now)
        if response.status in {401, 403}:
            self._stop(
                "unauthorized",
                f"The API refuses the key (HTTP {response.status}): it is wrong or has expired. "
                "Everything fetched so far is committed. Set API_KEY to a valid key and run the "
                "same command again: it goes on where it was.",
            )
        self._wake()
        return outcome

    # --- the queue --------------------------------------------------------------------------------

    def _let_out(self) -> None:
        """Lets out as many as the controller allows, and comes back when it says so."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and not self._closed:
            if self._queue[0].done():
                self._queue.popleft()
                continue
            now = time.monotonic()
            decision = self._controller.ask(now)
            self._log_notes()
            self._tell_wait(decision)
            if decision.delay_s > 0:
                self._timer = asyncio.get_running_loop().call_later(decision.delay_s, self._let_out)
                self._check_wait(now)
                return
            self._queue.popleft().set_result(now)

    def _wake(self) -> None:
        """Something changed: ask again, soon."""
        if self._queue:
            asyncio.get_running_loop().call_soon(self._let_out)

    def _check_wait(self, now: float) -> None:
        wait_s = self._controller.wait_too_long(now)
        if wait_s is not None:
            at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(time.time() + wait_s))
            self._stop(
                "rate_limited",
                f"The API's limit asks for a pause of {wait_s:.0f} s, longer than "
                f"RATE_LIMIT_MAX_WAIT ({self._max_wait_s:.0f} s). Run the same command again "
                f"after {at}.",
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
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_exception(CrawlStopping("the crawl is closing"))

    async def _spider_closed(self) -> None:
        if self._remembering is not None:
            await self._remembering
        if self._recalling is not None:
            await self._remember()
        await run_in_thread(self._connector.release)

    # --- memory -----------------------------------------------------------------------------------

    async def _recall(self) -> None:
        """Before the first request: the database is open by then."""
        try:
            learnt = await run_in_thread(self._memory.recall)
        except STORE_ERRORS as error:
            logger.warning("What was learnt of the limits can't be read (%s).", error)
            return
        self._controller.restore(time.monotonic(), time.time(), learnt)
        self._log_notes()

    async def _remember(self) -> None:
        now = time.monotonic()
        learnt = self._controller.snapshot(now, time.time())
        try:
            await run_in_thread(
                self._memory.remember, learnt, paused_for_s=self._controller.paused_for_s(now)
            )
        except STORE_ERRORS as error:
            logger.warning("What was learnt of the limits can't be written (%s).", error)

    def _remember_pause(self, until: float) -> None:
        """Writes a pause down when it begins, and again when it has become longer since."""
        known_until = max(self._written_until, time.monotonic())
        idle = self._remembering is None or self._remembering.done()
        if idle and until >= known_until + WRITTEN_PAUSE_S:
            self._written_until = until
            self._remembering = asyncio.ensure_future(self._remember())

    # --- what others are told, by stats; times in epoch seconds -----------------------------------

    def _tell_budget(self, now: float) -> None:
        stats = self._crawler.stats
        stats.set_value("rate_limit/in_flight", self._controller.in_flight)
        if budget := self._controller.budget(now):
            reset_in_s = budget.reset_in_s
            stats.set_value("rate_limit/limit", budget.limit)
            stats.set_value("rate_limit/remaining", budget.remaining)
            stats.set_value("rate_limit/reset_in_s", reset_in_s)
            stats.set_value(
                "rate_limit/reset_at", None if reset_in_s is None else time.time() + reset_in_s
            )

    def _tell_wait(self, decision: Decision) -> None:
        """A pause is a wait for the API that a person would notice."""
        stats, now = self._crawler.stats, time.monotonic()
        stats.set_value("rate_limit/in_flight", self._controller.in_flight)
        if decision.reason not in {"pause", "budget", "pace"}:
            self._tell_resume(now)
            return
        if decision.delay_s >= SHORTEST_PAUSE_S:
            if self._paused_at is None:
                self._paused_at = now
                stats.inc_value("rate_limit/pauses")
                self._log_wait(decision, now)
            self._remember_pause(now + decision.delay_s)
        if self._paused_at is not None:
            why = self._controller.pause_reason if decision.reason == "pause" else ""
            stats.set_value("rate_limit/paused_until", time.time() + decision.delay_s)
            stats.set_value(
                "rate_limit/pause_reason", f"rate limit ({why})" if why else "rate limit"
            )

    def _tell_resume(self, now: float) -> None:
        if self._paused_at is None:
            return
        stats, lasted_s = self._crawler.stats, now - self._paused_at
        paused_s = stats.get_value("rate_limit/paused_s", 0.0) + lasted_s
        stats.set_value("rate_limit/paused_s", round(paused_s, 3))
        stats.set_value("rate_limit/paused_until", None)
        self._paused_at = None
        if self._logs_resume:
            self._logs_resume = False
            logger.info("Going on after %.1f s", lasted_s)

    def _log_wait(self, decision: Decision, now: float) -> None:
        """Of the pauses that the API asks for, and of their end, the controller itself tells."""
        self._logs_resume = decision.reason != "pause" and decision.delay_s >= LOGGED_WAIT_S
        if self._logs_resume:
            budget = self._controller.budget(now)
            source = budget.learnt_from if budget else "found by trying"
            # Answers under way may tell of a later window: that is waited for, but not said.
            reset_in_s = budget.reset_in_s if budget else None
            wait_s = min(decision.delay_s, reset_in_s or decision.delay_s)
            logger.info("Limit reached: all wait %.1f s (%s)", wait_s, source)

    def _log_notes(self) -> None:
        for note in self._controller.take_notes():
            logger.info("%s", self._without_key(note))  # it quotes what the API has sent
