"""The mock's rate limiters (fixed window, sliding window, token bucket) and their headers.

Must not read a clock: each call passes the time in.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Verdict:
    """The limiter's decision on one request, times in seconds from now.

    `reset_after_s` is when the whole limit is there again (fixed window) or the next request is
    allowed (sliding window, token bucket).
    """

    allowed: bool
    limit: int
    remaining: int
    reset_after_s: float

    @property
    def retry_after_s(self) -> float:
        """Seconds that a rejected request has to wait; zero for an allowed one."""
        return 0.0 if self.allowed else self.reset_after_s


class Limiter(Protocol):
    """Counts the requests of one key. Requests that aren't allowed don't count."""

    limit: int

    def hit(self, now_s: float) -> Verdict:
        """Counts a request at `now_s` (monotonic) and decides on it."""


class FixedWindow:
    """`limit` requests in each window of `window_s`; a window opens with its first request."""

    def __init__(self, limit: int, window_s: float) -> None:
        self.limit = limit
        self.window_s = window_s
        self._opened_at = -math.inf
        self._used = 0

    def hit(self, now_s: float) -> Verdict:
        """Count a request."""
        if now_s >= self._opened_at + self.window_s:
            self._opened_at, self._used = now_s, 0
        allowed = self._used < self.limit
        self._used += allowed
        left_s = self._opened_at + self.window_s - now_s
        return Verdict(allowed, self.limit, max(0, self.limit - self._used), left_s)


class SlidingWindow:
    """`limit` requests within any `window_s`."""

    def __init__(self, limit: int, window_s: float) -> None:
        self.limit = limit
        self.window_s = window_s
        self._allowed_at: deque[float] = deque()

    def hit(self, now_s: float) -> Verdict:
        """Count a request."""
        while self._allowed_at and self._allowed_at[0] + self.window_s <= now_s:
            self._allowed_at.popleft()
        allowed = len(self._allowed_at) < self.limit
        if allowed:
            self._allowed_at.append(now_s)
        # After the limit was lowered, a request is allowed when fewer than `limit` are left.
        leaver = max(0, len(self._allowed_at) - self.limit)
        next_s = self._allowed_at[leaver] + self.window_s - now_s
        return Verdict(allowed, self.limit, max(0, self.limit - len(self._allowed_at)), next_s)


class TokenBucket:
    """A bucket of `limit` tokens that refills evenly, `limit` in `window_s`."""

    def __init__(self, limit: int, window_s: float) -> None:
        self.limit = limit
        self.window_s = window_s
        self._tokens = float(limit)
        self._filled_at = -math.inf

    def hit(self, now_s: float) -> Verdict:
        """Take a token if there is a whole one."""
        rate = self.limit / self.window_s
        self._tokens = min(self._tokens + (now_s - self._filled_at) * rate, float(self.limit))
        self._filled_at = now_s
        # A wait computed in floats may end slightly early.
        allowed = self._tokens >= 1 - 1e-9
        if allowed:
            self._tokens = max(0.0, self._tokens - 1)
        next_s = max(0.0, (1 - self._tokens) / rate)
        return Verdict(allowed, self.limit, int(self._tokens + 1e-9), next_s)


_LIMITERS: dict[str, type[FixedWindow | SlidingWindow | TokenBucket]] = {
    "fixed": FixedWindow,
    "sliding": SlidingWindow,
    "token-bucket": TokenBucket,
}


def make_limiter(kind: str, limit: int, window_s: float) -> Limiter:
    """Builds the limiter of that kind."""
    return _LIMITERS[kind](limit, window_s)


def rate_headers(verdict: Verdict, style: str, window_s: float) -> dict[str, str]:
    """Returns the headers that every response carries."""
    reset_s = math.ceil(verdict.reset_after_s)
    if style == "full":
        return {
            "X-RateLimit-Limit": str(verdict.limit),
            "X-RateLimit-Remaining": str(verdict.remaining),
            "X-RateLimit-Reset": str(reset_s),
        }
    if style == "ietf":
        return {
            "RateLimit-Policy": f'"default";q={verdict.limit};w={math.ceil(window_s)}',
            "RateLimit": f'"default";r={verdict.remaining};t={reset_s}',
        }
    return {}
