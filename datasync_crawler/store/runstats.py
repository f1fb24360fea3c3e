"""Validation of the stats in ``crawl_runs``, where other roles may write too.

Pure. Stats with one wrong value are left out as a whole.
"""

import math
from typing import Any, Final

import msgspec

from datasync_crawler import stats as stat

#: Groups whose values are all numbers; ``crawl/`` also holds text.
NUMBERS: Final = frozenset(
    {"database", "downloader", "events", "latency", "pages", "rate_limit", "retry", "scheduler",
     "throttle"}
)  # fmt: skip
#: The texts among the numbers of their groups.
TEXTS: Final = frozenset({stat.PAUSE_REASON, stat.TROUBLE})
#: Above every figure of a run. JSON has no bound; a bigint and a float have.
_MOST: Final = 2**63

#: The first and the last second that Python's datetime holds, in UTC, since 1970.
_FIRST_S: Final = -62_135_596_800.0
_LAST_S: Final = 253_402_300_799.0


class _Traffic(msgspec.Struct):
    in_flight: int = 0
    paused_for_s: float = 0
    limit: int | None = None
    remaining: int | None = None
    reset_in_s: float | None = None
    pause_reason: str | None = None


class _Now(msgspec.Struct):
    """The fields of ``now`` that are read; it may hold more."""

    done: int = 0
    gaps: int = 0
    rate_now: float = 0
    rate_mean: float = 0
    left_s: float | None = None
    ends_at: float | None = None
    follows: str = ""
    trouble: str = ""
    traffic: _Traffic | msgspec.UnsetType = msgspec.UNSET


class _Ranges(msgspec.Struct):
    """(first, count) of the ranges that a run works on, by state."""

    flight: list[tuple[int, int]] = []
    fetched: list[tuple[int, int]] = []
    queued: list[tuple[int, int]] = []


def read_stats(text: str | None) -> dict[str, Any] | None:
    """A heartbeat's stats (names, scalars of the right kinds, figures of now), or None."""
    stats = _decoded(text)
    if stats is None or not all(_is_fit(name, value) for name, value in stats.items()):
        return None
    return stats


def read_sample(text: str) -> dict[str, Any] | None:
    """A sample of `crawl_samples` (numbers and flags by name), or None."""
    sample = _decoded(text)
    if sample is None or not all(map(_is_figure, sample.values())):
        return None
    return sample


def read_count(text: str | None) -> int:
    """A count in the list of runs; 0 for text that is no count."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else 0


def read_seconds(value: float | None) -> float | None:
    """A time or a span in seconds, moved into the years 1 to 9999: `infinity` and the year 294276
    are dates to PostgreSQL, and neither JSON nor Python has them.
    """
    if value is None or math.isnan(value):  # infinity - infinity
        return None
    return min(max(value, _FIRST_S), _LAST_S)


def _decoded(text: str | None) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text or "null", type=dict[str, Any])
    except (ValueError, RecursionError):  # DecodeError, or more digits than Python reads
        return None


def _is_fit(name: str, value: object) -> bool:
    group = name.partition("/")[0]
    if name == "now":
        return _converts(value, _Now)
    if name == "ranges":
        return _converts(value, _Ranges)
    if name == "under_way":  # of version 0.1.0
        return _converts(value, list[tuple[int, int]])
    if name == stat.COMPLETE:
        return isinstance(value, bool)
    if name not in TEXTS and (group in NUMBERS or name == stat.TOTAL):
        return _is_number(value)
    return value is None or isinstance(value, str | bool) or _is_number(value)


def _is_number(value: object) -> bool:
    """A number of a plausible size, or None."""
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _MOST


def _is_figure(value: object) -> bool:
    return isinstance(value, bool) or _is_number(value)


def _converts(value: object, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, OverflowError):
        return False
    return True
