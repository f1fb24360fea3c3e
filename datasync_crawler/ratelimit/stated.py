"""The limits that the user states (RATE_LIMIT), and the share of any limit that is ours.

The server may lower them, never raise them: whatever it says, these hold as well.
"""

import math
from collections.abc import Iterable

from datasync_crawler.ratelimit.limits import CountedTimes, Limit


class StatedLimits:
    """With a share below 1 requests go evenly, so that others on the same key get theirs."""

    def __init__(self, limits: Iterable[Limit], share: float, times: CountedTimes) -> None:
        self.limits = tuple(limits)
        self._share = share
        self._times = times
        self._sent_at = -math.inf

    def wait_s(self, now: float, in_flight: int, others: Iterable[Limit]) -> float:
        """Seconds until one more may go out, by ours; of all other limits by our share."""
        waits = [self._times.wait_s(limit, now, in_flight) for limit in self.limits]
        if self._share < 1:
            rates = [limit.rate_per_s * self._share for limit in (*self.limits, *others)]
            waits += [self._sent_at + 1 / rate - now for rate in rates]
        return max(0.0, *waits, 0.0)

    def sent(self, now: float) -> None:
        """A request goes out."""
        self._sent_at = now

    def ours(self, requests: int) -> int:
        """Of so many requests per window our share."""
        return max(1, math.floor(requests * self._share))
