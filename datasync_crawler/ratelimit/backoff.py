"""Exponential backoff: arithmetic only."""

from collections.abc import Callable

# 2**1000 is still a float.
_LARGEST_EXPONENT = 1000


def delay_s(attempt: int, *, base_s: float, cap_s: float, random: Callable[[], float]) -> float:
    """Seconds to wait before attempt number `attempt` + 1: exponential, capped, with equal jitter.

    The ceiling is `base_s` x 2^(attempt - 1), at most `cap_s`; the wait is drawn from its upper
    half. `random`
    gives numbers in [0, 1). Raises ValueError for an attempt below 1 or for a base or cap that
    isn't above zero.
    """
    if attempt < 1:
        raise ValueError(f"attempts are counted from 1, got {attempt}")
    if not (0 < base_s < float("inf") and 0 < cap_s < float("inf")):
        raise ValueError(f"base and cap must be above zero and finite, got {base_s} and {cap_s}")
    exponent = min(attempt - 1, _LARGEST_EXPONENT)
    # Compared as a quotient: base_s * 2**1000 could overflow to infinity.
    ceiling_s = cap_s if 2.0**exponent >= cap_s / base_s else base_s * 2.0**exponent
    return ceiling_s * (0.5 + 0.5 * random())
