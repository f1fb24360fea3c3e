"""An unadvertised limit: N requests per window, learned from refusals (429 and the like).

At most `limit.requests` in any `limit.window_s` suits every kind of limiter: fixed windows, sliding
windows and token buckets, in a burst or evenly (one request per interval).
"""

import math

from datasync_crawler.ratelimit.limits import CountedTimes, Limit

# A rate is measured over so many intervals of the last one at least, or another client's requests
# would make it sink. As many requests at least lie between a refusal and a trial.
_ENOUGH = 6
# Requests between two trials double with each refused one, up to this multiple.
_MOST_PATIENCE = 4
# A new rate below this share of the last one may include a penalty: a trial comes soon.
_DOUBTFUL = 0.5
# A window bisected to within the first share is known. It is tried from the second one on, less
# often the longer it holds.
_KNOWN_WELL, _SHORTER = 0.05, 0.75
# A cycle of more than 10 waits is a steady flow, not a burst. It is split into windows of at least
# 10 s, or the next run would send an hour's requests at once.
_FLOW, _SHORTEST_FLOW_S = 10, 10.0


class LearnedLimit:
    """The estimate: successes between two reopenings, and the time between those.

    A *trial* sends one request early; if it succeeds, the window is shortened.
    """

    def __init__(self, times: CountedTimes) -> None:
        self.limit: Limit | None = None
        self._times = times
        self._opened_at: float | None = None  # the beginning of the cycle
        self._accepted = 0  # since `_opened_at`
        self._too_short_s = 0.0  # the window is longer than this
        self._quiet = 0  # successes since the last refusal or trial
        self._patience = 1  # successes before the next trial
        self._least_patience = _ENOUGH  # or the first estimate's requests, if those are more
        self._is_trying = False  # the request in flight is a trial

    def start_from(self, limit: Limit) -> None:
        """Starts from a limit that was learned by the last run or by another process."""
        self.limit, self._is_trying = limit, False
        self._patience = limit.requests
        self._least_patience = max(_ENOUGH, limit.requests)

    def accepted_elsewhere(self, number: int) -> None:
        """Records that other processes have had so many requests accepted."""
        self._accepted += number
        self._quiet += number

    def in_force(self, now: float, in_flight: int) -> Limit | None:
        """The limit, or the one to try where a trial is due."""
        is_due = in_flight == 0 and self._quiet >= self._patience
        if self.limit and is_due and self.full_for_s(now) > 0:
            return Limit(self.limit.requests, self._trial_window_s(self.limit.window_s))
        return self.limit

    def wait_s(self, now: float, in_flight: int) -> float:
        """Seconds until one more may be sent; zero when a trial is due."""
        limit = self.in_force(now, in_flight)
        return 0.0 if limit is None else self._times.wait_s(limit, now, in_flight)

    def full_for_s(self, now: float, in_flight: int = 0) -> float:
        """As `wait_s`, without trials."""
        return 0.0 if self.limit is None else self._times.wait_s(self.limit, now, in_flight)

    def _trial_window_s(self, window_s: float) -> float:
        """The window to try: bisected, from half on, since the estimate may include a penalty."""
        is_known = self._too_short_s > (1 - _KNOWN_WELL) * window_s  # it may have changed since
        return ((_SHORTER * window_s if is_known else self._too_short_s) + window_s) / 2

    @property
    def most_in_flight(self) -> float:
        """After a refusal or a trial, as many as have succeeded since: a bucket reopens for one
        token, a window for all. So it doubles per round trip.
        """
        is_used = self.limit is None or self._quiet >= self.limit.requests
        return math.inf if is_used else max(1, self._quiet)

    def sent(self, now: float, in_flight: int, *, refused: bool) -> None:
        """Records that a request is sent beside those `in_flight`; `refused`: it is the probe after
        a refusal.
        """
        if self._opened_at is None:
            self._opened_at = now
        last, limit = self._times.last(), self.limit
        if limit is None or last is None or refused or in_flight:
            return
        self._is_trying = self.full_for_s(now) > 0
        # Idle time doesn't count towards the rate.
        oldest = self._times.last(limit.requests)
        free_at = last if oldest is None else max(last, oldest + limit.window_s)
        self._opened_at += max(0.0, now - free_at)

    def accepted(self) -> None:
        """Records that a request succeeded."""
        self._accepted += 1
        self._quiet += 1
        if not self._is_trying or self.limit is None:
            return
        window_s = self._trial_window_s(self.limit.window_s)
        if window_s <= self._too_short_s:
            self._too_short_s = 0.0
        self.limit, self._is_trying = Limit(self.limit.requests, window_s), False
        self._quiet, self._patience = 0, self.limit.requests

    def refused(self) -> None:
        """Records a refusal."""
        if self._is_trying and self.limit is not None:
            self._is_trying = False
            self._patience = min(2 * self._patience, _MOST_PATIENCE * self._least_patience)
            tried_s = self._trial_window_s(self.limit.window_s)
            self._too_short_s = max(self._too_short_s, tried_s)

    def reopened(self, at: float) -> None:
        """Records the first success after a refusal; *at*: the stated reopening, or the sending."""
        before, accepted = self.limit, self._accepted
        began_at = at if self._opened_at is None else self._opened_at
        if before is None or before.requests > 1:  # else other clients prevent all trials
            self._quiet = 0
        if before is not None and 0 < accepted < before.requests:
            # The burst is too large, or not all of it was ours: smaller ones at the same rate.
            self.limit, self._too_short_s = _paced(accepted, before), 0.0
            return
        if before is not None and accepted and at - began_at < _ENOUGH / before.rate_per_s:
            return
        self._opened_at, self._accepted = at, 0
        if accepted:
            cycle = Limit(accepted, max(at - began_at, 0.01))
            self.limit = _paced(before.requests, cycle) if before else self._first(cycle, at)
            self._too_short_s = min(self._too_short_s, self.limit.window_s)
            self._patience = max(self._patience, self._least_patience)
            if before is None or self.limit.rate_per_s < _DOUBTFUL * before.rate_per_s:
                self._patience = self.limit.requests

    def _first(self, cycle: Limit, at: float) -> Limit:
        """The first estimate."""
        last = self._times.last()
        wait_s = 0.0 if last is None else at - last
        self._least_patience = max(_ENOUGH, cycle.requests)
        parts = int(cycle.window_s // max(_FLOW * wait_s, _SHORTEST_FLOW_S))
        return _paced(max(1, cycle.requests // max(1, parts)), cycle)


def _paced(requests: int, like: Limit) -> Limit:
    return Limit(requests, requests / like.rate_per_s)
