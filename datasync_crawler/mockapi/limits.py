"""The mock's rate limiters and the headers that speak of them.

Owns the arithmetic of fixed window, sliding window and token bucket, as the server sees them. No
clock of its own: the time comes in with each call. Must not know of HTTP responses beyond headers.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate
from typing import Literal, Protocol

LimiterKind = Literal["fixed", "sliding", "token-bucket"]
RateHeaders = Literal["full", "retry-after", "ietf", "none"]
ResetFormat = Literal["seconds", "epoch", "epoch-ms"]
RetryAfterFormat = Literal["seconds", "http-date", "body-only", "none"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The limiter's word on one request, times in seconds from now.

    `reset_after_s` is when the whole budget is there again (fixed window) or the next request is
    allowed (sliding window, token bucket), zero when nothing is spent.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_after_s: float
    retry_after_s: float


class Limiter(Protocol):
    """Counts the requests of one key."""

    limit: int

    def hit(self, now_s: float) -> Verdict:
        """Count a request at `now_s` (monotonic) and say whether it is allowed."""


class FixedWindow:
    """`limit` requests in each window of `window_s`; a window opens with its first request."""

    def __init__(self, limit: int, window_s: float) -> None:
        self.limit = limit
        self.window_s = window_s
        self._opened_at: float | None = None
        self._used = 0

    def hit(self, now_s: float) -> Verdict:
        """Count a request; refused ones don't count."""
        if self._opened_at is None or now_s >= self._opened_at + self.window_s:
            self._opened_at, self._used = now_s, 0
        left_s = self._opened_at + self.window_s - now_s
        allowed = self._used < self.limit
        if allowed:
            self._used += 1
        remaining = max(0, self.limit - self._used)
        return Verdict(allowed, self.limit, remaining, left_s, 0.0 if allowed else left_s)


class SlidingWindow:
    """`limit` requests within any `window_s`."""

    def __init__(self, limit: int, window_s: float) -> None:
        self.limit = limit
        self.window_s = window_s
        self._allowed_at: deque[float] = deque()

    def hit(self, now_s: float) -> Verdict:
        """Count a request; refused ones don't count."""
        while self._allowed_at and self._allowed_at[0] + self.window_s <= now_s:
            self._allowed_at.popleft()
        allowed = len(self._allowed_at) < self.limit
        if allowed:
            self._allowed_at.append(now_s)
        remaining = max(0, self.limit - len(self._allowed_at))
        # The next place comes free when so many have left that one fits below the limit.
        leaver = max(0, len(self._allowed_at) - self.limit)
        next_s = self.window_s
        if leaver < len(self._allowed_at):
            next_s = self._allowed_at[leaver] + self.window_s - now_s
        return Verdict(allowed, self.limit, remaining, next_s, 0.0 if allowed else next_s)


class TokenBucket:
    """A bucket of `limit` tokens that refills evenly, `limit` in `window_s`."""

    def __init__(self, limit: int, window_s: float) -> None:
        self.limit = limit
        self.window_s = window_s
        self._tokens = float(limit)
        self._filled_at: float | None = None

    def hit(self, now_s: float) -> Verdict:
        """Take a token if there is a whole one."""
        rate = self.limit / self.window_s
        if self._filled_at is not None:
            self._tokens += (now_s - self._filled_at) * rate
        self._tokens = min(self._tokens, float(self.limit))
        self._filled_at = now_s
        # A wait computed in floats may end a hair early; that is not the client's fault.
        allowed = self._tokens >= 1 - 1e-9
        if allowed:
            self._tokens = max(0.0, self._tokens - 1)
        next_s = max(0.0, (1 - self._tokens) / rate)
        return Verdict(
            allowed, self.limit, int(self._tokens + 1e-9), next_s, 0.0 if allowed else next_s
        )


def make_limiter(kind: LimiterKind, limit: int, window_s: float) -> Limiter:
    """Make the limiter of that kind."""
    kinds: dict[str, type[FixedWindow | SlidingWindow | TokenBucket]] = {
        "fixed": FixedWindow,
        "sliding": SlidingWindow,
        "token-bucket": TokenBucket,
    }
    return kinds[kind](limit, window_s)


def budget_headers(
    verdict: Verdict,
    style: RateHeaders,
    reset_format: ResetFormat,
    *,
    window_s: float,
    epoch_s: float,
) -> dict[str, str]:
    """Give the headers that every response carries; `epoch_s` is the wall clock."""
    if style == "full":
        reset = {
            "seconds": math.ceil(verdict.reset_after_s),
            "epoch": math.ceil(epoch_s + verdict.reset_after_s),
            "epoch-ms": math.ceil((epoch_s + verdict.reset_after_s) * 1000),
        }[reset_format]
        return {
            "X-RateLimit-Limit": str(verdict.limit),
            "X-RateLimit-Remaining": str(verdict.remaining),
            "X-RateLimit-Reset": str(reset),
        }
    if style == "ietf":
        left_s = math.ceil(verdict.reset_after_s)
        return {
            "RateLimit-Policy": f'"default";q={verdict.limit};w={math.ceil(window_s)}',
            "RateLimit": f'"default";r={verdict.remaining};t={left_s}',
        }
    return {}


def retry_after_header(
    wait_s: float, style: RateHeaders, form: RetryAfterFormat, *, epoch_s: float
) -> dict[str, str]:
    """Give the Retry-After header of a refusal, rounded up to whole seconds (RFC 9110 §10.2.3)."""
    if style == "none" or form in ("body-only", "none"):
        return {}
    if form == "http-date":
        return {"Retry-After": formatdate(math.ceil(epoch_s + wait_s), usegmt=True)}
    return {"Retry-After": str(math.ceil(wait_s))}


def refusal_body(verdict: Verdict, style: RateHeaders, form: RetryAfterFormat) -> dict[str, object]:
    """Give the JSON body of a 429, without its times when nothing is to be said."""
    body: dict[str, object] = {
        "error": "Too Many Requests",
        "message": "Rate limit exceeded",
        "code": "RATE_LIMIT_EXCEEDED",
    }
    if style != "none" and form != "none":
        wait_s = math.ceil(verdict.retry_after_s)
        body["rateLimit"] = {
            "limit": verdict.limit,
            "remaining": 0,
            "reset": wait_s,
            "retryAfter": wait_s,
        }
    return body
