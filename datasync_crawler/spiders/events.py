"""The spider: sends the plan's requests and reads each response into an EventPage.

Owns the way from a wanted range to a request, and from a response to a page, a retry or a hole.
The order of things is `plan`'s. Must not write to the database, pace, or wait.
"""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import scrapy
from scrapy import signals as scrapy_signals
from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.exceptions import CloseSpider

from datasync_crawler import signals
from datasync_crawler.config import Config
from datasync_crawler.core.backoff import delay_s
from datasync_crawler.core.paging import Paging, RepeatWatch, Wanted
from datasync_crawler.core.ranges import Range
from datasync_crawler.core.scan import printable
from datasync_crawler.core.wire import PageDecoder, PageFormat, WireError, WirePage
from datasync_crawler.errors import ConfigError, CrawlError
from datasync_crawler.items import EventPage
from datasync_crawler.spiders.heard import Incomplete
from datasync_crawler.spiders.plan import Plan
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.ledger import Ledger

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")

#: A page that the API marks as tampered with is fetched again so often before it is taken as it is.
MOST_CHAOS_RETRIES: Final = 3
#: Statuses that a limit above the server's own is refused with, where it isn't just capped.
LIMIT_REFUSED: Final = {400, 413, 422}
#: Statuses that say: there is no such endpoint here.
NO_ENDPOINT: Final = {404, 405, 501}
#: Statuses that some servers answer with instead of an empty page where there is nothing any more.
NOTHING_THERE: Final = {204, 404, 416}


class _Stopping(Exception):
    """The crawl closes: the plan has nothing to ask the ledger any more. Caught by `start`."""


