"""The spider: asks the ledger what is missing, requests it, and proves at the end that it's there.

Owns the plan (which ranges, in which order, until when) and the reading of a response into an
EventPage. Must not write to the database, pace, or wait for anything but its own requests.
"""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar
from urllib.parse import urlencode

import scrapy
from scrapy import signals as scrapy_signals
from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.exceptions import CloseSpider, IgnoreRequest

from datasync_crawler import signals
from datasync_crawler.config import Config
from datasync_crawler.core import ranges
from datasync_crawler.core.backoff import delay_s
from datasync_crawler.core.ranges import Range
from datasync_crawler.core.wire import PageDecoder, PageFormat, WireError, WirePage
from datasync_crawler.errors import CrawlError
from datasync_crawler.items import EventPage
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.ledger import Ledger, LedgerState

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")

#: Rounds over the holes without a single page committed, before what is missing is reported.
MOST_STALLED_ROUNDS: Final = 2
#: Rounds that only fetch what the API has added meanwhile: a set that grows for ever must not
#: keep the crawl for ever.
MOST_GROWTH_ROUNDS: Final = 5
#: Holes read from the ledger at once: the plan is lazy, a million holes cost no memory.
HOLES_AT_ONCE: Final = 1000


class EventsSpider(scrapy.Spider):
    """Settings: API_BASE_URL, BULK_*, *_PARAM, *_KEY, and the database's. Stats: crawl/….

    crawl/total: events the API says there are. crawl/covered: offsets below it that are committed.
    crawl/complete: the proof held. crawl/missing: ranges that couldn't be had, as text.
    """

    name = "events"

    @classmethod
    def from_crawler(cls, crawler: "Crawler", *args: Any, **kwargs: Any) -> "EventsSpider":
        """Scrapy's constructor."""
        spider = super().from_crawler(crawler, *args, **kwargs)
        spider._set_up(Config.from_settings(crawler.settings))
        for handler, signal in (
            (spider._page_done, scrapy_signals.item_scraped),
            (spider._page_lost, scrapy_signals.item_error),
            (spider._room, scrapy_signals.scheduler_empty),
            (spider._stop, signals.stopping),
            (spider._close, scrapy_signals.spider_closed),
        ):
            crawler.signals.connect(handler, signal)
        return spider

    def _set_up(self, config: Config) -> None:
        self.config = config
        self.page_size = config.page_size
        self.total: int | None = None
        self._largest_total: int | None = None
        self._decoder = PageDecoder(PageFormat(config.events_key, config.total_key))
        self._url = config.api_base_url + config.bulk_path
        self._pass_no = 1
        # Ranges requested, whose page is neither committed nor given up.
        self._outstanding: set[int] = set()
        self._committed_pages = 0
        self._last_page: EventPage | None = None
        self._empty_at: int | None = None
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._stop_threads = threading.Event()
        self._connector = Connector(config.database)
        self._ledger = Ledger(
            self._connector,
            config.schema,
            max_wait_s=config.db_max_wait_s,
            stop=self._stop_threads,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    # --- the plan ---------------------------------------------------------------------------------

    async def start(self) -> AsyncIterator[scrapy.Request]:
        """Yields a request per range, lazily, until everything is committed or can't be had."""
        try:
            state = await self._in_thread(self._ledger.state)
            async for wanted in self._plan(state):
                await self._wanted.wait()
                self._wanted.clear()
                yield self._request(wanted)
        except CrawlError as error:
            self.logger.error("%s", error)
            self.crawler.stats.set_value("crawl/stop_sentence", str(error))
            raise CloseSpider(error.reason) from None

    async def _plan(self, state: LedgerState) -> AsyncIterator[Range]:
        """The ranges to fetch; waits for what is under way wherever the next step needs it."""
        self._pass_no = state.last_pass + 1
        if state.page_limit is not None:
            self.page_size = min(self.page_size, state.page_limit)
        known_first = not await self._in_thread(self._ledger.holes, min(state.reach, 1))
        known_first = known_first and state.reach > 0

        yield Range(0, self.page_size)
        await self._settled()
        front = self._last_page
        if front is None and self._empty_at != 0:
            self._finish_incomplete("the first page, and with it the total")
        await self._say_where(state, front if known_first else None)
        grown = 0
        if front is not None and known_first and front.inserted:
            async for wanted in self._read_front(state):
                yield wanted
            grown = max((self.total or 0) - (state.total or 0), 0)
        if self.total is None:
            async for wanted in self._read_to_the_end():
                yield wanted
        async for wanted in self._fill_holes(state, grown):
            yield wanted

    async def _say_where(self, state: LedgerState, reread: EventPage | None) -> None:
        """What the runs before this one have committed, for the log and for progress."""
        stats = self.crawler.stats
        if reread is not None:
            stats.inc_value("events/reread", reread.duplicates)
        covered = await self._in_thread(self._ledger.coverage, self.total or state.reach)
        here = stats.get_value("events/received", 0) - stats.get_value("events/reread", 0)
        stats.set_value("crawl/covered_before", max(covered - here, 0))
        if state.last_pass:
            self.logger.info(
                "Going on where the last run left off: %d of %s events are committed.",
                covered,
                "an unknown number of" if self.total is None else self.total,
            )

    async def _read_front(self, state: LedgerState) -> AsyncIterator[Range]:
        """New events at the front (newest-first order): on until a page is all known.

        As many as the total has grown by are fetched side by side; from there one after another.
        """
        assert self._last_page is not None
        position = self._last_page.received
        grown = (self.total or 0) - (state.total or 0)
        if grown > position:
            self.logger.info("About %d new events stand at the front: reading them.", grown)
            for wanted in ranges.split([Range(position, grown - position)], self.page_size):
                yield wanted
            await self._settled()
            position = grown
        while position < state.reach:
            self._last_page = None
            yield Range(position, self.page_size)
            await self._settled()
            page = self._last_page
            if page is None or not page.inserted:
                return
            position += page.received

    async def _read_to_the_end(self) -> AsyncIterator[Range]:
        """Without any total: page after page until an empty one, and a second look behind it."""
        self.logger.warning(
            "The API doesn't say how many events there are: reading until a page is empty."
        )
        position = (await self._in_thread(self._ledger.state)).reach
        while self.total is None:
            self._empty_at = None
            while self._empty_at is None:
                yield Range(position, self.page_size)
                position += self.page_size
                await self._fewer_outstanding_than(self.config.workers or 4)
            await self._settled()
            end = (await self._in_thread(self._ledger.state)).reach
            self._empty_at, before = None, self._committed_pages
            yield Range(end, self.page_size)
            await self._settled()
            if self._committed_pages == before:
                if self._empty_at is None:
                    self._finish_incomplete("the page behind the last one couldn't be had")
                self.total = end
            position = end + self.page_size

    async def _fill_holes(self, state: LedgerState, grown: int) -> AsyncIterator[Range]:
        """Holes first, then the frontier, until none is left or nothing moves any more.

        *grown* events came in at the front since the last run: what is left of the set that it
        knew has moved behind its place by as many.
        """
        stalled = growth_rounds = 0
        moved_below = state.total or 0
        while True:
            assert self.total is not None
            target, before = self.total, self._committed_pages
            async for hole in self._holes(target):
                wide = ranges.widen([hole], grown if hole.stop <= moved_below else 0, target)
                for wanted in ranges.split(wide, self.page_size):
                    yield wanted
            await self._settled()
            grown = 0
            target = min(target, self.total)
            if missing := await self._in_thread(self._ledger.holes, target, most=6):
                stalled = 0 if self._committed_pages > before else stalled + 1
                if stalled >= MOST_STALLED_ROUNDS:
                    self._finish_incomplete(_in_words(missing))
                continue
            async for wanted in self._second_look():
                yield wanted
            if self.total <= target or growth_rounds >= MOST_GROWTH_ROUNDS:
                self._prove(target, await self._in_thread(self._ledger.sums))
                return
            growth_rounds += 1

    async def _holes(self, target: int) -> AsyncIterator[Range]:
        """All holes below *target* as they were when each part of the list was read."""
        after = 0
        while holes := await self._in_thread(
            self._ledger.holes, target, after=after, most=HOLES_AT_ONCE
        ):
            for hole in holes:
                yield hole
            after = holes[-1].stop

    async def _second_look(self) -> AsyncIterator[Range]:
        """The total has fallen below what it was: is there really nothing behind it?"""
        assert self.total is not None
        if self._largest_total is None or self.total >= self._largest_total:
            return
        reach = (await self._in_thread(self._ledger.state)).reach
        if reach >= self._largest_total:
            return
        self._empty_at, before = None, self._committed_pages
        yield Range(max(self.total, reach), self.page_size)
        await self._settled()
        if self._committed_pages > before or self._empty_at is None:
            self.logger.warning(
                "The API said %d events, then %d, but serves more: %d is believed.",
                self._largest_total,
                self.total,
                self._largest_total,
            )
            self.total = self._largest_total
        else:
            self._largest_total = self.total

    def _prove(self, target: int, sums: Any) -> None:
        """The ledger covers [0, target): says so, and what is to be known beside it."""
        stats = self.crawler.stats
        stats.set_value("crawl/complete", value=True)
        stats.set_value("crawl/covered", target)
        stats.set_value("crawl/total", target)
        stats.set_value("crawl/stored", sums.inserted)
        stats.set_value("crawl/duplicates", sums.duplicates)
        stats.set_value("crawl/rejected_now", sums.rejected_now)
        if self.total is not None and self.total > target:
            stats.set_value("crawl/added_since", self.total - target)

    def _finish_incomplete(self, missing: str) -> None:
        """Ends start() with the finish reason `incomplete`."""
        self.crawler.stats.set_value("crawl/complete", value=False)
        self.crawler.stats.set_value("crawl/missing", missing)
        raise CloseSpider("incomplete")

    # --- requests and pages -----------------------------------------------------------------------

    def _request(self, wanted: Range) -> scrapy.Request:
        self._outstanding.add(wanted.first)
        query = {self.config.offset_param: wanted.first, self.config.limit_param: wanted.count}
        return scrapy.Request(
            f"{self._url}?{urlencode(query)}",
            callback=self.parse,
            errback=self.page_failed,
            cb_kwargs={
                "pass_no": self._pass_no,
                "first_offset": wanted.first,
                "requested": wanted.count,
            },
            dont_filter=True,
        )

    def parse(
        self, response: "Response", pass_no: int = 1, first_offset: int = 0, requested: int = 0
    ) -> Any:
        """One response into one EventPage, a retry, or nothing (an empty page behind the end)."""
        if response.status != 200:
            return self._refused(response, first_offset)
        try:
            wire = self._decoder.decode(response.body)
        except WireError as error:
            return self._again(response, first_offset, str(error))
        total = self._learn_total(response, wire)
        if not wire.received:
            if self.total is not None and first_offset < self.total:
                return self._again(response, first_offset, "an empty page before the total")
            self._empty_at = first_offset
            self._gone(first_offset)
            return None
        self._learn_page_size(wire, first_offset, requested)
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
            total=total,
            page_limit=self.page_size if self.page_size < self.config.page_size else None,
        )

    def _learn_total(self, response: "Response", wire: WirePage) -> int | None:
        """The largest of header and body; an empty page's word doesn't count."""
        words = [wire.total]
        header = response.headers.get("X-Total-Count")
        if header is not None:
            text = header.decode("latin-1").strip()
            if text.isascii() and text.isdigit() and len(text) <= 15:
                words.append(int(text))
            else:
                self.crawler.stats.inc_value("crawl/unreadable_totals")
        said = max((word for word in words if word is not None), default=None)
        if said is None or not wire.received:
            if said is not None and self.total is None:
                self.total = said  # an empty set says 0
            return None
        if self.total is not None and said != self.total:
            self.logger.info("The API's total is %d now, it was %d.", said, self.total)
        self.total = said
        self._largest_total = max(said, self._largest_total or 0)
        self.crawler.stats.set_value("crawl/total", said)
        return said

    def _learn_page_size(self, wire: WirePage, first_offset: int, requested: int) -> None:
        behind = None if self.total is None else self.total - first_offset
        size = ranges.next_page_size(requested, wire.limit, wire.received, behind)
        if requested == self.page_size and size < requested:
            if wire.limit is None and first_offset:
                return  # a short page in the middle: the rest of it is a hole
            self.logger.info(
                "The API serves %d events a page, not %d: the plan follows.", size, requested
            )
            self.page_size = size

    def _again(self, response: "Response", first_offset: int, problem: str) -> Any:
        """A 200 that isn't a usable page: tried again with backoff, then a hole."""
        request = response.request
        assert request is not None
        self.crawler.stats.inc_value(f"pages/unusable/{problem[:60]}")
        again = get_retry_request(request, spider=self, reason=f"page: {problem[:80]}")
        if again is None:
            self.logger.warning("Offset %d can't be had for now: %s.", first_offset, problem)
            self._gone(first_offset)
            return None
        again.meta["delay_s"] = delay_s(
            again.meta["retry_times"],
            base_s=self.settings.getfloat("RETRY_BACKOFF_BASE"),
            cap_s=self.settings.getfloat("RETRY_BACKOFF_CAP"),
            random=random.random,
        )
        return again

    def _refused(self, response: "Response", first_offset: int) -> None:
        """A status that retrying doesn't mend."""
        self._gone(first_offset)
        if response.status in {401, 403}:
            return  # the handler has stopped the crawl
        if 300 <= response.status < 400:
            hint = "Redirects aren't followed (the key would travel along): set API_BASE_URL to it"
        elif response.status == 404:
            hint = "Check API_BASE_URL (it ends in /api/v1) and BULK_PATH"
        elif response.status < 500:
            hint = "Check BULK_PAGE_SIZE, OFFSET_PARAM and LIMIT_PARAM"
        else:
            self.logger.warning(
                "Offset %d can't be had for now: HTTP %d.", first_offset, response.status
            )
            return
        self._request_stop(
            "api_refused", f"The API answers HTTP {response.status} to {response.url}. {hint}."
        )

    def page_failed(self, failure: "Failure") -> None:
        """Retries are used up, or the crawl is closing: the range stays a hole."""
        request = failure.request  # type: ignore[attr-defined]
        first_offset = request.cb_kwargs["first_offset"]
        if not isinstance(failure.value, IgnoreRequest):
            self.logger.warning(
                "Offset %d can't be had for now: %s.", first_offset, failure.getErrorMessage()
            )
        self._gone(first_offset)

    # --- what happens meanwhile -------------------------------------------------------------------

    def _page_done(self, item: Any) -> None:
        if isinstance(item, EventPage):
            self._committed_pages += 1
            self._last_page = item
            self._gone(item.first_offset)

    def _page_lost(self, item: Any) -> None:
        if isinstance(item, EventPage):
            self._gone(item.first_offset)

    def _gone(self, first_offset: int) -> None:
        self._outstanding.discard(first_offset)
        self._changed.set()

    def _room(self) -> None:
        """The scheduler has nothing left and the downloader has room: the next request may come.

        Scrapy drains start() eagerly otherwise, the whole plan before the first response.
        """
        self._wanted.set()

    async def _settled(self) -> None:
        await self._fewer_outstanding_than(1)

    async def _fewer_outstanding_than(self, number: int) -> None:
        while len(self._outstanding) >= number:
            self._changed.clear()
            await self._changed.wait()

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
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
        await self._in_thread(self._ledger.close)
        self._thread.shutdown()
        self._connector.release()


def _in_words(holes: list[Range]) -> str:
    """Holes for a person: the first few, as first–last."""
    shown = ", ".join(f"{hole.first}–{hole.stop - 1}" for hole in holes[:5])
    return f"offsets {shown}{', …' if len(holes) > 5 else ''}"
