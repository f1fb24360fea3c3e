"""Following: one look after another, so that one process keeps the table up to date (FOLLOW).

Owns how often the set is looked at, and how each verdict is reported. A look is what a second run
would be: the planner goes by the ledger. Must not know what a look fetches.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from datasync_crawler import stats as stat
from datasync_crawler.crawl.ports import Pause
from datasync_crawler.crawl.values import Verdict
from datasync_crawler.monitor.progress import duration

if TYPE_CHECKING:
    from scrapy.statscollectors import StatsCollector

logger = logging.getLogger(__name__)

#: Why what was proved isn't, until everything is read again.
MOVED: Final = "the events weren't where they were, and everything was being read again"


class Following:
    """Stats: crawl/follow_s, crawl/looks, crawl/next_look_at (epoch seconds), crawl/asides,
    crawl/too_many_rejected (the last look's sentence on MAX_REJECTED). *excess* gives that sentence
    for a complete verdict.
    """

    def __init__(
        self, stats: "StatsCollector", every_s: float, excess: Callable[[Verdict], str]
    ) -> None:
        self._stats, self._every_s, self._excess = stats, every_s, excess
        self._served = self._inserted = 0  # as of the last complete look
        stats.set_value(stat.FOLLOW_S, every_s)

    async def run(self, look: Callable[[], Awaitable[Verdict]], pause: Pause) -> Verdict:
        """Looks, waits, and so on until it is cancelled. What is incomplete is the next look's.

        Returns a verdict only where the next one won't do better: nothing has ever been complete,
        and no run would be without another setting.
        """
        while True:
            self._stats.inc_value("crawl/looks")
            self._stats.set_value(stat.NEXT_LOOK_AT, None)
            verdict = await look()
            if not (verdict.complete or verdict.rerun or self._served):
                return verdict
            note(self._stats, verdict)
            self._report(verdict)
            await pause(self._every_s)

    def covered(self, offsets: int) -> None:
        """A look begins with *offsets* committed; fewer than were proved end the last proof."""
        if offsets < self._served:
            note(self._stats, Verdict(complete=False, sentences=(MOVED,), rerun=True))

    def _report(self, verdict: Verdict) -> None:
        stats, every = self._stats, duration(self._every_s)
        stats.set_value(stat.NEXT_LOOK_AT, time.time() + self._every_s)
        if not verdict.complete:
            logger.warning("Not up to date: %s. Next look in %s.", verdict.sentences[0], every)
            return
        inserted = stats.get_value(stat.INSERTED, 0)
        new, first = inserted - self._inserted, not self._served
        self._served, self._inserted = verdict.served, inserted
        until = (
            f"Followed; the last complete look was at {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC."
        )
        excess = self._excess(verdict)
        if excess and excess != stats.get_value(stat.TOO_MANY_REJECTED):
            logger.warning("%s", excess)
        stats.set_value(stat.TOO_MANY_REJECTED, excess)
        said = filter(None, (excess, *verdict.sentences, until))
        stats.set_value(stat.ASIDES, "\n".join(said))
        logger.log(
            logging.INFO if new or first else logging.DEBUG,  # a line a look would be thousands
            "Up to date: %s new, %s stored. Next look in %s.",
            f"{new:,}", f"{verdict.stored:,}", every,
        )  # fmt: skip


def note(stats: "StatsCollector", verdict: Verdict) -> None:
    """The verdict as stats; crawl/last_complete_at is in epoch seconds."""
    stats.set_value(stat.COMPLETE, value=verdict.complete)
    if not verdict.complete:
        stats.set_value(stat.MISSING, verdict.sentences[0])
        stats.set_value(stat.RERUN, verdict.rerun)
        return
    for name, value in (
        (stat.ASIDES, "\n".join(verdict.sentences)),
        (stat.TOTAL, verdict.served),
        (stat.COVERED, verdict.served),
        (stat.TOTAL_FOUND, verdict.total != verdict.served),
        (stat.STORED, verdict.stored),
        (stat.REJECTED_NOW, verdict.rejected),
        ("crawl/last_complete_at", time.time()),
    ):
        stats.set_value(name, value)
