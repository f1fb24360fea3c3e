"""The limiters by a clock passed in, and their headers."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.mockapi import limits
from datasync_crawler.mockapi.limits import LimiterKind

KINDS = get_args(LimiterKind)


@pytest.mark.parametrize("kind", KINDS)
@given(
    limit=st.integers(1, 20),
    window_s=st.floats(0.5, 100),
    gaps=st.lists(st.floats(0, 30), max_size=80),
)
def test_never_more_than_allowed(
    kind: LimiterKind, limit: int, window_s: float, gaps: list[float]
) -> None:
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
def test_waiting_as_told_is_enough(
    kind: LimiterKind, limit: int, window_s: float, start_s: float
) -> None:
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
def test_limit_changes_in_mid_window(kind: LimiterKind) -> None:
    """A changed limit counts at once, both ways."""
    limiter = limits.make_limiter(kind, 2, 60)
    assert limiter.hit(0).allowed
    assert limiter.hit(0).allowed
    assert not limiter.hit(0).allowed
    limiter.limit = 1
    assert not limiter.hit(1).allowed
    limiter.limit = 100
    assert limiter.hit(2).allowed


def test_headers_say_the_same_in_every_form() -> None:
    """Reset as seconds, epoch and epoch-ms, Retry-After as seconds and date name one moment."""
    verdict = limits.Verdict(False, 10, 0, 33.2, 33.2)
    resets = {
        form: limits.budget_headers(verdict, "full", form, window_s=60, epoch_s=1000.0)
        for form in ("seconds", "epoch", "epoch-ms")
    }
    assert resets["seconds"] == {
        "X-RateLimit-Limit": "10",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "34",
    }
    assert resets["epoch"]["X-RateLimit-Reset"] == "1034"
    assert resets["epoch-ms"]["X-RateLimit-Reset"] == "1033200"
    ietf = limits.budget_headers(verdict, "ietf", "seconds", window_s=60, epoch_s=0)
    assert ietf == {"RateLimit-Policy": '"default";q=10;w=60', "RateLimit": '"default";r=0;t=34'}
    assert limits.budget_headers(verdict, "none", "seconds", window_s=60, epoch_s=0) == {}
    after = limits.retry_after_header(33.2, "full", "seconds", epoch_s=1000)
    assert after == {"Retry-After": "34"}
    date = limits.retry_after_header(33.2, "full", "http-date", epoch_s=1000)["Retry-After"]
    assert parsedate_to_datetime(date).timestamp() == 1034
    assert limits.retry_after_header(33.2, "full", "body-only", epoch_s=0) == {}
    assert "rateLimit" in limits.refusal_body(verdict, "full", "body-only")
    assert "rateLimit" not in limits.refusal_body(verdict, "full", "none")
    assert "rateLimit" not in limits.refusal_body(verdict, "none", "seconds")
