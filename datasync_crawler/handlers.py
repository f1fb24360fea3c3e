"""The download handler's wrapper: the last step before the wire.

It paces (the rate controller decides, here it is carried out), adds the API key, and stops. The
key is added here and nowhere earlier, to a copy: a request with the key in it would be pickled
into JOBDIR and follow redirects. Must not parse bodies or retry.
"""

import asyncio
import logging
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from scrapy.core.downloader.handlers.http11 import HTTP11DownloadHandler
from scrapy.exceptions import IgnoreRequest

from datasync_crawler import signals
from datasync_crawler.config import Config
from datasync_crawler.core.progress import SHORTEST_PAUSE_S
from datasync_crawler.core.ratelimit import Decision, RateController

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler
    from scrapy.http import Response

logger = logging.getLogger(__name__)

#: A download under way when the crawl is told to stop may still take so long, in seconds.
STOP_GRACE_S: Final = 1.5
#: The API's own header for the key (api.md).
KEY_HEADER: Final = "X-API-Key"


class CrawlStopping(IgnoreRequest):
    """The request wasn't sent, or was given up, because the crawl is closing. Raised here."""


class PacedDownloadHandler:
    """Settings: API_BASE_URL, API_KEY, WORKERS, RATE_LIMIT_MAX_WAIT. Stats: rate_limit/….

    Waiting requests stand in a queue and are let out first come, first served. One pause holds
    all of them.
    """

    lazy = False

    def __init__(self, crawler: "Crawler") -> None:
        config = Config.from_settings(crawler.settings)
        self._crawler = crawler
        self._inner = HTTP11DownloadHandler(crawler)
        self._key = config.api_key
        self._origin = _origin(config.api_base_url)
        self._max_wait_s = config.rate_limit_max_wait_s
        self._controller = RateController(
            # How many help is the throttle's business; here it's about the limit alone.
            max_in_flight=crawler.settings.getint("CONCURRENT_REQUESTS_PER_DOMAIN"),
            max_wait_s=config.rate_limit_max_wait_s,
            random=random.random,
        )
        self._queue: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._downloads: set[asyncio.Task[Response]] = set()
        self._stopping = False
        self._paused_at: float | None = None
        crawler.signals.connect(self._on_stopping, signals.stopping)

    @classmethod
    def from_crawler(cls, crawler: "Crawler") -> Self:
        """Scrapy's constructor."""
        return cls(crawler)

    async def download_request(self, request: "Request") -> "Response":
        """Waits for its turn, sends, and tells the controller what came.

        Raises CrawlStopping when the crawl closes meanwhile, and whatever Scrapy's handler raises.
        """
        await self._turn()
        sent_at = time.monotonic()
        sent = request.replace(headers={**request.headers, **self._credentials(request)})
        download = asyncio.ensure_future(self._inner.download_request(sent))
        self._downloads.add(download)
        try:
            response = await download
        except asyncio.CancelledError:
            self._controller.failed(time.monotonic(), sent_at=sent_at)
            raise CrawlStopping("the crawl is closing") from None
        except BaseException:
            self._controller.failed(time.monotonic(), sent_at=sent_at)
            raise
        finally:
            self._downloads.discard(download)
            self._wake()
        # Latency is measured on the copy; AutoThrottle and the stats read it from the original.
        request.meta.update(sent.meta)
        request.meta["took_s"] = time.monotonic() - sent_at  # the throttle's measure
        self._answered(response, sent_at)
        return response

    async def close(self) -> None:
        """Scrapy's: closes the connections."""
        if self._timer is not None:
            self._timer.cancel()
        await self._inner.close()

    # --- the key ----------------------------------------------------------------------------------

    def _credentials(self, request: "Request") -> dict[str, str]:
        if _origin(request.url) != self._origin:
            return {}
        return {KEY_HEADER: self._key}

    # --- pacing -----------------------------------------------------------------------------------

    async def _turn(self) -> None:
        if self._stopping:
            raise CrawlStopping("the crawl is closing")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._let_out()
        await turn

    def _let_out(self) -> None:
        """Lets out as many as the controller allows, and comes back when it says so."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and not self._stopping:
            if self._queue[0].done():
                self._queue.popleft()
                continue
            decision = self._controller.ask(time.monotonic())
            self._log_notes()
            if decision.delay_s > 0:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(decision.delay_s, self._let_out)
                self._tell_wait(decision)
                return
            self._queue.popleft().set_result(None)
            self._tell_wait(decision)

    def _wake(self) -> None:
        """Something changed: ask again, soon, once."""
        if self._queue:
            asyncio.get_running_loop().call_soon(self._let_out)

    def _answered(self, response: "Response", sent_at: float) -> None:
        now = time.monotonic()
        headers = {
            name.decode("latin-1").lower(): b", ".join(values).decode("latin-1")
            for name, values in response.headers.items()
        }
        body = response.body if response.status in {429, 503} else b""
        self._controller.answered(now, time.time(), response.status, headers, body, sent_at=sent_at)
        self._log_notes()
        self._tell_budget(now)
        if response.status in {401, 403}:
            self._stop(
                "unauthorized",
                f"The API refuses the key (HTTP {response.status}): it is wrong or has expired. "
                "Everything fetched so far is committed. Set API_KEY to a valid key and run the "
                "same command again: it goes on where it was.",
            )
        elif (wait_s := self._controller.wait_too_long(now)) is not None:
            at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(time.time() + wait_s))
            self._stop(
                "rate_limited",
                f"The API asks for a pause of {wait_s:.0f} s, longer than RATE_LIMIT_MAX_WAIT "
                f"({self._max_wait_s:.0f} s). Run the same command again after {at}.",
            )

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
        waits = decision.reason in {"pause", "budget"}
        if waits and self._paused_at is None and decision.delay_s >= SHORTEST_PAUSE_S:
            self._paused_at = now
            stats.inc_value("rate_limit/pauses")
        elif not waits and self._paused_at is not None:
            paused_s = stats.get_value("rate_limit/paused_s", 0.0) + now - self._paused_at
            stats.set_value("rate_limit/paused_s", round(paused_s, 3))
            self._paused_at = None
            stats.set_value("rate_limit/paused_until", None)
        if self._paused_at is not None:
            # Without the list of headers that said so.
            why = self._controller.pause_reason.split(",")[0]
            limited = decision.reason == "budget" or why.startswith("HTTP 429")
            stats.set_value("rate_limit/paused_until", time.time() + decision.delay_s)
            stats.set_value("rate_limit/pause_reason", "rate limit" if limited else why)

    def _log_notes(self) -> None:
        for note in self._controller.take_notes():
            logger.info("%s", note)

    # --- stopping ---------------------------------------------------------------------------------

    def _stop(self, reason: str, sentence: str) -> None:
        self._crawler.signals.send_catch_log(
            signals.stop_requested, reason=reason, sentence=sentence
        )

    def _on_stopping(self) -> None:
        self._stopping = True
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_exception(CrawlStopping("the crawl is closing"))
        asyncio.get_running_loop().call_later(STOP_GRACE_S, self._give_up_downloads)

    def _give_up_downloads(self) -> None:
        for download in self._downloads:
            download.cancel()


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port of *url* (RFC 6454 §4)."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
