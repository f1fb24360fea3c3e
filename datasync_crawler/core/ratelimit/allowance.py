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
# The first trial comes after so many turns, each later one after twice as many.
_PATIENCE, _MOST_PATIENCE = 2, 16
# What flowed for more than so many of the waits that ended it wasn't one window's burst; it isn't
# believed as a window of less than so many seconds either.
_FLOW, _SHORTEST_FLOW_S = 10, 10.0
# A steady flow is raised by one part in so many after a window that went well, then by two.
_FLOW_PARTS = 8
# A bucket is believed as what it gives in about so many seconds.
_BUCKET_S = 2.0
# So many tokens tell a bucket's rate; fewer tell when the next one comes.
_MANY_TOKENS = 8
# A first wait of so many seconds may be that for a bucket's next token (said as 1 s, it can be
# anything below), and so long at most it is given to fill again. A window of that length and more
# loses nothing by it, a shorter one that time, once.
_TOKEN_FROM_S, _MOST_CARE_S = 1.5, 24.0


class Allowance:
    """`limit` requests in any `window_s` seconds; `limit` None until the first refusal.

    Learnt when refusals end: what went through between two openings, and how long that took: for
    each kind of limiter that is its rate, the better known the longer it went well.
    Refused after far fewer than believed, it's a bucket that is met token by token; the burst that
    tells this is risked when such a bucket would be full again.
    Raised (AIMD): the window is shortened towards the longest one known to be too short, and
    every few turns one request more is tried. Both risk a 429, so a whole burst's worth of
    requests goes through first, and the turns between two trials double. A flow so steady that
    nobody ever waits for a turn is raised by an eighth instead, a quarter, a half, and so on.
    """

    def __init__(self) -> None:
        self.limit: int | None = None
        self.window_s = 0.0
        self.proven: int | None = None  # the limit without a trial that went well just now
        self.proven_window_s = 0.0  # as well: before it was shortened just now
        self._log: deque[float] = deque(maxlen=_MOST_REMEMBERED)  # when answers came, monotonic
        self._opened_at: float | None = None
        self._accepted = 0  # since then
        # Until when we sent or were held back; and, before the first refusal, the longest time
        # after that in which nobody asked: how long, its end, and what was accepted before it.
        self._busy_until = math.inf
        self._idle = (0.0, 0.0, 0)
        self._burst = 1  # the most that went through in one go, before the first refusal
        self._safe = 0  # let through since a 429 was last risked
        # Let through by a belief that is new; None: nearly as many went through as it says.
        self._unconfirmed: int | None = None
        self._believed_rate = 0.0  # requests per s, then
        # Until when we go carefully, one token at a time, and what is believed then.
        self._care: tuple[float, int, float] | None = None
        self._was_careful = False
        # When the refusals that aren't over began and when the last one came; and those before.
        self._refused: tuple[float, float] | None = None
        self._refused_before = (0.0, 0.0)
        self._misled = False  # the last refusals took longer than the server said
        self._closed_until = 0.0  # the server surely was closed then
        # The window is known to be longer than this; a remembered one isn't shortened.
        self._too_short_s = math.inf
        self._waited = False
        self._held = False  # somebody waited, however shortly, since the last turn
        self._turn_at = 0.0
        self._trial = False
        self._turns = 0  # gone well, each of a burst's worth of requests
        self._patience = _PATIENCE
        self._trial_at = 1  # in turns
        self._trial_step = 1
        self._tried_from: int | None = None  # the limit before the trials that went well

    def believe(self, limit: int, window_s: float) -> None:
        """Start from this: learnt now, or by the run before."""
        self.limit, self.window_s = limit, window_s
        self.proven, self.proven_window_s = limit, window_s
        self._believed_rate = limit / window_s

    def ages_s(self, now: float, in_flight: int) -> list[float]:
        """How long ago those were let through that still count, oldest first. Those in flight are
        counted as well: who is killed now hears of their answers no more.
        """
        if self.limit is None:
            return []
        ages_s = [now - at for at in list(self._log)[-min(self.limit, _MOST_HANDED_ON) :]]
        return [age_s for age_s in ages_s if age_s < self.proven_window_s] + [0.0] * in_flight

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
        return math.inf if self._unconfirmed is None else max(1, self._unconfirmed)

    def delay_s(self, now: float, in_flight: int) -> float:
        """As `full_for_s`, but zero when it is time to try one more than we believe."""
        wait_s = self.full_for_s(now, in_flight)
        is_turn = wait_s > _TURN * self.window_s
        if is_turn and in_flight == 0 and self._turns >= self._trial_at:
            return 0.0
        self._waited = self._waited or is_turn
        self._held = self._held or wait_s > 0
        if wait_s > 0:
            self._busy_until = now + wait_s
        return wait_s

    def goes_alone(self, now: float) -> bool:
        """Whether what goes out now is the first of a turn or a trial: its answer comes first."""
        return self._waited or self.full_for_s(now) > 0

    def sent(self, now: float) -> None:
        """A request goes out."""
        self._skip_idle(now)
        if self._waited or self._opened_at is None:
            self._turn_at, self._held = now, False
        self._waited, self._trial = False, self.full_for_s(now) > 0
        if self._opened_at is None:
            self._opened_at = now

    def accepted(self, now: float, *, alone: bool) -> None:
        """An answer that isn't a refusal; `alone`: to a request that went first, or was a trial."""
        self._log.append(now)
        self._busy_until = now
        self._accepted += 1
        self._safe += 1
        if self.limit is None:
            return
        if self._care is not None:
            self._safe = 0
            until, limit, window_s = self._care
            if now < until:
                return
            self._care, self._was_careful = None, True
            self.believe(limit, window_s)
        if self._unconfirmed is not None:
            self._unconfirmed += 1
            if self._unconfirmed >= _WRONG * self.limit:
                self._confirmed(self._unconfirmed)
        if alone and self._trial:
            self._tried_from = self._tried_from or self.limit
            self.limit += self._trial_step
            # Few at a time: whatever is too much is refused in one burst.
            self._trial_step = min(self._trial_step * 2, max(1, self.limit // _FLOW_PARTS))
        elif alone and self._safe > self._burst:
            self._turns += 1
            self._safe, self.proven, self.proven_window_s = 0, self.limit, self.window_s
            too_long_s = self.window_s - self._too_short_s
            is_known = too_long_s <= _KNOWN_WELL * self.window_s
            if self._turns < self._trial_at and not is_known:
                self.window_s -= too_long_s / 2
        elif self._held and now >= self._turn_at + self.window_s:
            self._raise_flow(now)

    def _skip_idle(self, now: float) -> None:
        """A time in which nobody asked tells nothing of the rate: only a window's length of it may
        have been needed.
        """
        idle_s, self._busy_until = now - self._busy_until, now
        if self._refused is not None or self._opened_at is None:
            return
        if self.limit is None:
            self._idle = max(self._idle, (idle_s, now, self._accepted))
            return
        skipped_s = max(0.0, idle_s - self.window_s)
        self._opened_at += skipped_s
        self._turn_at += skipped_s
        began_at, ended_at = self._refused_before
        self._refused_before = (began_at + skipped_s, ended_at + skipped_s)

    def _confirmed(self, let_through: int) -> None:
        """Nearly as many as believed went through. If we were careful: it's a window, no bucket,
        and the time of the care tells nothing of its rate.
        """
        self._unconfirmed = None
        if self._was_careful:
            self._was_careful = False
            self._opened_at, self._accepted = self._turn_at, let_through

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

    def refused(self, now: float, closed_until: float) -> None:
        """Refused; the server still is closed at `closed_until`."""
        self._closed_until = closed_until
        self._refused = (now if self._refused is None else self._refused[0], now)
        oldest = self._opened_at if self.limit is None else self.opens_at(self.limit, 0.0)
        if oldest is not None:
            self._too_short_s = max(self._too_short_s, closed_until - oldest)

    def reopened(self, sent_at: float, due_at: float, *, misled: bool = False) -> None:
        """Refusals are over: the server let one through again that was sent at `sent_at`; `due_at`
        when it had said that it would, or when we meant to ask. `misled`: it had said so often.
        """
        at = min(due_at, sent_at)
        opened_at = at if self._opened_at is None else self._opened_at
        idle_s, idle_until, accepted_before = self._idle
        if idle_s > at - idle_until:  # any window of before was over by then
            opened_at, self._accepted = idle_until, self._accepted - accepted_before
        self.believe(*self._learnt(at, opened_at))
        self._too_short_s = min(self._too_short_s, self.window_s)
        skipped_s = max(0.0, sent_at - at - self.window_s)  # nobody asked
        began_at, ended_at = self._refused or (at, at)
        self._refused_before = (began_at + skipped_s, ended_at + skipped_s)
        self._opened_at, self._refused = at + skipped_s, None
        self._accepted, self._unconfirmed, self._safe = 0, 0, 0
        self._was_careful, self._idle = False, (0.0, 0.0, 0)
        self._trial, self._trial_step, self._tried_from = False, 1, None
        self._turn_at, self._held = self._opened_at, False
        # What took longer than was said needn't have been a window: one more tells, at once, but
        # not over and over to a server that always says the same.
        is_doubtful, self._misled = misled and not self._misled, misled
        self._trial_at = self._turns + (0 if is_doubtful else self._patience)
        self._patience = min(self._patience * 2, _MOST_PATIENCE)

    def _learnt(self, at: float, opened_at: float) -> tuple[int, float]:
        """What to believe after refusals: limit and window."""
        accepted, cycle_s = max(1, self._accepted), max(at - opened_at, 0.01)
        # At most that fast: the true opening lies between the last refusal and `at`.
        rate = accepted / max(self._closed_until - opened_at, 0.01)
        if self.limit is None:
            self._burst = accepted
            return self._of_first_burst(at, cycle_s)
        if 0 < (self._unconfirmed or 0) < _WRONG * self.limit:
            self._patience = 1
            self._too_short_s = max(0.0, self._closed_until - opened_at)
            return self._of_bucket(at)
        is_wrong = self._care is not None or rate < _WRONG * self._believed_rate
        if self._accepted and is_wrong:
            self._care = None
            self._too_short_s = max(0.0, self._closed_until - opened_at)
            return _of_one_window(accepted, cycle_s, self._waited_s(at))
        let_through = sum(1 for t in self._log if t > self._closed_until - self.window_s)
        if self._tried_from is None:
            return self._give_way(at, let_through, cycle_s / accepted)
        if let_through > self._burst:  # more than a bucket ever held: the limit rose
            self._burst = let_through
            return let_through, self.window_s
        # Tokens had piled up: the average tells how fast.
        return self._tried_from, self._tried_from * cycle_s / accepted

    def _waited_s(self, at: float) -> float:
        """From the last that was let through."""
        return at - self._log[-1] if self._log else 0.0

    def _of_first_burst(self, at: float, cycle_s: float) -> tuple[int, float]:
        """As a belief: a window. The next burst might find a bucket with a single token in it,
        though: one at a time, then, until a bucket of such tokens would be full again.
        """
        self._too_short_s = max(0.0, self._closed_until - (at - cycle_s))
        wait_s = self._waited_s(at)
        believed = _of_one_window(self._burst, cycle_s, wait_s)
        is_told = self._refused is not None and self._closed_until > self._refused[1]
        if is_told and wait_s >= _TOKEN_FROM_S and self._burst * wait_s <= _MOST_CARE_S:
            self._care = (at + self._burst * wait_s, *believed)
            return 1, wait_s
        return believed

    def _of_bucket(self, at: float) -> tuple[int, float]:
        """As a belief, after far fewer than a window would have held: the tokens that came since
        the bucket was empty.
        """
        (empty_at, surely_empty_at), refused = self._refused_before, self._refused or (at, at)
        if self._accepted >= _MANY_TOKENS:
            token_s = (refused[0] - surely_empty_at) / self._accepted
        else:  # the one that comes now counts as well
            token_s = (at - empty_at) / (self._accepted + 1)
        limit = min(self._accepted, math.ceil(_BUCKET_S / token_s))
        return limit, limit * token_s

    def _give_way(self, at: float, fewer: int, per_request_s: float) -> tuple[int, float]:
        """As a belief: fewer, or in a longer window, whichever explains the refusal and costs
        less. Neither, when it was a trial's, or when none of ours went before it.
        """
        assert self.limit is not None
        if not self._log:
            return self.limit, self.window_s
        oldest = self._log[-min(self.limit, len(self._log))]
        least_s, longest_s = self._closed_until - oldest, at - oldest
        # Far sooner than it did: the window is shorter now, or it's a bucket, which the next burst
        # tells, at the cost of a 429 that is worth it when nothing else has gone well for long.
        if self._patience == _MOST_PATIENCE and longest_s < _WRONG * self.window_s:
            self._too_short_s = max(0.0, least_s)
            return self.limit, max(longest_s, 0.01)
        if longest_s > self.window_s and fewer * least_s <= self.limit * self.window_s:
            # The window ended between the last refusal and `at`: where, the average may tell.
            average_s = self.limit * per_request_s
            return self.limit, average_s if least_s <= average_s <= longest_s else longest_s
        if fewer < self.limit:
            # Half of what is wrong is known now: don't shorten the window in the same go.
            self._too_short_s = self.window_s
            return max(1, fewer), self.window_s
        return self.limit, self.window_s


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
