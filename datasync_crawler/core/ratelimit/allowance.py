"""What a server lets through that doesn't tell: so many requests in so long, found by trying.

Owns the memory of what was let through, and the two numbers learnt from it. It doesn't know of
headers or pauses. Never more than `limit` in any `window_s` is right for every kind of limiter:
a fixed window, a sliding window and a token bucket all let that through, as one burst or evenly.
"""

import math
from collections import deque
from collections.abc import Iterable

_MOST_REMEMBERED = 65_536
# Of these, so many at most are remembered for the next run: a few kB in the database.
_MOST_HANDED_ON = 1_000
# Below this share of what was believed, what went through shows that the belief is wrong.
_WRONG = 0.75
# A window known to within this share is known well enough: no more 429s to learn it better.
_KNOWN_WELL = 0.05
# A wait longer than this share of the window is the end of a turn: one goes first after it.
_TURN = 0.1
_MOST_PATIENCE = 16
# What flowed for more than so many of the waits that ended it wasn't one window's burst; it isn't
# believed as a window of less than so many seconds either.
_FLOW, _SHORTEST_FLOW_S = 10, 10.0
# A steady flow is raised by one part in so many after a window that went well, then by two.
_FLOW_PARTS = 8


class Allowance:
    """`limit` requests in any `window_s` seconds; `limit` None until the first refusal.

    Learnt when refusals end: what went through between two openings, and how long that took: for
    each kind of limiter that is its rate, the better known the longer it went well.
    Raised (AIMD): the window is shortened towards the longest one known to be too short, and
    every few turns one request more is tried. Both risk a 429, so a whole burst's worth of
    requests goes through first, and the turns between two trials double. A flow so steady that
    nobody ever waits for a turn is raised by an eighth instead, a quarter, a half, and so on.
    """

    def __init__(self) -> None:
        self.limit: int | None = None
        self.window_s = 0.0
        self.proven: int | None = None  # the limit without a trial that went well just now
        self._log: deque[float] = deque(maxlen=_MOST_REMEMBERED)  # when answers came, monotonic
        self._opened_at: float | None = None
        self._accepted = 0  # since then
        self._burst = 1  # the most that went through in one go, before the first refusal
        self._safe = 0  # let through since a 429 was last risked
        self._is_new = False  # the belief: no turn has confirmed it
        self._believed_rate = 0.0  # requests per s, then
        self._closed_until = 0.0  # the server surely was closed then
        # The window is known to be longer than this; a remembered one isn't shortened.
        self._too_short_s = math.inf
        self._waited = False
        self._held = False  # somebody waited, however shortly, since the last turn
        self._turn_at = 0.0
        self._trial = False
        self._turns = 0  # gone well, each of a burst's worth of requests
        self._patience = 1
        self._trial_at = 1  # in turns
        self._trial_step = 1
        self._tried_from: int | None = None  # the limit before the trials that went well

    def believe(self, limit: int, window_s: float) -> None:
        """Start from this: learnt now, or by the run before."""
        self.limit, self.window_s = limit, window_s
        self.proven = limit
        self._believed_rate = limit / window_s

    def ages_s(self, now: float, in_flight: int) -> list[float]:
        """How long ago those were let through that still count, oldest first. Those in flight are
        counted as well: who is killed now hears of their answers no more.
        """
        if self.limit is None:
            return []
        ages_s = [now - at for at in list(self._log)[-min(self.limit, _MOST_HANDED_ON) :]]
        return [age_s for age_s in ages_s if age_s < self.window_s] + [0.0] * in_flight

    def remember(self, now: float, ages_s: Iterable[float]) -> None:
        """These were let through so long ago, by the run before."""
        self._log.extend(now - age_s for age_s in sorted(ages_s, reverse=True))

    def opens_at(self, limit: int, window_s: float) -> float | None:
        """When fewer than `limit` answers are younger than `window_s`; None: they are already.

        An answer's time stands for the earlier moment at which the server counted it, so this
        is never too early.
        """
        return self._log[-limit] + window_s if 0 < limit <= len(self._log) else None

    def full_for_s(self, now: float, in_flight: int = 0) -> float:
        """Seconds until one more may go out; those in flight are counted as let through."""
        if self.limit is None:
            return 0.0
        if in_flight >= self.limit:
            return self.window_s
        opens_at = self.opens_at(self.limit - in_flight, self.window_s)
        return 0.0 if opens_at is None else max(0.0, opens_at - now)

    @property
    def most_in_flight(self) -> float:
        """While a belief is new, as many as were let through since: it doubles with each round
        trip. A bucket opens for one token, a window for all: a burst into it would be refused.
        """
        return max(1, self._accepted) if self._is_new else math.inf

    def delay_s(self, now: float, in_flight: int) -> float:
        """As `full_for_s`, but zero when it is time to try one more than we believe."""
        wait_s = self.full_for_s(now, in_flight)
        is_turn = wait_s > _TURN * self.window_s
        if is_turn and in_flight == 0 and self._turns >= self._trial_at:
            return 0.0
        self._waited = self._waited or is_turn
        self._held = self._held or wait_s > 0
        return wait_s

    def goes_alone(self, now: float) -> bool:
        """Whether what goes out now is the first of a turn or a trial: its answer comes first."""
        return self._waited or self.full_for_s(now) > 0

    def sent(self, now: float) -> None:
        """A request goes out."""
        if self._waited or self._opened_at is None:
            self._turn_at, self._held = now, False
        self._waited, self._trial = False, self.full_for_s(now) > 0
        if self._opened_at is None:
            self._opened_at = now

    def accepted(self, now: float, *, alone: bool) -> None:
        """An answer that isn't a refusal; `alone`: to a request that went first, or was a trial."""
        self._log.append(now)
        self._accepted += 1
        self._safe += 1
        if self.limit is None:
            return
        self._is_new = self._is_new and self._accepted < self.limit
        if alone and self._trial:
            self._tried_from = self._tried_from or self.limit
            self.limit += self._trial_step
            self._trial_step *= 2
        elif alone and self._safe > self._burst:
            self._turns += 1
            self._safe, self.proven = 0, self.limit
            too_long_s = self.window_s - self._too_short_s
            is_known = too_long_s <= _KNOWN_WELL * self.window_s
            if self._turns < self._trial_at and not is_known:
                self.window_s -= too_long_s / 2
        elif self._held and now >= self._turn_at + self.window_s:
            self._raise_flow(now)

    def _raise_flow(self, now: float) -> None:
        """A window went by in which the pace held us back, but nobody long enough for a turn."""
        assert self.limit is not None
        self._turn_at, self._held = now, False
        self._turns += 1
        self.proven = self.limit
        if self._turns >= self._trial_at:
            self._tried_from = self._tried_from or self.limit
            self.limit += max(1, self.limit * self._trial_step // _FLOW_PARTS)
            self._trial_step = min(self._trial_step * 2, _FLOW_PARTS)

    def refused(self, closed_until: float) -> None:
        """Refused; the server still is closed at `closed_until`."""
        self._closed_until = closed_until
        oldest = self._opened_at if self.limit is None else self.opens_at(self.limit, 0.0)
        if oldest is not None:
            self._too_short_s = max(self._too_short_s, closed_until - oldest)

    def reopened(self, at: float) -> None:
        """Refusals are over: the server let one through again, or had said that it would, `at`."""
        opened_at = at if self._opened_at is None else self._opened_at
        accepted, cycle_s = max(1, self._accepted), max(at - opened_at, 0.01)
        # At most that fast: the true opening lies between the last refusal and `at`.
        rate = accepted / max(self._closed_until - opened_at, 0.01)
        if self.limit is None or (self._accepted and rate < _WRONG * self._believed_rate):
            wait_s = at - self._log[-1] if self._log else 0.0
            if self.limit is None:
                self._burst = accepted
            self.limit, self.window_s = _of_one_window(accepted, cycle_s, wait_s)
            self._too_short_s = max(0.0, self._closed_until - opened_at)
        else:
            let_through = sum(1 for t in self._log if t > self._closed_until - self.window_s)
            if self._tried_from is None:
                self._give_way(at, let_through, cycle_s / accepted)
            elif let_through > self._burst:  # more than a bucket ever held: the limit rose
                self.limit = self._burst = let_through
            else:  # tokens had piled up: the average tells how fast
                self.limit = self._tried_from
                self.window_s = self.limit * cycle_s / accepted
        self._too_short_s = min(self._too_short_s, self.window_s)
        self._opened_at, self._accepted, self._is_new, self._safe = at, 0, True, 0
        self.believe(self.limit, self.window_s)
        self._trial, self._trial_step, self._tried_from = False, 1, None
        self._turn_at, self._held = at, False
        self._trial_at = self._turns + self._patience
        self._patience = min(self._patience * 2, _MOST_PATIENCE)

    def _give_way(self, at: float, fewer: int, per_request_s: float) -> None:
        """Fewer, or in a longer window: whichever explains the refusal and costs less. Neither,
        when it was a trial's, or when none of ours went before it.
        """
        if self.limit is None or not self._log:
            return
        oldest = self._log[-min(self.limit, len(self._log))]
        least_s, longest_s = self._closed_until - oldest, at - oldest
        if longest_s > self.window_s and fewer * least_s <= self.limit * self.window_s:
            # The window ended between the last refusal and `at`: where, the average may tell.
            average_s = self.limit * per_request_s
            self.window_s = average_s if least_s <= average_s <= longest_s else longest_s
        elif fewer < self.limit:
            self.limit = max(1, fewer)
            # Half of what is wrong is known now: don't shorten the window in the same go.
            self._too_short_s = self.window_s


def _of_one_window(accepted: int, cycle_s: float, wait_s: float) -> tuple[int, float]:
    """As a belief: what went through, in so long, the wait at the end included.

    After an hour's flow, refused for a second, that isn't "18,000 in an hour": the next run would
    send as many at once and then wait for an hour, and nothing could be raised before. The same
    rate in a short window is as right.
    """
    parts = int(cycle_s // max(_FLOW * wait_s, _SHORTEST_FLOW_S))
    if parts <= 1:
        return accepted, cycle_s
    limit = max(1, accepted // parts)
    return limit, cycle_s * limit / accepted