class EventsSpider(scrapy.Spider):
    """Settings: API_BASE_URL, BULK_*, *_PATH, *_PARAM, *_KEY, PAGINATION, and the database's.

    Argument (-a): redrive=1 fetches rejected events again first (`scrapy redrive`).

    Stats: crawl/…, pages/…; see docs/architecture.md.
    """

    name = "events"
    redrive: str = ""

    @classmethod
    def from_crawler(cls, crawler: "Crawler", *args: Any, **kwargs: Any) -> "EventsSpider":
        """Scrapy's constructor."""
        spider = super().from_crawler(crawler, *args, **kwargs)
        spider._set_up(Config.from_settings(crawler.settings))
        for handler, signal in (
            (spider._page_done, scrapy_signals.item_scraped),
            (spider._page_lost, scrapy_signals.item_dropped),
            (spider._page_lost, scrapy_signals.item_error),
            (spider._room, scrapy_signals.scheduler_empty),
            (spider._stop, signals.stopping),
            (spider._close, scrapy_signals.spider_closed),
        ):
            crawler.signals.connect(handler, signal)
        return spider

    def _set_up(self, config: Config) -> None:
        self.config = config
        self._decoder = PageDecoder(PageFormat(config.events_key, config.total_key))
        self._paging = Paging(
            bulk_url=config.api_base_url + config.bulk_path,
            cursor_url=config.api_base_url + config.cursor_path,
            offset_param=config.offset_param,
            limit_param=config.limit_param,
            cursor_param=config.cursor_param,
            numbered_from=config.page_start if config.pagination == "page" else None,
        )
        self._wanted = asyncio.Event()
        self._repeats = RepeatWatch()
        self._stop_threads = threading.Event()
        self._connector = Connector(config.database)
        self._ledger = Ledger(
            self._connector,
            config.schema,
            max_wait_s=config.db_max_wait_s,
            stop=self._stop_threads,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._plan = Plan(
            self._ledger,
            self._in_thread,
            self._paging,
            lambda: self.crawler.stats,
            page_size=config.page_size,
            pagination=config.pagination,
            in_flight=config.workers or self.settings.getint("CONCURRENT_REQUESTS"),
            redrive=self.redrive == "1",
        )

    async def start(self) -> AsyncIterator[scrapy.Request]:
        """Yields a request per range, lazily, until everything is proved or can't be had.

        Scrapy drains start() eagerly, the whole plan before the first response; so each request
        waits for the signal that the scheduler has nothing left and the downloader has room.
        """
        try:
            if self.redrive not in {"", "0", "1"}:
                raise ConfigError(f"redrive is {self.redrive!r}: pass -a redrive=1, or leave it.")
            async for wanted in self._plan.ranges():
                await self._wanted.wait()
                self._wanted.clear()
                yield self._request(wanted)
        except Incomplete as missing:
            self.crawler.stats.set_value("crawl/complete", value=False)
            self.crawler.stats.set_value("crawl/missing", str(missing))
            raise CloseSpider("incomplete") from None
        except CrawlError as error:
            self.logger.error("%s", error)
            self.crawler.stats.set_value("crawl/stop_sentence", str(error))
            raise CloseSpider(error.reason) from None
        except _Stopping:
            return

    def _request(self, wanted: Wanted) -> scrapy.Request:
        return scrapy.Request(
            self._paging.url(wanted),
            callback=self.parse,
            errback=self.page_failed,
            cb_kwargs={
                "pass_no": wanted.pass_no,
                "first_offset": wanted.range.first,
                "requested": wanted.range.count,
                "by_cursor": wanted.cursor is not None,
            },
            dont_filter=True,
        )

    # --- responses -------------------------------------------------------------------------------

    def parse(
        self,
        response: "Response",
        pass_no: int = 1,
        first_offset: int = 0,
        requested: int = 0,
        *,
        by_cursor: bool = False,
    ) -> Any:
        """One response into one EventPage, a retry, or nothing (an empty page behind the end)."""
        if response.status != 200:
            wanted = Wanted(pass_no, Range(first_offset, requested), "" if by_cursor else None)
            smaller = self._smaller(response, wanted)
            if smaller is None:
                self._refused(response, first_offset, by_cursor=by_cursor)
            return smaller
        try:
            wire = self._decoder.decode(response.body)
        except WireError as error:
            return self._again(response.request, first_offset, str(error), error.request_id)
        self._plan.learn_total(self._read_total(response, wire), wire.received)
        problem = self._problem(response, wire, first_offset, by_cursor=by_cursor)
        if problem is not None:
            return self._again(response.request, first_offset, problem, wire.request_id)
        if not wire.received:
            self._plan.empty(first_offset)
            return None
        page = self._page(response, wire, pass_no, first_offset, requested)
        if by_cursor:
            page.next_cursor, page.has_more = wire.next_cursor, wire.has_more
            page.cursor_expires_at = _from_now(wire.cursor_expires_in_s)
        else:
            self._plan.learn_page_size(first_offset, requested, wire.limit, wire.received)
            page.page_limit = self._plan.learnt_page_size
            if self._is_repeated(page):
                return self._repeated(response, first_offset, wire.request_id)
        return page

    def _problem(
        self, response: "Response", wire: WirePage, first_offset: int, *, by_cursor: bool
    ) -> str | None:
        """Why a well-formed page isn't taken as it is."""
        if self._is_tampered(response):
            return "marked X-Chaos-Applied"
        if wire.received:
            return None
        if self._plan.is_before_the_end(first_offset):
            return "an empty page before the total"
        if by_cursor and wire.has_more and self._plan.total is None:
            return "an empty page that says there is more"
        return None

    def _page(
        self, response: "Response", wire: WirePage, pass_no: int, first_offset: int, requested: int
    ) -> EventPage:
        return EventPage(
            pass_no=pass_no,
            first_offset=first_offset,
            requested=requested or wire.received,
            received=wire.received,
            events=wire.events,
            indexes=range(len(wire.events)) if wire.indexes is None else wire.indexes,
            rejections=list(wire.rejections),
            body=response.body,
            decoder=self._decoder,
            plain=wire.plain,
            total=self._plan.total,
        )

    def _read_total(self, response: "Response", wire: WirePage) -> int | None:
        """The largest of header and body; what isn't a number is counted and left out."""
        words = [wire.total]
        problems = [wire.total_problem]
        header = response.headers.get("X-Total-Count")
        if header is not None:
            text = header.decode("latin-1").strip()
            if text.isascii() and text.isdigit() and len(text) <= 15:
                words.append(int(text))
            else:
                problems.append("the header X-Total-Count isn't a whole number")
        for problem in filter(None, problems):
            if not self.crawler.stats.get_value("crawl/unreadable_totals"):
                self.logger.warning("%s: it is left out (said once).", problem.capitalize())
            self.crawler.stats.inc_value("crawl/unreadable_totals")
        return max((word for word in words if word is not None), default=None)

    def _is_tampered(self, response: "Response") -> bool:
        """Fields are missing on purpose (api.md): a few more tries, then it's taken as it is."""
        if b"X-Chaos-Applied" not in response.headers or response.request is None:
            return False
        tries = response.request.meta.get("chaos_tries", 0)
        response.request.meta["chaos_tries"] = tries + 1
        return bool(tries < MOST_CHAOS_RETRIES)

    def _is_repeated(self, page: EventPage) -> bool:
        """Not asked behind the end, where some servers serve the last page over and over."""
        if page.pass_no != self._plan.first_pass or self._plan.is_behind_the_end(page.first_offset):
            return False
        return self._repeats.repeats(page.first_offset, page.first_id, page.last_id, page.received)

    def _again(
        self,
        request: scrapy.Request | None,
        first_offset: int,
        problem: str,
        request_id: str | None = None,
    ) -> Any:
        """A 200 that isn't a usable page: tried again with backoff, then a hole."""
        assert request is not None
        problem = self.config.without_key(problem)
        self.crawler.stats.inc_value(f"pages/unusable/{problem[:60]}")
        named = f" (request {self.config.without_key(request_id)})" if request_id else ""
        again = get_retry_request(request, spider=self, reason=f"page: {problem[:60]}")
        if again is None:
            self.logger.warning("Offset %d can't be had: %s%s.", first_offset, problem, named)
            self._plan.given_up(first_offset)
            return None
        self.logger.debug("Offset %d is tried again: %s%s.", first_offset, problem, named)
        again.meta["delay_s"] = delay_s(
            again.meta["retry_times"],
            base_s=self.settings.getfloat("RETRY_BACKOFF_BASE"),
            cap_s=self.settings.getfloat("RETRY_BACKOFF_CAP"),
            random=random.random,
        )
        return again

    def _smaller(self, response: "Response", wanted: Wanted) -> scrapy.Request | None:
        """The first page of all with a limit that the API may allow, when it refuses ours."""
        name = self.config.limit_param
        if response.status not in LIMIT_REFUSED or wanted.range.first or self._plan.has_pages:
            return None
        if name.lower() not in response.body[:4096].decode(errors="replace").lower():
            return None
        asked = wanted.range.count
        smaller = self._plan.smaller_page(asked)
        if smaller is None:
            return None
        said = " ".join(printable(response.body[:200].decode(errors="replace")).split())
        self.logger.warning(
            "The API refuses %s=%d (HTTP %d: %s): trying %d. Set BULK_PAGE_SIZE to what it allows.",
            name, asked, response.status, self.config.without_key(said), smaller,
        )  # fmt: skip
        return self._request(Wanted(wanted.pass_no, Range(0, smaller), wanted.cursor))

    def _refused(self, response: "Response", first_offset: int, *, by_cursor: bool) -> None:
        """A status that retrying doesn't mend."""
        status = response.status
        if by_cursor and status == 400 and b"CURSOR" in response.body[:4096].upper():
            self._plan.cursor_expired(first_offset)
            return
        if status in NO_ENDPOINT and not by_cursor and not self._plan.has_pages:
            why = f"There is no bulk endpoint at {response.url.split('?')[0]} (HTTP {status})"
            if self._plan.bulk_unusable(why):
                self._plan.given_up(first_offset)
                return
        if status in NOTHING_THERE and self._plan.may_end_at(first_offset) and not by_cursor:
            self._plan.empty(first_offset)
            return
        self._plan.given_up(first_offset)
        if status in {401, 403}:
            return  # the handler has stopped the crawl
        if status >= 500:
            self.logger.warning("Offset %d can't be had: HTTP %d.", first_offset, status)
            return
        if 300 <= status < 400:
            hint = "Redirects aren't followed (the key would travel along): set API_BASE_URL to it"
        elif status in NO_ENDPOINT:
            hint = "Check API_BASE_URL (it ends in /api/v1), BULK_PATH and PAGINATION"
        else:
            hint = "Check BULK_PAGE_SIZE, OFFSET_PARAM and LIMIT_PARAM"
        self._request_stop(
            "api_refused", f"The API answers HTTP {status} to {response.url}. {hint}."
        )

    def _repeated(self, response: "Response", first_offset: int, request_id: str | None) -> Any:
        """The page of another offset: a mishap, or a server that ignores the offset."""
        if not self._repeats.offset_is_ignored:
            problem = "the page of another offset"
            return self._again(response.request, first_offset, problem, request_id)
        why = f"{response.url.split('?')[0]} serves the same page at different offsets"
        if not self._plan.bulk_unusable(why):
            self._request_stop(
                "api_refused",
                f"{why}: it ignores the offset. Check OFFSET_PARAM, or set PAGINATION=cursor.",
            )
        self._plan.given_up(first_offset)
        return None

    def page_failed(self, failure: "Failure") -> Any:
        """Retries are used up, or the crawl is closing: the range stays a hole.

        A body that can't be decompressed fails behind all that tries again (Scrapy shows it to no
        middleware), so it is tried again here.
        """
        request = failure.request  # type: ignore[attr-defined]
        first_offset = request.cb_kwargs["first_offset"]
        tries = request.meta.get("retry_times", 0)
        closing = self._stop_threads.is_set()
        if not closing and tries < self.settings.getint("RETRY_TIMES"):
            problem = "a body that can't be decompressed, or is too large"
            return self._again(request, first_offset, problem)
        if not closing:
            self.logger.warning(
                "Offset %d can't be had: %s.", first_offset, failure.getErrorMessage()
            )
        self._plan.given_up(first_offset)
        return None

    # --- what happens meanwhile ------------------------------------------------------------------

    def _page_done(self, item: Any) -> None:
        if isinstance(item, EventPage):
            self._plan.committed(item)

    def _page_lost(self, item: Any) -> None:
        if isinstance(item, EventPage):
            self._plan.given_up(item.first_offset)

    def _room(self) -> None:
        self._wanted.set()

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._stop_threads.is_set():  # the thread may have ended by now
            raise _Stopping
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))

    def _request_stop(self, reason: str, sentence: str) -> None:
        self.crawler.signals.send_catch_log(
            signals.stop_requested, reason=reason, sentence=sentence
        )

    def _stop(self) -> None:
        self._stop_threads.set()

    async def _close(self) -> None:
        self._stop_threads.set()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._ledger.close)
        self._thread.shutdown()
        self._connector.release()


def _from_now(seconds: float | None) -> datetime | None:
    """The instant in *seconds*, by this machine's clock; None: no expiry is known."""
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
