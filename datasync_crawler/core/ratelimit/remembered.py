"""Reads what an earlier run wrote: values of any type and age. What makes no sense is left out."""

import math

from datasync_crawler.core.ratelimit.headers import LONGEST_S


def seconds_until(epoch_s: object, wall: float) -> float | None:
    """Seconds from `wall` to a remembered time; None when it is past or makes no sense."""
    at = number(epoch_s)
    return at - wall if at is not None and 0 < at - wall <= LONGEST_S else None


def ages_s(epochs_s: object, wall: float) -> list[float]:
    """How long ago remembered times are; what isn't a time of the past is left out."""
    listed = epochs_s if isinstance(epochs_s, list) else []
    ages = [wall - at for at in map(number, listed) if at is not None]
    return [age_s for age_s in ages if 0 <= age_s <= LONGEST_S]


def number(value: object) -> float | None:
    """A finite number; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]
