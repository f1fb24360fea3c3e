"""A limit that no header states: so many requests in so long, learned from refusals.

Never more than `limit.requests` in any `limit.window_s` is right for every kind of limiter: fixed
windows, sliding windows and token buckets let it through, as a burst or evenly (one per interval).
"""

import math

from datasync_crawler.ratelimit.limits import CountedTimes, Limit

# Refused after less than this share of a belief, it is wrong; a rate below half of it is doubtful.
# A window known to within the third share is known well enough.
_WRONG, _DOUBTFUL, _KNOWN_WELL = 0.75, 0.5, 0.05
# What flowed for more than so many of the waits that ended it is no burst, nor is it a window of
# less than so many seconds: the next run would send an hour's worth at once.
_FLOW, _SHORTEST_FLOW_S = 10, 10.0
# Between two trials as many requests go through as the first belief has, or so many if that is
# more; doubled with each that is refused, up to so many times that.
_LEAST_PATIENCE, _MOST_PATIENCE = 5, 16


class LearnedLimit:
    """The belief is what was let through between two openings, over that time: its rate, for every
    kind of limiter. A trial sends one request before its time, to shorten the window.
    """

    def __init__(self, times: CountedTimes) -> None:
        self.limit: Limit | None = None
        self._times = times
        self._opened_at: float | None = None
        self._accepted = 0  # since then
        self._too_short_s = 0.0  # the window is known to be longer than this
        self._quiet = 0  # let through since a refusal was last risked
        self._burst = _LEAST_PATIENCE  # or the first belief's requests
        self._patience = 1  # so many go through before the next trial
        self._tried_from: Limit | None = None  # the belief before a trial that proves nothing yet
        self._early = 0  # refusals in a row that came long before the belief was used up

    def believe(self, limit: Limit) -> None:
        """A first guess, of the run before: refused early, it is learned anew at once."""
        self.limit, self._early = limit, 1
        self._burst, self._patience = max(_LEAST_PATIENCE, limit.requests), limit.requests

    @property
    def proven(self) -> Limit | None:
        """The belief without a trial that went well just now: it may have been a spare token."""
        return self._tried_from or self.limit

    def wait_s(self, now: float, in_flight: int) -> float:
        """Seconds until one more may go out; zero when it is time for a trial."""
        wait_s = self.full_for_s(now, in_flight)
        if self.limit and wait_s > 0 and in_flight == 0 and self._quiet >= self._patience:
            trial = Limit(self.limit.requests, self._trial_window_s(self.limit.window_s))
            return self._times.wait_s(trial, now)
        return wait_s

    def full_for_s(self, now: float, in_flight: int = 0) -> float:
        """As `wait_s`, without trials."""
        return 0.0 if self.limit is None else self._times.wait_s(self.limit, now, in_flight)

    def _trial_window_s(self, window_s: float) -> float:
        """Bisected, from half on: what was never tried may be a penalty, not a window."""
        is_known = self._too_short_s > (1 - _KNOWN_WELL) * window_s  # it may have changed since
        return ((_WRONG * window_s if is_known else self._too_short_s) + window_s) / 2

    @property
    def most_in_flight(self) -> float:
        """After a refusal or a trial as many as were let through since: a bucket opens for one
        token, a window for all. It doubles with each round trip.
        """
        is_used = self.limit is None or self._quiet >= _WRONG * self.limit.requests
        return math.inf if is_used else max(1, self._quiet)

    def sent(self, now: float, *, refused: bool) -> None:
        """A request goes out; `refused`: it asks whether it is open again."""
        if self._opened_at is None:
            self._opened_at = now
        last, limit = self._times.last(), self.limit
        if limit is None or last is None or refused:
            return
        if self.full_for_s(now) > 0:
            self._tried_from = limit
        elif self._tried_from is limit:  # the last trial got no answer
            self._tried_from = None
        # A time in which nobody asked says nothing of the rate, but for a window's length.
        oldest = self._times.last(limit.requests)
        free_at = last if oldest is None else max(last, oldest + limit.window_s)
        self._opened_at += max(0.0, now - free_at - limit.window_s)

    def accepted(self) -> None:
        """A request was let through."""
        self._accepted += 1
        self._quiet += 1
        if self.limit is None or self._tried_from is None:
            return
        if self.limit is not self._tried_from:  # tried before this one
            if self._quiet >= self.limit.requests:
                self._tried_from = None
            return
        window_s = self._trial_window_s(self.limit.window_s)
        self._too_short_s = 0.0 if window_s <= self._too_short_s else self._too_short_s
        self.limit = Limit(self.limit.requests, window_s)
        self._quiet, self._patience = 0, self.limit.requests

    def refused(self, opens_at: float | None) -> None:
        """Refused; the server says that it opens at `opens_at` (None: it doesn't say)."""
        if self.limit is None or self.limit is not self._tried_from:
            return
        self._patience = min(2 * self._patience, _MOST_PATIENCE * self._burst)
        too_short_s = self._trial_window_s(self.limit.window_s)
        oldest = self._times.last(self.limit.requests)
        if opens_at is not None and oldest is not None:
            # Said in whole seconds, rounded up: it is closed for all but the last second of them.
            too_short_s = max(too_short_s, opens_at - 1.0 - oldest)
        self._too_short_s = max(self._too_short_s, too_short_s)

    def reopened(self, at: float) -> None:
        """Let through again, after a refusal: at the time that was said, or asked at."""
        opened_at = at if self._opened_at is None else self._opened_at
        accepted, before = self._accepted, self.limit
        self._opened_at, self._accepted, self._tried_from = at, 0, None
        if before is None or before.requests > 1:  # else another client would stop all trials
            self._quiet = 0
        if not accepted:
            return
        cycle = Limit(accepted, max(at - opened_at, 0.01))
        self.limit = self._corrected(before, cycle) if before else self._first_belief(cycle, at)
        self._too_short_s = min(self._too_short_s, self.limit.window_s)
        self._patience = max(self._patience, self._burst)
        if before is None or self.limit.rate_per_s < _DOUBTFUL * before.rate_per_s:
            self._patience = self.limit.requests  # far below what was let through: tried soon

    def _corrected(self, before: Limit, cycle: Limit) -> Limit:
        if cycle.requests >= _WRONG * before.requests:
            self._early = 0
            return Limit(before.requests, before.requests / cycle.rate_per_s)
        self._early += 1
        if self._early == 1:
            return before  # another client's requests may have been in the window, this once
        self._early, self._too_short_s = 0, 0.0
        return cycle  # bursts don't pay

    def _first_belief(self, cycle: Limit, at: float) -> Limit:
        self._burst = max(_LEAST_PATIENCE, cycle.requests)
        last = self._times.last()
        wait_s = 0.0 if last is None else at - last
        parts = int(cycle.window_s // max(_FLOW * wait_s, _SHORTEST_FLOW_S))
        requests = max(1, cycle.requests // max(1, parts))
        return Limit(requests, requests / cycle.rate_per_s)
