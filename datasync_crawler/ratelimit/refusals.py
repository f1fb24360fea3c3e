"""Refusals in a row: which answers are a limit's, how long all wait, since when.

Owns the pause. Knows nothing of limits.
"""

import math
from collections.abc import Callable
from typing import Final

from datasync_crawler.ratelimit.backoff import delay_s
from datasync_crawler.ratelimit.headers import RateLimitInfo

# A refusal is never answered at once, whatever Retry-After says; longer when it says so again. Not
# longer than this: who says 1 s fifty times may mean it, and growth would cost an hour.
_SHORTEST_PAUSE_S: Final = 0.25
_LONGEST_FLOOR_S: Final = 0.5
# Refused without a word on when to come back: 1 s, growing by a third, at most a minute.
_BLIND_PAUSE_S: Final = 1.0
_BLIND_SHARE: Final = 0.35
_LONGEST_BLIND_PAUSE_S: Final = 60.0


class Refusals:
    """The pause for all, from the first refusal to the next request that is let through."""

    def __init__(self, random: Callable[[], float]) -> None:
        self.paused_until = -math.inf
        self.reason = ""
        self.count = 0  # pauses in a row that didn't end in a success
        self.since = 0.0  # the first of those
        self.by_limit = False  # one of them was a limit's, not a failure
        self.by_503 = False  # the last one was a limit's and said nothing
        self.teaches = False  # one of them was of a limit that no header states
        self.opens_at: float | None = None  # when the server said that it would open again
        self._random = random
        self._paused_at = -math.inf
        self._unavailable = 0  # answers 503 in a row
        self._says_503 = False  # the limit's refusals are 503 without a word on when to come back

    def is_limits(self, status: int, info: RateLimitInfo, *, probe: bool) -> bool:
        """Whether an answer is a limit's, and so costs no retry.

        403 is one where it says when to come back, or that nothing is left; else it is the key's.
        503 is one where it says when to come back, and where several came in a row to requests that
        went out side by side (nginx's limit_req says nothing else). One alone is a failure, until
        a pause has helped; so is one to a request that went alone: nobody was too fast.
        """
        self._unavailable = self._unavailable + 1 if status == 503 else 0
        says_when = info.retry_after_s is not None
        if status == 403:
            return says_when or info.spent is not None
        if status == 503:
            if probe and self.count:
                self._says_503 = False
            return says_when or self._says_503 or (not probe and self._unavailable > 1)
        return status == 429

    def limited(self, now: float, sent_at: float, info: RateLimitInfo, known_s: float) -> float:
        """Refused by a limit: returns how long all wait. Refusals of one burst are one pause.

        `known_s`: how long what is known of the limits makes us wait anyway.
        """
        if not self.is_same_burst(sent_at):
            self._count(now)
        self.by_limit = True
        self.by_503 = self._unavailable > 0 and info.retry_after_s is None
        spent = info.spent
        reset_s = None if spent is None else spent.reset_in_s
        said_s = info.retry_after_s if reset_s is None else reset_s
        self.opens_at = None if said_s is None else now + said_s
        said_s = reset_s if info.retry_after_s is None else info.retry_after_s
        if said_s is not None:
            return max(_SHORTEST_PAUSE_S if self.count < 2 else _LONGEST_FLOOR_S, said_s)
        if self.count == 1 and known_s > 0:
            return max(_SHORTEST_PAUSE_S, known_s)  # as the belief has it
        # A share of what we have waited already: the window's end is missed by that share at most.
        wait_s = max(_BLIND_PAUSE_S, _BLIND_SHARE * (now - self.since))
        wait_s = min(wait_s, _LONGEST_BLIND_PAUSE_S) * (1.0 + 0.1 * self._random())
        return max(wait_s, known_s)

    def probe_failed(self, now: float) -> float:
        """A probe that didn't get through proves nothing: how long to wait for another."""
        self._count(now)
        return delay_s(self.count, base_s=0.5, cap_s=10.0, random=self._random)

    def pause(self, now: float, until: float, reason: str) -> None:
        """All wait until then, if that is later than so far."""
        if until > self.paused_until:
            self._paused_at, self.paused_until, self.reason = now, until, reason

    def is_same_burst(self, sent_at: float) -> bool:
        """Whether a request was under way already when the pause began."""
        return sent_at <= self._paused_at

    def over(self) -> None:
        """One was let through."""
        self._says_503 = self._says_503 or self.by_503
        self.count, self.reason = 0, ""
        self.by_limit = self.by_503 = self.teaches = False

    def lasted_s(self, now: float) -> float:
        """How long nothing was let through, for a limit."""
        return now - self.since if self.by_limit else 0.0

    def _count(self, now: float) -> None:
        self.count += 1
        if self.count == 1:
            self.since = now
