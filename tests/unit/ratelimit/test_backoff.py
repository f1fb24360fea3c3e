"""The arithmetic of waiting before another try."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.ratelimit.backoff import delay_s

positive = st.floats(min_value=1e-300, max_value=1e300)


@given(
    attempt=st.integers(min_value=1, max_value=10**6),
    base_s=positive,
    cap_s=positive,
    share=st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_any_attempt_waits_a_finite_time_below_the_cap(
    attempt: int, base_s: float, cap_s: float, share: float
) -> None:
    """Whatever the attempt, the wait is above zero, finite and never above the cap."""
    wait_s = delay_s(attempt, base_s=base_s, cap_s=cap_s, random=lambda: share)
    assert 0 < wait_s <= cap_s
    assert math.isfinite(wait_s)


def test_doubles_up_to_the_cap() -> None:
    """Without luck (the least jitter) the waits double, and stay at half the cap in the end."""
    waits = [delay_s(n, base_s=1, cap_s=10, random=lambda: 0.0) for n in (1, 2, 3, 4, 5, 10**6)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_jitter_spreads_over_the_upper_half() -> None:
    """The most jitter gives nearly the whole ceiling, so that clients come back spread out."""
    assert delay_s(3, base_s=1, cap_s=100, random=lambda: 0.999) == pytest.approx(3.998)


def test_attempts_are_counted_from_one() -> None:
    """A caller that counts from zero is told so."""
    with pytest.raises(ValueError, match="counted from 1"):
        delay_s(0, base_s=1, cap_s=10, random=lambda: 0.0)


@pytest.mark.parametrize(
    ("base_s", "cap_s"), [(0, 1), (1, 0), (-1, 1), (math.inf, 1), (1, math.nan)]
)
def test_a_senseless_base_or_cap_is_refused(base_s: float, cap_s: float) -> None:
    """Neither a wait of zero nor an endless one can be configured."""
    with pytest.raises(ValueError, match="above zero"):
        delay_s(1, base_s=base_s, cap_s=cap_s, random=lambda: 0.0)
