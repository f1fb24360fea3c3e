"""The spider: sends what the planner asks for, and hands each outcome back to it.

`start()` yields the requests that the planner has asked for; `parse` turns a response into an
EventPage. Whatever becomes of a request, its outcome arrives at the planner. Must not decide what
is fetched, write to the database, or pace.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import scrapy
from scrapy import signals as scrapy_signals
from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.exceptions import CloseSpider
from scrapy.utils.asyncio import run_in_thread

from datasync_crawler import signals
from datasync_crawler import stats as stat
from datasync_crawler.api import answers, shapes, statuses
from datasync_crawler.api.addresses import Addresses, next_address
from datasync_crawler.api.links import next_link
from datasync_crawler.api.totals import read_total
from datasync_crawler.app import App
from datasync_crawler.crawl.values import (
    Ask,
    Empty,
    Failed,
    Fenced,
    LimitRefused,
    Outcome,
    Page,
    Repeated,
    Verdict,
)
from datasync_crawler.errors import CrawlError
from datasync_crawler.events.decoding import PageDecoder, WireError, WirePage
from datasync_crawler.events.scan import printable
from datasync_crawler.items import EventPage
from datasync_crawler.request_notes import ask_of, delay_retry
from datasync_crawler.spiders.following import note
from datasync_crawler.spiders.planning import Planning
from datasync_crawler.spiders.waiting import Waiting

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from twisted.python.failure import Failure

#: A page that the API marks as tampered with is fetched again so often before it is taken as it is.
MOST_CHAOS_RETRIES: Final = 3
#: A page of more events than this, and than ten times what was asked for, isn't built.
LEAST_BOUND: Final = 100_000
#: Bytes. A longer body is decoded on a thread: one of 60 MB takes up to three seconds, in which no
#: lease would be renewed.
MOST_IN_LOOP: Final = 8_000_000
#: Seconds after which a request that Scrapy no longer holds counts as dropped.
LOST_AFTER_S: Final = 0.5
#: Log lines about a total that changes with each response.
MOST_TOTALS_LOGGED: Final = 5


class EventsSpider(scrapy.Spider):
    """Settings: API_BASE_URL, BULK_*, *_PATH, *_PARAM, *_KEY, PAGINATION, and the database's.

    Argument (-a): redrive=1 fetches rejected events again first (`scrapy redrive`); redrive=all
    reads everything again (`scrapy redrive --all`).

    Stats: crawl/…, pages/…; see docs/architecture.md.
    """

    name = "events"
    redrive: str = ""

    @classmethod
    def from_crawler(cls, crawler: "Crawler", *args: Any, **kwargs: Any) -> "EventsSpider":
        """Scrapy's constructor."""
        spider = super().from_crawler(crawler, *args, **kwargs)
        spider._set_up(App.of(crawler))
        for handler, signal in (
            (spider._page_done, scrapy_signals.item_scraped),
            (spider._page_lost, scrapy_signals.item_dropped),
            (spider._page_lost, scrapy_signals.item_error),
            (spider._parse_failed, scrapy_signals.spider_error),
            (spider._dropped, scrapy_signals.request_dropped),
            (spider._room, scrapy_signals.scheduler_empty),
            (spider._stop, signals.stopping),
            (spider._close, scrapy_signals.spider_closed),
        ):
            crawler.signals.connect(handler, signal)
        return spider

    def _set_up(self, app: App) -> None:
        self._app, self.config = app, app.config
        config = app.config
        self._decoder = PageDecoder(config.page_format)
        self._addresses = Addresses.of(config)
        self._waiting = Waiting()
        self._decoding = asyncio.Lock()  # one large body at a time: it takes several times its size
        self._planning = Planning(app, self.crawler, self._waiting.fetch, self.redrive)
        self._has_page = False
        self._pass_no = 0  # the run's first pass

    # --- start ------------------------------------------------------------------------------------

    async def start(self) -> AsyncIterator[scrapy.Request]:
        """Yields a request per range, lazily, until everything is proved or can't be.

        Scrapy drains start() eagerly, the whole plan before the first response; so each request
        waits for the signal that the scheduler has nothing left and the downloader has room.
        """
        try:
            verdict = self._planning.begin()
            while True:
                number, ask = await self._waiting.next(verdict)
                if ask is None:
                    break
                yield self._request(number, ask)
            self._conclude(await verdict)
        except CrawlError as error:
            self.crawler.stats.set_value(stat.STOP_SENTENCE, str(error))
            raise CloseSpider(error.reason) from None
        except asyncio.CancelledError:
            if not self._app.stop.is_set():
                raise
        except CloseSpider:
            raise
        except Exception as error:
            self.logger.exception("The planner has failed")
            self.crawler.stats.set_value(
                stat.STOP_SENTENCE,
                f"The crawler itself has failed ({type(error).__name__}: {error}): that is a "
                "defect, please report it. What was committed is safe.",
            )
            raise CloseSpider("error") from None
        finally:
            self._planning.cancel()

    def _conclude(self, verdict: Verdict) -> None:
        """Sets the stats. Raises CloseSpider unless everything is proved."""
        excess = self._planning.excess(verdict) if verdict.complete else ""
        if excess:
            verdict = replace(verdict, sentences=(excess, *verdict.sentences))
        note(self.crawler.stats, verdict)
        if not verdict.complete:
            raise CloseSpider("configuration" if verdict.setup else "incomplete")
        if excess:
            raise CloseSpider("too_many_rejected")

    def _request(self, number: int, ask: Ask) -> scrapy.Request:
        return scrapy.Request(
            self._addresses.url(ask),
            callback=self.parse,
            errback=self.page_failed,
            cb_kwargs={"number": number, "ask": ask},
            dont_filter=True,
        )

    # --- responses --------------------------------------------------------------------------------

    def parse(self, response: "Response", number: int = 0, ask: Ask | None = None) -> Any:
        """One response into one EventPage, a retry, or nothing but an outcome; for a large body
        a coroutine of that.

        Without *ask*: an address that somebody looks at with `scrapy parse`.
        """
        ask = ask or Ask(1, 0, self.config.page_size)
        if response.status != 200:
            self._waiting.resolve(number, self._read_status(response, ask))
            return None
        if len(response.body) > MOST_IN_LOOP:
            return self._parse_on_thread(response, number, ask)
        return self._parsed(response, number, ask, self._decode(response.body, ask))

    async def _parse_on_thread(self, response: "Response", number: int, ask: Ask) -> Any:
        async with self._decoding:
            wire = await run_in_thread(self._decode, response.body, ask)
        return self._parsed(response, number, ask, wire)

    def _decode(self, body: bytes, ask: Ask) -> WirePage | WireError:
        """From any thread."""
        try:
            return self._decoder.decode(body, max(LEAST_BOUND, 10 * ask.limit))
        except WireError as error:
            return error.with_traceback(None)  # its frames hold the body

    def _parsed(
        self, response: "Response", number: int, ask: Ask, wire: WirePage | WireError
    ) -> Any:
        if isinstance(wire, WireError):
            elsewhere = [] if self._has_page else shapes.lists_elsewhere(response.body)
            if elsewhere:
                return self._misfit(number, ask, shapes.no_list(self.config.events_key, elsewhere))
            return self._again(response.request, wire.reason, wire.request_id)
        total = self._read_total(response, wire)
        problem = self._problem(response, wire, ask, total)
        if problem:
            return self._again(response.request, problem, wire.request_id)
        self._report_total(total)
        if not self._has_page and wire.received:
            self._has_page = True
            if unusable := shapes.nothing_storable(wire, self.config.page_format):
                return self._misfit(number, ask, unusable)
        page = self._page(response, wire, number, ask, total)
        is_range = ask.pass_no > 0 and ask.cursor is None
        if is_range and self._planning.repeats.repeats(ask.offset, page.ids, ask.pass_no):
            self._waiting.resolve(number, Repeated(ask, total, self._planning.repeats.is_ignored))
        elif page.received > 0:
            return page
        else:
            self._waiting.resolve(number, _as_page(page) if wire.received else Empty(ask, total))
        return None

    def _misfit(self, number: int, ask: Ask, sentence: str) -> None:
        """The first answer has another shape than the settings say: trying again doesn't help."""
        self._request_stop("configuration", sentence)
        self._waiting.resolve(number, Failed(ask, sentence))

    def _problem(self, response: "Response", wire: WirePage, ask: Ask, total: int | None) -> str:
        """Why a well-formed page isn't taken as it is; "" when it is."""
        if self._is_tampered(response):
            return "marked X-Chaos-Applied"
        if not wire.received and ask.cursor is not None and wire.has_more and total is None:
            return "an empty page that says there is more"
        return ""

    def _page(
        self, response: "Response", wire: WirePage, number: int, ask: Ask, total: int | None
    ) -> EventPage:
        indexes = range(len(wire.events)) if wire.indexes is None else wire.indexes
        dropped = next((n for n, index in enumerate(indexes) if index >= ask.overlap), len(indexes))
        headers = answers.header_texts(response.headers)
        return EventPage(
            ask=ask,
            ids=answers.known_by(wire, self.config.id_field),
            events=wire.events[dropped:],
            indexes=indexes[dropped:],
            rejections=[one for one in wire.rejections if one.index >= ask.overlap],
            body=response.body,
            decoder=self._decoder,
            request_no=number,
            alone=self._waiting.are_alone,
            plain=wire.plain,
            total=total,
            next_cursor=self._next_cursor(response, wire, headers.get("link", "")),
            has_more=wire.has_more,
            cursor_expires_at=_from_now(wire.cursor_expires_in_s),
            cached_s=answers.cached_s(headers),
        )

    def _next_cursor(self, response: "Response", wire: WirePage, link: str) -> str | None:
        """Where the next page is: a cursor, or an address of the API's own origin."""
        said = wire.next_url or next_link(link)
        if wire.next_cursor or not said:
            return wire.next_cursor
        address = next_address(response.url, said)
        if address is None:
            self.logger.warning(
                "The API names a next page of another origin, which isn't followed: the key must "
                "not go there."
            )
        return address

    def _read_status(self, response: "Response", ask: Ask) -> Outcome:
        status = response.status
        outcome = statuses.read_status(
            status, response.body, response.url, ask, self.config.limit_param
        )
        if isinstance(outcome, LimitRefused):
            said = " ".join(printable(response.body[:200].decode(errors="replace")).split())
            self.logger.warning(
                "The API rejects %s=%d (HTTP %d: %s): trying a smaller one. Set BULK_PAGE_SIZE to "
                "what it allows.",
                self.config.limit_param, ask.limit, status, self.config.without_key(said),
            )  # fmt: skip
        elif isinstance(outcome, Failed):
            remedy = statuses.remedy(status, response.body)
            if remedy is not None:
                self._request_stop(
                    "api_refused", f"The API answers HTTP {status} to {response.url}. {remedy}."
                )
            elif status >= 500:
                self.logger.warning("Offset %d couldn't be fetched: HTTP %d.", ask.first, status)
        return outcome

    def _read_total(self, response: "Response", wire: WirePage) -> int | None:
        """The response's total; what isn't a number is counted and left out."""
        if self.config.total_key == "none":
            return None
        header = (response.headers.get("X-Total-Count") or b"").decode("latin-1")
        total, problem = read_total(header, wire.total)
        for said in filter(None, (wire.total_problem, problem)):
            if not self.crawler.stats.get_value("crawl/unreadable_totals"):
                self.logger.warning("%s: it is left out (logged once).", said.capitalize())
            self.crawler.stats.inc_value("crawl/unreadable_totals")
        return total

    def _report_total(self, total: int | None) -> None:
        stats = self.crawler.stats
        before = stats.get_value(stat.TOTAL)
        if total is None or total == before:
            return
        stats.set_value(stat.TOTAL, total)
        if before is not None:
            stats.inc_value("crawl/total_changes")
            if stats.get_value("crawl/total_changes") <= MOST_TOTALS_LOGGED:
                self.logger.info("The API's total is %s now (it was %s).",
                                 f"{total:,}", f"{before:,}")  # fmt: skip

    def _is_tampered(self, response: "Response") -> bool:
        """Fields are missing on purpose: a few more tries, then it's taken as it is."""
        if b"X-Chaos-Applied" not in response.headers or response.request is None:
            return False
        tries = response.request.meta.get("chaos_tries", 0)
        response.request.meta["chaos_tries"] = tries + 1
        return bool(tries < MOST_CHAOS_RETRIES)

    def _again(
        self, request: scrapy.Request | None, problem: str, request_id: str | None = None
    ) -> scrapy.Request | None:
        """A 200 that isn't a usable page: tried again with backoff, then it has failed."""
        assert request is not None
        ask, number = request.cb_kwargs["ask"], request.cb_kwargs["number"]
        problem = self.config.without_key(problem)
        # Without what the API says in it: stats mustn't grow with that.
        kind = problem.partition(" (")[0][:60]
        self.crawler.stats.inc_value(f"pages/unusable/{kind}")
        named = f" (request {self.config.without_key(request_id)})" if request_id else ""
        again = get_retry_request(request, spider=self, reason=f"page: {kind}")
        if again is None:
            self.logger.warning("Offset %d couldn't be fetched: %s%s.", ask.first, problem, named)
            self._waiting.resolve(number, Failed(ask, problem))
            return None
        self.logger.debug("Offset %d is tried again: %s%s.", ask.first, problem, named)
        delay_retry(again, self.settings)
        return again

    def page_failed(self, failure: "Failure") -> Any:
        """Retries are used up, or the crawl is closing.

        A body that can't be decompressed fails behind all that tries again (Scrapy shows it to no
        middleware), so it is tried again here.
        """
        request = failure.request  # type: ignore[attr-defined]
        tries = request.meta.get("retry_times", 0)
        closing = self._app.stop.is_set()
        if not closing and tries < self.settings.getint("RETRY_TIMES"):
            return self._again(request, "a body that can't be decompressed, or is too large")
        ask = request.cb_kwargs["ask"]
        cause = self.config.without_key(printable(_cause(failure)))
        if not closing:
            self.logger.warning("Offset %d couldn't be fetched: %s.", ask.first, cause)
        self._waiting.resolve(request.cb_kwargs["number"], Failed(ask, cause))
        return None

    # --- outcomes that arrive in other ways -------------------------------------------------------

    def _page_done(self, item: Any) -> None:
        if isinstance(item, EventPage):
            if item.pass_no > 0:
                self.crawler.stats.inc_value(stat.COVERED, item.received)
            if self._is_reread(item):
                self.crawler.stats.inc_value(stat.REREAD, item.duplicates)
            self._waiting.resolve(item.request_no, _as_page(item))

    def _is_reread(self, page: EventPage) -> bool:
        """Whether known events are in it by right: a reading that checks, the front of a pass after
        the first, or by cursor any page of it, or another pass of the same run.
        """
        if page.pass_no > 0 and not self._pass_no:
            self._pass_no = page.pass_no
        is_front = page.pass_no > 1 and (not page.first_offset or page.ask.cursor is not None)
        return page.pass_no < 0 or is_front or page.pass_no > self._pass_no

    def _page_lost(self, item: Any, exception: BaseException | None = None) -> None:
        if isinstance(item, EventPage) and item.fenced:
            self.crawler.stats.inc_value("pages/fenced")
            self._waiting.resolve(item.request_no, Fenced(item.ask))
        elif isinstance(item, EventPage):
            cause = str(exception) if exception else "a pipeline has failed"
            self._waiting.resolve(item.request_no, Failed(item.ask, cause))

    def _parse_failed(self, failure: "Failure", response: "Response | None") -> None:
        if response is not None and response.request is not None:
            cause = type(failure.value).__name__
            self._dropped(response.request, f"the spider's callback has failed ({cause})")

    def _dropped(self, request: scrapy.Request, cause: str = "it was dropped on its way") -> None:
        ask = ask_of(request)
        if ask is not None:
            self._waiting.resolve(request.cb_kwargs["number"], Failed(ask, cause))

    def _room(self) -> None:
        """The scheduler is empty. A request that is nowhere was dropped by a middleware."""
        engine = self.crawler.engine
        slot, scraping = engine._slot, engine.scraper.slot
        assert slot is not None
        assert scraping is not None
        is_busy = engine.downloader.active or scraping.active or slot.inprogress
        is_idle = not is_busy and not slot.scheduler.has_pending_requests()
        if self._waiting.room(is_idle=is_idle):  # look again soon: Scrapy itself would in 5 s
            asyncio.get_running_loop().call_later(LOST_AFTER_S, slot.nextcall.schedule)

    def _request_stop(self, reason: str, sentence: str) -> None:
        self.crawler.signals.send_catch_log(
            signals.stop_requested, reason=reason, sentence=sentence
        )

    def _stop(self) -> None:
        self._app.stop.set()
        self._planning.cancel()

    async def _close(self) -> None:
        self._app.stop.set()
        await self._planning.close()


def _as_page(page: EventPage) -> Page:
    return Page(
        page.ask,
        page.ids,
        new=page.inserted + page.rejected if page.committed else 0,
        total=page.total,
        next_cursor=page.next_cursor,
        has_more=page.has_more,
        cached_s=page.cached_s,
    )


def _cause(failure: "Failure") -> str:
    """The cause of a failed request, without a full stop. Twisted lists the reasons of a lost
    response in an exception of its own, which Scrapy wraps.
    """
    links: list[BaseException | None] = [failure.value]
    for link in links:
        if reasons := getattr(link, "reasons", None):
            return str(reasons[-1].value).rstrip(".")
        # An error can be its own cause, as Scrapy 2.19 raises it.
        nexts = () if link is None else (link.__cause__, link.__context__)
        links += [one for one in nexts if one not in links]
    return failure.getErrorMessage().rstrip(".")


def _from_now(seconds: float | None) -> datetime | None:
    """The instant in *seconds*, by this machine's clock; None: no expiry is known."""
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
