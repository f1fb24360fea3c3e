"""An unadvertised limit: N requests per window, learned from refusals (429 and the like).

At most `limit.requests` in any `limit.window_s` suits every kind of limiter: fixed windows, sliding
windows and token buckets, in a burst or evenly (one request per interval).
"""

import math

from datasync_crawler.ratelimit.limits import CountedTimes, Limit

# Shares of the estimate. A refusal before the first shows that it is wrong. A new rate below the
# second is doubtful. A window bisected to within the third isn't tried further.
_WRONG, _DOUBTFUL, _KNOWN_WELL = 0.75, 0.5, 0.05
# A cycle of more than 10 waits is a steady flow, not a burst. It is split into windows of at least
# 10 s, or the next run would send an hour's requests at once.
_FLOW, _SHORTEST_FLOW_S = 10, 10.0
# Requests between two trials: those of the first estimate, or this many if that is more. It
# doubles with each refused trial, up to 16 times.
_LEAST_PATIENCE, _MOST_PATIENCE = 5, 16


class LearnedLimit:
    """The estimate: successes between two reopenings, and the time between those.

    A *trial* sends one request early; if it succeeds, the window is shortened.
    """

    def __init__(self, times: CountedTimes) -> None:
        self.limit: Limit | None = None
        self._times = times
        self._opened_at: float | None = None
        self._accepted = 0  # since `_opened_at`
        self._too_short_s = 0.0  # the window is longer than this
        self._quiet = 0  # successes since the last refusal or trial
        self._burst = _LEAST_PATIENCE  # or the first estimate's requests
        self._patience = 1  # successes before the next trial
        self._tried_from: Limit | None = (
            None  # the estimate before a trial that isn't confirmed yet
        )
        self._early = 0  # refusals in a row before _WRONG was used

    def start_from(self, limit: Limit) -> None:
        """Starts from the last run's limit; one early refusal replaces it."""
        self.limit, self._early = limit, 1
        self._burst, self._patience = max(_LEAST_PATIENCE, limit.requests), limit.requests

    def accepted_elsewhere(self, number: int) -> None:
        """Records that other processes have had so many requests accepted."""
        self._accepted += number
        self._quiet += number

    def in_force(self, now: float, in_flight: int) -> Limit | None:
        """The limit, or the one to try where a trial is due."""
        if self.limit and self.full_for_s(now, in_flight) > 0 and self._is_trial_due(in_flight):
            return Limit(self.limit.requests, self._trial_window_s(self.limit.window_s))
        return self.limit

    @property
    def proven(self) -> Limit | None:
        """The estimate without an unconfirmed trial, which may have used a spare token."""
        return self._tried_from or self.limit

    def wait_s(self, now: float, in_flight: int) -> float:
        """Seconds until one more may be sent; zero when a trial is due."""
        limit = self.in_force(now, in_flight)
        return 0.0 if limit is None else self._times.wait_s(limit, now, in_flight)

    def _is_trial_due(self, in_flight: int) -> bool:
        return in_flight == 0 and self._quiet >= self._patience

    def full_for_s(self, now: float, in_flight: int = 0) -> float:
        """As `wait_s`, without trials."""
        return 0.0 if self.limit is None else self._times.wait_s(self.limit, now, in_flight)

    def _trial_window_s(self, window_s: float) -> float:
        """The window to try: bisected, from half on, since the estimate may include a penalty."""
        is_known = self._too_short_s > (1 - _KNOWN_WELL) * window_s  # it may have changed since
        return ((_WRONG * window_s if is_known else self._too_short_s) + window_s) / 2

    @property
    def most_in_flight(self) -> float:
        """After a refusal or a trial, as many as have succeeded since: a bucket reopens for one
        token, a window for all. So it doubles per round trip.
        """
        is_used = self.limit is None or self._quiet >= _WRONG * self.limit.requests
        return math.inf if is_used else max(1, self._quiet)

    def sent(self, now: float, *, refused: bool) -> None:
        """Records that a request is sent; `refused`: it is the probe after a refusal."""
        if self._opened_at is None:
            self._opened_at = now
        last, limit = self._times.last(), self.limit
        if limit is None or last is None or refused:
            return
        if self.full_for_s(now) > 0:
            self._tried_from = limit
        elif self._tried_from is limit:  # the last trial got no answer
            self._tried_from = None
        # Idle time beyond a window's length doesn't count towards the rate.
        oldest = self._times.last(limit.requests)
        free_at = last if oldest is None else max(last, oldest + limit.window_s)
        self._opened_at += max(0.0, now - free_at - limit.window_s)

    def accepted(self) -> None:
        """Records that a request succeeded."""
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
        """Records a refusal; `opens_at`: the reopening time by the server, None if not given."""
        if self.limit is None or self.limit is not self._tried_from:
            return
        self._patience = min(2 * self._patience, _MOST_PATIENCE * self._burst)
        too_short_s = self._trial_window_s(self.limit.window_s)
        oldest = self._times.last(self.limit.requests)
        if opens_at is not None and oldest is not None:
            # Whole seconds, rounded up: the limit stays closed at least until a second before.
            too_short_s = max(too_short_s, opens_at - 1.0 - oldest)
        self._too_short_s = max(self._too_short_s, too_short_s)

    def reopened(self, at: float) -> None:
        """Records the first success after a refusal; *at*: the stated reopening, or the sending."""
        opened_at = at if self._opened_at is None else self._opened_at
        accepted, before = self._accepted, self.limit
        self._opened_at, self._accepted, self._tried_from = at, 0, None
        if before is None or before.requests > 1:  # else other clients prevent all trials
            self._quiet = 0
        if not accepted:
            return
        cycle = Limit(accepted, max(at - opened_at, 0.01))
        self.limit = self._corrected(before, cycle) if before else self._first_estimate(cycle, at)
        self._too_short_s = min(self._too_short_s, self.limit.window_s)
        self._patience = max(self._patience, self._burst)
        if before is None or self.limit.rate_per_s < _DOUBTFUL * before.rate_per_s:
            self._patience = self.limit.requests  # far below the last rate: a trial comes soon

    def _corrected(self, before: Limit, cycle: Limit) -> Limit:
        if cycle.requests >= _WRONG * before.requests:
            self._early = 0
            return Limit(before.requests, before.requests / cycle.rate_per_s)
        self._early += 1
        if self._early == 1:
            return before  # once, it may have been another client's requests
        self._early, self._too_short_s = 0, 0.0
        return cycle  # twice: bursts don't get through

    def _first_estimate(self, cycle: Limit, at: float) -> Limit:
        self._burst = max(_LEAST_PATIENCE, cycle.requests)
        last = self._times.last()
        wait_s = 0.0 if last is None else at - last
        parts = int(cycle.window_s // max(_FLOW * wait_s, _SHORTEST_FLOW_S))
        requests = max(1, cycle.requests // max(1, parts))
        return Limit(requests, requests / cycle.rate_per_s)
