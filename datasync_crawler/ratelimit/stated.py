"""The limits that the user states (RATE_LIMIT), and our share of every limit (RATE_LIMIT_SHARE).

They apply beside the server's limits, so the server can lower them, but never raise them.
"""

import math
from collections.abc import Iterable

from datasync_crawler.ratelimit.limits import CountedTimes, Limit


class StatedLimits:
    """With a share below 1 requests are spaced evenly, which leaves room for other clients."""

    def __init__(self, limits: Iterable[Limit], share: float, times: CountedTimes) -> None:
        self.limits = tuple(limits)
        self._share = share
        self._times = times
        self._sent_at = -math.inf

    def wait_s(self, now: float, in_flight: int, others: Iterable[Limit]) -> float:
        """Seconds until one more may be sent, by the stated limits and our share of *others*."""
        waits = [self._times.wait_s(limit, now, in_flight) for limit in self.limits]
        if self._share < 1:
            rates = [limit.rate_per_s * self._share for limit in (*self.limits, *others)]
            waits += [self._sent_at + 1 / rate - now for rate in rates]
        return max(0.0, *waits, 0.0)

    def spacing(self, others: Iterable[Limit], latency_s: float) -> list[Limit]:
        """The even spacing as limits of one request each, a latency shorter: it is counted from
        the latest arrival.
        """
        if self._share >= 1:
            return []
        rates = [limit.rate_per_s * self._share for limit in (*self.limits, *others)]
        return [Limit(1, max(0.0, 1 / rate - latency_s)) for rate in rates]

    def sent(self, now: float) -> None:
        """Records that a request is sent."""
        self._sent_at = now

    def ours(self, requests: int) -> int:
        """Our share of *requests* per window, at least 1."""
        return max(1, math.floor(requests * self._share))
