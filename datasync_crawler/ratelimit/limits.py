"""Limits as values (requests per window), and the times at which our requests were counted."""

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

_FORM: Final = re.compile(r"([0-9]{1,9}) */ *([0-9]{1,9}(?:\.[0-9]{1,3})?)? *([smhd])", re.ASCII)
_UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
#: Times kept. A limit of more requests per window can't be kept.
_MOST_TIMES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Limit:
    """`requests` in any `window_s` seconds."""

    requests: int
    window_s: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """`10/60s`, `5/s`, `1000/h`: s, m, h or d. Raises ValueError."""
        match = _FORM.fullmatch(text.strip())
        limit = match and cls(int(match[1]), float(match[2] or 1) * _UNITS_S[match[3]])
        if not limit or not limit.requests or not limit.window_s:
            raise ValueError(f"{text!r} is no limit")
        return limit

    @property
    def rate_per_s(self) -> float:
        """Requests per second."""
        return self.requests / self.window_s

    def __str__(self) -> str:
        requests = f"{self.requests:,} request{'' if self.requests == 1 else 's'}"
        return f"{requests} per {self.window_s:.3g} s"


class CountedTimes:
    """When our requests were answered, in monotonic seconds.

    The server counted a request before its answer arrived, so a wait computed from the answer's
    time never ends too early.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_MOST_TIMES)

    def add(self, at: float) -> None:
        """Records the time of an answer."""
        self._times.append(at)

    def restore(self, now: float, ages_s: Iterable[float]) -> None:
        """Records requests of the last run, by how long ago they were answered."""
        self._times.extend(now - age_s for age_s in sorted(ages_s, reverse=True))

    def ages_s(self, now: float, *, younger_than_s: float, most: int) -> list[float]:
        """Seconds since each of the last *most* answers, oldest first."""
        times = list(self._times)[-most:] if most else []
        return [now - at for at in times if now - at < younger_than_s]

    def last(self, number: int = 1) -> float | None:
        """The time of the *number*-th answer from the end; None if there were fewer."""
        return self._times[-number] if 0 < number <= len(self._times) else None

    def count_since(self, at: float) -> int:
        """The number of answers after *at*."""
        return len(self._times) - bisect_right(self._times, at)

    def wait_s(self, limit: Limit, now: float, in_flight: int = 0) -> float:
        """Seconds until one more request keeps the limit; those in flight count as sent now."""
        if in_flight >= limit.requests:
            return limit.window_s
        oldest = self.last(limit.requests - in_flight)
        return 0.0 if oldest is None else max(0.0, oldest + limit.window_s - now)
