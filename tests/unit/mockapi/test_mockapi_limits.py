"""The limiters by a clock passed in, and their headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.mockapi import limits

KINDS = ("fixed", "sliding", "token-bucket")


@pytest.mark.parametrize("kind", KINDS)
@given(
    limit=st.integers(1, 20),
    window_s=st.floats(0.5, 100),
    gaps=st.lists(st.floats(0, 30), max_size=80),
)
def test_never_more_than_allowed(kind: str, limit: int, window_s: float, gaps: list[float]) -> None:
    """No kind lets more through than its rule, and remaining and waits stay in range."""
    limiter = limits.make_limiter(kind, limit, window_s)
    now_s, allowed_at = 100.0, []
    for gap in gaps:
        now_s += gap
        verdict = limiter.hit(now_s)
        assert 0 <= verdict.remaining <= limit
        assert 0 <= verdict.retry_after_s <= window_s + 1e-6
        assert verdict.allowed == (verdict.retry_after_s == 0)
        if verdict.allowed:
            allowed_at.append(now_s)
    most = limit if kind == "sliding" else 2 * limit
    for start in allowed_at:
        assert sum(start <= at < start + window_s - 1e-6 for at in allowed_at) <= most


@pytest.mark.parametrize("kind", KINDS)
@given(limit=st.integers(1, 20), window_s=st.floats(0.5, 100), start_s=st.floats(0, 1e6))
def test_waiting_as_told_is_enough(kind: str, limit: int, window_s: float, start_s: float) -> None:
    """The whole limit goes through at once, the next is refused, and after the wait it is not."""
    limiter = limits.make_limiter(kind, limit, window_s)
    verdicts = [limiter.hit(start_s) for _ in range(limit)]
    assert all(verdict.allowed for verdict in verdicts)
    assert [verdict.remaining for verdict in verdicts] == list(range(limit))[::-1]
    refused = limiter.hit(start_s)
    assert not refused.allowed
    assert refused.retry_after_s > 0
    # Headers speak in whole seconds, rounded up; a nanosecond covers the floats.
    assert limiter.hit(start_s + refused.retry_after_s + 1e-6).allowed


@pytest.mark.parametrize("kind", KINDS)
def test_limit_changes_in_mid_window(kind: str) -> None:
    """A changed limit counts at once, both ways."""
    limiter = limits.make_limiter(kind, 2, 60)
    assert limiter.hit(0).allowed
    assert limiter.hit(0).allowed
    assert not limiter.hit(0).allowed
    limiter.limit = 1
    assert not limiter.hit(1).allowed
    limiter.limit = 100
    assert limiter.hit(2).allowed


def test_headers_state_the_limit_in_every_style() -> None:
    """Limit, remaining requests and reset, rounded up to seconds, under the names of the style."""
    verdict = limits.Verdict(allowed=False, limit=10, remaining=0, reset_after_s=33.2)
    assert limits.rate_headers(verdict, "full", window_s=60) == {
        "X-RateLimit-Limit": "10",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "34",
    }
    ietf = limits.rate_headers(verdict, "ietf", window_s=60)
    assert ietf == {"RateLimit-Policy": '"default";q=10;w=60', "RateLimit": '"default";r=0;t=34'}
    assert limits.rate_headers(verdict, "retry-after", window_s=60) == {}
    assert limits.rate_headers(verdict, "none", window_s=60) == {}
