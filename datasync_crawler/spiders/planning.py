"""One process's part in reading and proving the set: look after look, each by the planner.

Owns ledger and leases of the run. Must not send requests (*fetch* does) or read responses.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from datasync_crawler import stats as stat
from datasync_crawler.api import shapes
from datasync_crawler.crawl.cursor import read_by_cursor
from datasync_crawler.crawl.extent import RepeatWatch
from datasync_crawler.crawl.planner import Planner
from datasync_crawler.crawl.ports import World
from datasync_crawler.crawl.sharing import share, under
from datasync_crawler.crawl.values import Ask, Lease, Outcome, Verdict
from datasync_crawler.errors import ConfigError, CrawlError
from datasync_crawler.spiders.following import Following

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.statscollectors import StatsCollector

    from datasync_crawler.app import App
    from datasync_crawler.crawl.reader import Reader

logger = logging.getLogger(__name__)


class Planning:
    """Begun once. *redrive*: the spider's argument. Stats: crawl/covered, and `Following`'s.

    `repeats`: the pages that this look has seen, for what reads the responses.
    """

    def __init__(
        self,
        app: "App",
        crawler: "Crawler",
        fetch: Callable[[Ask], Awaitable[Outcome]],
        redrive: str,
    ) -> None:
        self._app, self._crawler, self._fetch, self._redrive = app, crawler, fetch, redrive
        self.repeats = RepeatWatch()
        self._ledger, self._leases = app.ledger(), app.leases()
        self._running: asyncio.Future[Verdict] | None = None
        self._renewing: asyncio.Future[None] | None = None
        self._by_cursor = False  # offsets lead nowhere, as an earlier look has found out
        self._has_begun = False
        self._following: Following | None = None

    @property
    def _stats(self) -> "StatsCollector":
        return self._crawler.stats  # not there yet when the spider is made

    def begin(self) -> "asyncio.Future[Verdict]":
        """The verdict to come. Raises ConfigError for an unknown *redrive*."""
        if self._redrive not in {"", "0", "1", "all"}:
            raise ConfigError(
                f"redrive is {self._redrive!r}: pass -a redrive=1 or redrive=all, or leave it."
            )
        self._ledger.run_id = self._leases.run_id = self._stats.get_value(stat.RUN_ID)
        self._renewing = asyncio.ensure_future(self._leases.keep(self._paused_s))
        if self._app.config.follow_s is None:
            self._running = asyncio.ensure_future(self._look())
        else:
            self._following = Following(self._stats, self._app.config.follow_s, self.excess)
            self._running = asyncio.ensure_future(self._following.run(self._look, asyncio.sleep))
        return self._running

    def cancel(self) -> None:
        """Ends the planner's wait for outcomes."""
        if self._running is not None:
            self._running.cancel()

    async def close(self) -> None:
        """Ends everything, gives leases back and closes the connections."""
        self.cancel()
        if self._running is not None:
            # What it failed with was reported by who awaited it.
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._running
        if self._renewing is not None:
            self._renewing.cancel()
        await self._ledger.close()
        with contextlib.suppress(CrawlError):  # they expire by themselves
            await self._leases.close()

    def excess(self, verdict: Verdict) -> str:
        """The sentence on more rejections than MAX_REJECTED; "" when it allows them."""
        return shapes.too_many_rejected(
            verdict.rejected, verdict.stored + verdict.rejected, self._app.config.max_rejected
        )

    async def _look(self) -> Verdict:
        """The verdict on the set, of this process or of one that it shares the crawl with."""
        self.repeats = RepeatWatch()
        world = World(self._ledger, self._leases, self._fetch, asyncio.sleep, self._report_covered)
        reader = self._app.reader(world)
        redrive, self._redrive = self._redrive, ""  # once, not at each look

        async def plan(lease: Lease) -> Verdict:
            self._ledger.lease = lease
            reader.world = replace(world, fetch=under(lease, world.fetch))
            try:
                return await self._prove(reader, redrive)
            finally:
                self._ledger.lease, reader.world = None, world

        follow_s = self._app.config.follow_s
        fresh_s = 0.0 if follow_s is None else follow_s / 2
        return await share(reader, plan, own=redrive not in {"", "0"}, fresh_s=fresh_s)

    async def _prove(self, reader: "Reader", redrive: str) -> Verdict:
        """The verdict of the process that holds the proof."""
        pagination = self._app.config.pagination
        if pagination != "cursor" and not self._by_cursor:
            verdict = await Planner(reader, redrive=redrive == "1", anew=redrive == "all").run()
            if isinstance(verdict, Verdict):
                return verdict
            if pagination != "auto":
                sentence = (
                    f"{verdict.why}: check API_BASE_URL (it ends in /api/v1), BULK_PATH and "
                    "OFFSET_PARAM, or set PAGINATION=cursor"
                )
                return Verdict(complete=False, sentences=(sentence,))
            logger.warning("%s: the crawl goes on by cursor, one page after another.", verdict.why)
            self._by_cursor = True
        return await read_by_cursor(reader, redrive=redrive in {"1", "all"})

    def _paused_s(self) -> float:
        """Seconds until the API's rate limit lets a request through."""
        until = self._stats.get_value(stat.PAUSED_UNTIL)
        return 0.0 if until is None else until - time.time()

    def _report_covered(self, offsets: int) -> None:
        """What the ledger's chain holds before this look's pages."""
        # What others have received so far is in it, and counted on its own.
        others = self._stats.get_value(stat.RECEIVED_BY_OTHERS, 0)
        self._stats.set_value(stat.COVERED, offsets - others)
        if self._following is not None:
            self._following.covered(offsets)
        if offsets > self._stats.get_value(stat.RECEIVED, 0) and not self._has_begun:
            total = self._stats.get_value(stat.TOTAL)
            of = "an unknown number of" if total is None else f"{total:,}"
            logger.info(
                "Going on where it was left off: %s of %s events are committed.",
                f"{offsets:,}", of,
            )  # fmt: skip
        self._has_begun = True
