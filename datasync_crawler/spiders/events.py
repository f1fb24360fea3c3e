"""The spider: sends what the planner asks for, and hands each outcome back to it.

`start()` yields the requests that the planner has asked for; `parse` turns a response into an
EventPage. Whatever becomes of a request, its outcome arrives at the planner. Must not decide what
is fetched, write to the database, or pace.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import scrapy
from scrapy import signals as scrapy_signals
from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.exceptions import CloseSpider

from datasync_crawler import signals
from datasync_crawler.api import answers, shapes, statuses
from datasync_crawler.api.addresses import Addresses, next_address
from datasync_crawler.api.links import next_link
from datasync_crawler.app import App
from datasync_crawler.crawl.cursor import read_by_cursor
from datasync_crawler.crawl.extent import RepeatWatch
from datasync_crawler.crawl.planner import Planner
from datasync_crawler.crawl.ports import World
from datasync_crawler.crawl.reader import Reader
from datasync_crawler.crawl.sharing import share, under
from datasync_crawler.crawl.values import (
    Ask,
    Empty,
    Failed,
    Fenced,
    Lease,
    LimitRefused,
    Outcome,
    Page,
    Repeated,
    Verdict,
)
from datasync_crawler.errors import ConfigError, CrawlError
from datasync_crawler.events.decoding import PageDecoder, WireError, WirePage
from datasync_crawler.events.scan import printable
from datasync_crawler.items import EventPage
from datasync_crawler.ratelimit.backoff import delay_s
from datasync_crawler.spiders.following import Following, note
from datasync_crawler.spiders.waiting import Waiting

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from twisted.python.failure import Failure

#: A page that the API marks as tampered with is fetched again so often before it is taken as it is.
MOST_CHAOS_RETRIES: Final = 3
#: A page of more events than this, and than ten times what was asked for, isn't built.
LEAST_BOUND: Final = 100_000
#: A request that is nowhere for so long was dropped, in seconds.
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
        self._repeats = RepeatWatch()
        self._has_page = False
        self._pass_no = 0  # the run's first pass
        self._ledger, self._leases = app.ledger(), app.leases()
        self._planning: asyncio.Future[Verdict] | None = None
        self._renewing: asyncio.Future[None] | None = None
        self._by_cursor = False  # offsets lead nowhere, as an earlier look has found out
        self._has_begun = False
        self._following: Following | None = None

    # --- start ------------------------------------------------------------------------------------

    async def start(self) -> AsyncIterator[scrapy.Request]:
        """Yields a request per range, lazily, until everything is proved or can't be.

        Scrapy drains start() eagerly, the whole plan before the first response; so each request
        waits for the signal that the scheduler has nothing left and the downloader has room.
        """
        try:
            self._check_arguments()
            run_id = self.crawler.stats.get_value("crawl/run_id")
            self._ledger.run_id = self._leases.run_id = run_id
            self._renewing = asyncio.ensure_future(self._leases.keep(self._paused_s))
            if self.config.follow_s is not None:
                self._following = Following(self.crawler.stats, self.config.follow_s, self._excess)
            self._planning = asyncio.ensure_future(self._plan())
            while True:
                number, ask = await self._waiting.next(self._planning)
                if ask is None:
                    break
                yield self._request(number, ask)
            self._conclude(await self._planning)
        except CrawlError as error:
            self.crawler.stats.set_value("crawl/stop_sentence", str(error))
            raise CloseSpider(error.reason) from None
        except asyncio.CancelledError:
            if not self._app.stop.is_set():
                raise
        except CloseSpider:
            raise
        except Exception as error:
            self.logger.exception("The planner has failed")
            self.crawler.stats.set_value(
                "crawl/stop_sentence",
                f"The crawler itself has failed ({type(error).__name__}: {error}): that is a "
                "defect, please report it. What was committed is safe.",
            )
            raise CloseSpider("error") from None
        finally:
            if self._planning is not None:
                self._planning.cancel()

    def _check_arguments(self) -> None:
        if self.redrive not in {"", "0", "1", "all"}:
            raise ConfigError(
                f"redrive is {self.redrive!r}: pass -a redrive=1 or redrive=all, or leave it."
            )
        self._redrive = self.redrive

    async def _plan(self) -> Verdict:
        """One look at the set, or with FOLLOW one after another."""
        if self._following is None:
            return await self._look()
        return await self._following.run(self._look, asyncio.sleep)

    async def _look(self) -> Verdict:
        """The verdict on the set, of this process or of one that it shares the crawl with."""
        self._repeats = RepeatWatch()
        world = World(
            self._ledger, self._leases, self._waiting.fetch, asyncio.sleep, self._say_covered
        )
        reader = self._app.reader(world)
        redrive, self._redrive = self._redrive, ""  # once, not at each look

        async def plan(lease: Lease) -> Verdict:
            self._ledger.lease = lease
            reader.world = replace(world, fetch=under(lease, world.fetch))
            try:
                return await self._prove(reader, redrive)
            finally:
                self._ledger.lease, reader.world = None, world

        fresh_s = 0.0 if self.config.follow_s is None else self.config.follow_s / 2
        return await share(reader, plan, own=redrive not in {"", "0"}, fresh_s=fresh_s)

    async def _prove(self, reader: Reader, redrive: str) -> Verdict:
        """The verdict of the process that holds the proof."""
        config = self.config
        if config.pagination != "cursor" and not self._by_cursor:
            planner = Planner(reader, redrive=redrive == "1", anew=redrive == "all")
            verdict = await planner.run()
            if isinstance(verdict, Verdict):
                return verdict
            if config.pagination != "auto":
                said = (
                    f"{verdict.why}: check API_BASE_URL (it ends in /api/v1), BULK_PATH and "
                    "OFFSET_PARAM, or set PAGINATION=cursor"
                )
                return Verdict(complete=False, sentences=(said,))
            self.logger.warning(
                "%s: the crawl goes on by cursor, one page after another.", verdict.why
            )
            self._by_cursor = True
        return await read_by_cursor(reader, redrive=redrive in {"1", "all"})

    def _paused_s(self) -> float:
        """Seconds until the API's rate limit lets a request through."""
        until = self.crawler.stats.get_value("rate_limit/paused_until")
        return 0.0 if until is None else until - time.time()

    def _say_covered(self, offsets: int) -> None:
        """What the ledger's chain holds before this look's pages."""
        stats = self.crawler.stats
        stats.set_value("crawl/covered", offsets)
        if self._following is not None:
            self._following.covered(offsets)
        if offsets > stats.get_value("events/received", 0) and not self._has_begun:
            total = stats.get_value("crawl/total")
            of = "an unknown number of" if total is None else f"{total:,}"
            self.logger.info(
                "Going on where it was left off: %s of %s events are committed.",
                f"{offsets:,}", of,
            )  # fmt: skip
        self._has_begun = True

    def _conclude(self, verdict: Verdict) -> None:
        """Tells the stats. Raises CloseSpider unless everything is proved."""
        note(self.crawler.stats, self._with_excess(verdict))
        if not verdict.complete:
            raise CloseSpider("configuration" if verdict.setup else "incomplete")
        if self._excess(verdict):
            raise CloseSpider("too_many_rejected")

    def _excess(self, verdict: Verdict) -> str:
        """The sentence on more rejections than MAX_REJECTED; "" when it allows them."""
        return shapes.too_many_rejected(
            verdict.rejected, verdict.stored + verdict.rejected, self.config.max_rejected
        )

    def _with_excess(self, verdict: Verdict) -> Verdict:
        """The verdict with that sentence first."""
        excess = self._excess(verdict) if verdict.complete else ""
        return replace(verdict, sentences=(excess, *verdict.sentences)) if excess else verdict

    def _request(self, number: int, ask: Ask) -> scrapy.Request:
        return scrapy.Request(
            self._addresses.url(ask),
            callback=self.parse,
            errback=self.page_failed,
            cb_kwargs={"number": number, "ask": ask},
            dont_filter=True,
        )

    # --- responses --------------------------------------------------------------------------------

    def parse(  # noqa: PLR0911
        self, response: "Response", number: int = 0, ask: Ask | None = None
    ) -> Any:
        """One response into one EventPage, a retry, or nothing but an outcome.

        Without *ask*: an address that somebody looks at with `scrapy parse`.
        """
        ask = ask or Ask(1, 0, self.config.page_size)
        if response.status != 200:
            self._waiting.resolve(number, self._read_status(response, ask))
            return None
        try:
            wire = self._decoder.decode(response.body, max(LEAST_BOUND, 10 * ask.limit))
        except WireError as error:
            elsewhere = [] if self._has_page else shapes.lists_elsewhere(response.body)
            if elsewhere:
                return self._misfit(number, ask, shapes.no_list(self.config.events_key, elsewhere))
            return self._again(response.request, error.reason, error.request_id)
        total = self._read_total(response, wire)
        problem = self._problem(response, wire, ask, total)
        if problem:
            return self._again(response.request, problem, wire.request_id)
        self._say_total(total)
        if not self._has_page and wire.received:
            self._has_page = True
            if unusable := shapes.nothing_storable(wire, self.config.page_format):
                return self._misfit(number, ask, unusable)
        page = self._page(response, wire, number, ask, total)
        is_range = ask.pass_no > 0 and ask.cursor is None
        if is_range and self._repeats.repeats(ask.offset, page.ids, ask.pass_no):
            self._waiting.resolve(number, Repeated(ask, total, self._repeats.is_ignored))
        elif page.received > 0:
            return page
        else:
            self._waiting.resolve(number, _as_page(page) if wire.received else Empty(ask, total))
        return None

    def _misfit(self, number: int, ask: Ask, sentence: str) -> None:
        """The first answer has another shape than the settings say: trying again helps nobody."""
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
        headers = {
            name.decode("latin-1").lower(): b", ".join(values).decode("latin-1")
            for name, values in response.headers.items()
        }
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
                "The API refuses %s=%d (HTTP %d: %s): trying a smaller one. Set BULK_PAGE_SIZE to "
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
        """The larger of header and body; what isn't a number is counted and left out."""
        if self.config.total_key == "none":
            return None
        said = [wire.total]
        problems = [wire.total_problem]
        try:
            header = response.headers.get("X-Total-Count") or b""
            said.append(answers.header_total(header.decode("latin-1")))
        except ValueError as error:
            problems.append(str(error))
        for problem in filter(None, problems):
            if not self.crawler.stats.get_value("crawl/unreadable_totals"):
                self.logger.warning("%s: it is left out (said once).", problem.capitalize())
            self.crawler.stats.inc_value("crawl/unreadable_totals")
        return answers.largest(said)

    def _say_total(self, total: int | None) -> None:
        stats = self.crawler.stats
        before = stats.get_value("crawl/total")
        if total is None or total == before:
            return
        stats.set_value("crawl/total", total)
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
        again.meta["delay_s"] = delay_s(
            again.meta["retry_times"],
            base_s=self.settings.getfloat("RETRY_BACKOFF_BASE"),
            cap_s=self.settings.getfloat("RETRY_BACKOFF_CAP"),
            random=random.random,
        )
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
        cause = self.config.without_key(printable(failure.getErrorMessage()))
        if not closing:
            self.logger.warning("Offset %d couldn't be fetched: %s.", ask.first, cause)
        self._waiting.resolve(request.cb_kwargs["number"], Failed(ask, cause))
        return None

    # --- outcomes that arrive in other ways -------------------------------------------------------

    def _page_done(self, item: Any) -> None:
        if isinstance(item, EventPage):
            if item.pass_no > 0:
                self.crawler.stats.inc_value("crawl/covered", item.received)
            if self._is_reread(item):
                self.crawler.stats.inc_value("events/reread", item.duplicates)
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
        if "ask" in request.cb_kwargs:
            self._waiting.resolve(
                request.cb_kwargs["number"], Failed(request.cb_kwargs["ask"], cause)
            )

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
        if self._planning is not None:
            self._planning.cancel()

    async def _close(self) -> None:
        self._app.stop.set()
        if self._planning is not None:
            self._planning.cancel()
            # What it failed with was reported by start().
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._planning
        if self._renewing is not None:
            self._renewing.cancel()
        await self._ledger.close()
        with contextlib.suppress(CrawlError):  # they expire by themselves
            await self._leases.close()


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


def _from_now(seconds: float | None) -> datetime | None:
    """The instant in *seconds*, by this machine's clock; None: no expiry is known."""
    return None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
