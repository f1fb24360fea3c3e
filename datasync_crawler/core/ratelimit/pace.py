"""The pace against a server that doesn't tell its budget: found by trying (AIMD).

Owns one number, requests per second, and what moves it. It doesn't know of pauses, headers or
requests in flight. An even pace suits every kind of limiter alike: a fixed window, a sliding
window and a token bucket all let N requests per window through when they come evenly.
"""

# After a refusal: a little below what went through, so that the next one is far away.
_BELOW_MEASURED = 0.97
# Growth per span: quick where nothing was ever refused, slow near where it was.
_QUICK = 1.25
_SLOW = 1.02
_NEAR = (0.9, 1.1)
_REQUESTS_PER_SPAN = 10
_MOST_PATIENCE = 16.0
# A late timer may catch up this much, no more: bursts are what a pace avoids.
_CATCH_UP_S = 0.1


class Pace:
    """Requests per second, None until the first refusal.

    A cycle is the time from one opening (the first request after a pause) to the next. What
    was let through in it, divided by its length, is what the server allows: the pace falls to
    that, at most by half, whatever the limiter.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self.refused_rate: float | None = None  # where it was refused last
        self._opened_at: float | None = None
        self._accepted = 0
        self._next_at = 0.0
        self._span_s = 0.0
        self._patience = 1.0
        self._waited = False
        self._grown_at = 0.0

    def delay_s(self, now: float) -> float:
        """Seconds until the next request is due."""
        if self.rate is None or now >= self._next_at:
            return 0.0
        self._waited = True
        return self._next_at - now

    def sent(self, now: float) -> None:
        """A request goes out."""
        if self._opened_at is None:
            self._opened_at = now
        if self.rate is not None:
            self._next_at = max(self._next_at, now - _CATCH_UP_S) + 1 / self.rate

    def accepted(self, now: float) -> None:
        """An answer that isn't a refusal: when the pace is what held us, it may rise."""
        self._accepted += 1
        if self.rate is None or not self._waited:
            self._grown_at = now
            return
        span_s = max(self._span_s, _REQUESTS_PER_SPAN / self.rate)
        spans = min(1.0, (now - self._grown_at) / span_s)
        self._grown_at, self._waited = now, False
        near = self.refused_rate is not None and (
            _NEAR[0] * self.refused_rate <= self.rate <= _NEAR[1] * self.refused_rate
        )
        self.rate *= _SLOW ** (spans / self._patience) if near else _QUICK**spans

    def reopened(self, now: float, *, refused_at: float, blind: bool) -> None:
        """The first request since a refusal was let through; it went out at `now`.

        `refused_at`: when the last refusal came; `blind`: nobody said when to come back, so
        the true opening lies anywhere between it and `now`.
        """
        opened_at = now if self._opened_at is None else self._opened_at
        cycle_s = max(now - opened_at, 1e-3)
        measured = max(self._accepted, 1) / cycle_s
        latest = max(self._accepted, 1) / max(refused_at - opened_at, 1e-3)
        was = measured if self.rate is None else self.rate
        self.refused_rate = min(was, latest) if blind and self.rate is not None else measured
        if blind and self.rate is None:
            self.refused_rate = latest
        self.rate = max(was / 2, min(was, measured)) * _BELOW_MEASURED
        self._span_s = max(self._span_s, now - refused_at)
        self._patience = min(self._patience * 2, _MOST_PATIENCE)
        self._opened_at, self._accepted, self._grown_at = now, 0, now
        self._next_at = now + 1 / self.rate
