"""The pause after answers of a rate limit (429, and 403 or 503 where they are one).

A *refusal* in this room is such an answer. Knows nothing of the limits themselves.
"""

import math
from collections.abc import Callable
from typing import Final

from datasync_crawler.ratelimit.backoff import delay_s
from datasync_crawler.ratelimit.headers import RateLimitInfo

# The shortest pause, whatever Retry-After says, and the shortest from the second one in a row on.
# It doesn't grow further: a server that answers "1 s" fifty times may mean it.
_SHORTEST_PAUSE_S: Final = 0.25
_LONGEST_FLOOR_S: Final = 0.5
# Without a retry time: 1 s or a tenth of the learned window, growing by a third, at most a minute.
_BLIND_PAUSE_S: Final = 1.0
_SHARE_OF_WINDOW: Final = 0.1
_BLIND_SHARE: Final = 0.35
_LONGEST_BLIND_PAUSE_S: Final = 60.0


class Refusals:
    """The pause of all requests, from the first refusal to the next success."""

    def __init__(self, random: Callable[[], float]) -> None:
        self.paused_until = -math.inf
        self.reason = ""
        self.count = 0  # pauses in a row, without a success between
        self.since = 0.0  # the first of those
        self.by_limit = False  # one of them came from a limit, not from a failed probe
        self.by_503 = False  # the last one came from a 503 without a retry time
        self.teaches = False  # one of them came from an unadvertised limit
        self.opens_at: float | None = None  # the end of the pause by the server
        self._random = random
        self._paused_at = -math.inf
        self._unavailable_at = -math.inf  # the last answer, if it was a 503
        self._says_503 = False  # the limit answers 503 without a retry time

    def is_limits(
        self, now: float, sent_at: float, status: int, info: RateLimitInfo, *, probe: bool
    ) -> bool:
        """Whether an answer comes from a rate limit, and so uses up no retry.

        429 always does. 403 does with a retry time or a spent quota; otherwise the key is wrong.
        503 does with a retry time, after a pause has helped against it, and when several come in
        a row to concurrent requests (nginx's limit_req gives nothing else). A single 503, one page
        that answers 503 at each retry, or a probe's 503, is a failure of the server.
        """
        is_concurrent = sent_at <= self._unavailable_at
        self._unavailable_at = now if status == 503 else -math.inf
        says_when = info.retry_after_s is not None
        if status == 403:
            return says_when or info.spent is not None
        if status == 503:
            if probe and self.count:
                self._says_503 = False
            return says_when or self._says_503 or (is_concurrent and not probe)
        return status == 429

    def limited(
        self, now: float, sent_at: float, info: RateLimitInfo, known_s: float, window_s: float
    ) -> float:
        """Takes in a refusal; returns the pause in seconds. Refusals of one burst are one pause.

        `known_s`: the wait by the learned limit; `window_s`: its window, 0.0 if none is known.
        """
        if not self.is_same_burst(sent_at):
            self._count(now)
        self.by_limit = True
        self.by_503 = self._unavailable_at == now and info.retry_after_s is None
        spent = info.spent
        reset_s = None if spent is None else spent.reset_in_s
        opens_in_s = info.retry_after_s if reset_s is None else reset_s
        self.opens_at = None if opens_in_s is None else now + opens_in_s
        stated_s = reset_s if info.retry_after_s is None else info.retry_after_s
        if stated_s is not None:
            return max(_SHORTEST_PAUSE_S if self.count < 2 else _LONGEST_FLOOR_S, stated_s)
        if self.count == 1 and known_s > 0:
            return max(_SHORTEST_PAUSE_S, known_s)
        # A share of the time already waited: the window's end is missed by that share at most.
        least_s = max(_BLIND_PAUSE_S, _SHARE_OF_WINDOW * window_s)
        wait_s = max(least_s, _BLIND_SHARE * (now - self.since))
        wait_s = min(wait_s, _LONGEST_BLIND_PAUSE_S) * (1.0 + 0.1 * self._random())
        return max(wait_s, known_s)

    def probe_failed(self, now: float) -> float:
        """Takes in a failed probe (no answer, or 5xx); returns the pause in seconds."""
        self._count(now)
        return delay_s(self.count, base_s=0.5, cap_s=10.0, random=self._random)

    def pause(self, now: float, until: float, reason: str) -> None:
        """Pauses all requests until *until*; never shortens a pause."""
        if until > self.paused_until:
            self._paused_at, self.paused_until, self.reason = now, until, reason

    def is_same_burst(self, sent_at: float) -> bool:
        """Whether a request was already in flight when the pause began."""
        return sent_at <= self._paused_at

    def over(self) -> None:
        """A request succeeded: the pauses are over."""
        self._says_503 = self._says_503 or self.by_503
        self.count, self.reason = 0, ""
        self.by_limit = self.by_503 = self.teaches = False

    def lasted_s(self, now: float) -> float:
        """Seconds since the first refusal after the last success; 0.0 if there was none."""
        return now - self.since if self.by_limit else 0.0

    def _count(self, now: float) -> None:
        self.count += 1
        if self.count == 1:
            self.since = now
