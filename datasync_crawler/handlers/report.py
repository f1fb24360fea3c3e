"""The limiter's stats and log lines.

Stats: rate_limit/… (times in epoch seconds). A wait for the API counts as a pause from
SHORTEST_PAUSE_S on. It is logged from LOGGED_PAUSE_S on, at most once a minute.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from datasync_crawler import stats as stat
from datasync_crawler.monitor.progress import SHORTEST_PAUSE_S

if TYPE_CHECKING:
    from scrapy.statscollectors import StatsCollector

    from datasync_crawler.ratelimit.decisions import Decision
    from datasync_crawler.ratelimit.limiter import Limiter

logger = logging.getLogger(__name__)

#: The shortest pause that is logged, and the time between two such lines, in seconds.
LOGGED_PAUSE_S: Final = 10.0
BETWEEN_LINES_S: Final = 60.0


class LimiterReport:
    """Sets the stats and logs the limiter's messages, pauses included."""

    def __init__(self, stats: "StatsCollector", without_key: Callable[[str], str]) -> None:
        self._stats = stats
        self._without_key = without_key
        self._paused_at: float | None = None
        self._logged_at = -math.inf

    def answered(self, messages: Iterable[str], limiter: "Limiter", now: float) -> None:
        """Reports what an answer has changed."""
        for message in messages:
            logger.info("%s", self._without_key(message))  # it quotes the API
        stats, budget = self._stats, limiter.budget(now)
        stats.set_value(stat.IN_FLIGHT, limiter.in_flight)
        if budget is None:
            return
        reset_in_s = budget.reset_in_s
        stats.set_value(stat.LIMIT, budget.limit)
        stats.set_value(stat.LIMIT_WINDOW_S, budget.window_s)
        stats.set_value(stat.LIMIT_REMAINING, budget.remaining)
        stats.set_value("rate_limit/reset_in_s", reset_in_s)
        reset_at = None if reset_in_s is None else time.time() + reset_in_s
        stats.set_value(stat.LIMIT_RESET_AT, reset_at)

    def decided(self, decision: "Decision", limiter: "Limiter", now: float) -> float:
        """Reports a decision; returns the pause in seconds, 0.0 for none."""
        self._stats.set_value(stat.IN_FLIGHT, limiter.in_flight)
        if decision.reason not in {"pause", "limit"}:
            self._resumed(now)
            return 0.0
        is_pause = decision.delay_s >= SHORTEST_PAUSE_S
        if is_pause and self._paused_at is None:
            self._paused_at = now
            self._stats.inc_value(stat.PAUSES)
        if self._paused_at is not None:
            reason = "rate limit"
            if decision.reason == "pause" and limiter.pause_reason:
                reason += f" ({self._without_key(limiter.pause_reason)})"
            self._stats.set_value(stat.PAUSED_UNTIL, time.time() + decision.delay_s)
            self._stats.set_value(stat.PAUSE_REASON, reason)
            if decision.delay_s >= LOGGED_PAUSE_S and now >= self._logged_at + BETWEEN_LINES_S:
                self._logged_at = now
                wait_s, budget = decision.delay_s, limiter.budget(now)
                if decision.reason == "limit" and budget is not None and budget.reset_in_s:
                    # The wait has a margin for answers in flight; the line gives the window's end.
                    wait_s = min(wait_s, budget.reset_in_s)
                logger.info("Paused for %.0f s, until %s: %s", wait_s, clock_time(wait_s), reason)
        return decision.delay_s if is_pause else 0.0

    def _resumed(self, now: float) -> None:
        if self._paused_at is None:
            return
        paused_s = self._stats.get_value(stat.PAUSED_S, 0.0) + now - self._paused_at
        self._stats.set_value(stat.PAUSED_S, round(paused_s, 3))
        self._stats.set_value(stat.PAUSED_UNTIL, None)
        self._paused_at = None


def clock_time(in_s: float) -> str:
    """The local time *in_s* seconds from now."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(time.time() + in_s))
