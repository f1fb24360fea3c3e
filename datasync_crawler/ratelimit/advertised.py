"""The limits that a server's headers advertise: what is left of each, and when it resets.

Owns their current windows and how the server rounds their ends. Knows nothing of pauses, nor of
unadvertised limits.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from datasync_crawler.ratelimit.headers import Quota, RateLimitInfo
from datasync_crawler.ratelimit.limits import CountedTimes, Limit

# Without a usable reset: the wait once a quota is spent, doubled with each refusal after it.
_BLIND_WAIT_S: Final = 1.0
_LONGEST_BLIND_WAIT_S: Final = 60.0
# The wait after a window's end for answers to requests that may have counted in either window.
_STRAGGLERS_S: Final = 2.0
# The wait where only an answer can change the decision.
_ASK_AGAIN_S: Final = 1.0
# Windows for which resets are taken as stated, plus a second, after the learned length proved
# wrong: 4 at first, four times as many with each mistake, at most 64.
_DOUBTED_WINDOWS: Final = 4
_MOST_DOUBTED_WINDOWS: Final = 64
# Bounds memory for a server that gives each answer's quota another name.
_MOST_QUOTAS: Final = 16


class AdvertisedLimit:
    """One quota's current window, by the answers.

    `closed_until` is the latest possible end: a reset in whole seconds may have been rounded down,
    so a second is added. Once the window's length is known, it bounds the end: no window ends later
    than one length after any moment within it. Of several answers the earliest such end counts.
    """

    def __init__(self) -> None:
        self.limit: int | None = None
        # Answers overtake each other, so this is the least of them since the last one whose request
        # was sent after the earlier answers had come.
        self.remaining: int | None = None
        self.closed_until: float | None = None  # monotonic s
        self._length_s: float | None = None  # as stated, or learned
        self._first_reset_s: float | None = None  # at a window's beginning
        self._longest_reset_s = 0.0
        self._least_used_reset_s = 0.0
        self._refills = False
        # When the request was sent and answered that states `remaining`.
        self._stated = (0.0, 0.0)
        self._blind_waits = 0
        self._doubted = 0  # windows for which resets are taken as stated
        self._mistakes = 0

    def learn(
        self, quota: Quota, *, now: float, sent_at: float, probe: bool, refused: bool
    ) -> None:
        """Takes in an answer's quota, that came `now` to a request sent at `sent_at`.

        `probe`: the request was sent alone, because the window before should have ended.
        """
        first = self.remaining is None or self.closed_until is None
        fresh = first or probe or self._is_over(now, sent_at, quota)
        newer = fresh or sent_at >= self._stated[1]
        self._learn_kind(quota)
        self._longest_reset_s = max(self._longest_reset_s, quota.reset_in_s or 0.0)
        if fresh:
            self._learn_length(quota)
            self._doubted = max(0, self._doubted - 1)
        self.limit = self.limit if quota.limit is None else quota.limit
        left = self._count_left(quota, fresh=fresh)
        in_force = newer or self.remaining is None or left < self.remaining
        if in_force:
            self.remaining, self._stated = left, (sent_at, now)
        self._move_end(self._latest_end(quota, now), now - sent_at, fresh=fresh, may_rise=in_force)
        self._wait_blindly(now, refused=refused)

    def mistaken(self) -> None:
        """A probe after the computed end was refused: take resets as stated for a while."""
        self._mistakes += 1
        self._doubted = min(_DOUBTED_WINDOWS**self._mistakes, _MOST_DOUBTED_WINDOWS)

    def wait_s(self, now: float, in_flight: int, times: CountedTimes) -> float:
        """Seconds until one more may be sent, those in flight counted."""
        if self.remaining is None or self.remaining > in_flight:
            return 0.0
        opens_at = self.opens_at(in_flight, times)
        if opens_at is None:
            return _ASK_AGAIN_S
        # Requests in flight may have spent what is left; their answers come soon.
        grace_s = _STRAGGLERS_S if self.remaining > 0 else 0.0
        return max(0.0, opens_at + grace_s - now)

    def opens_at(self, in_flight: int, times: CountedTimes) -> float | None:
        """The end of the window, or an earlier moment at which enough of our own requests have left
        it: in a sliding window that no other client has filled.
        """
        length_s = self.length_s
        if self.closed_until is None or length_s is None or self.limit is None:
            return self.closed_until
        oldest = times.last(self.limit - in_flight)
        sent_at, came_at = self._stated
        # `closed_until` is at most 2 s too late by rounding: a bucket's next token comes later.
        soonest = max(sent_at, min(came_at, self.closed_until - 2.0 - (came_at - sent_at)))
        if oldest is None or oldest + length_s <= soonest:
            return self.closed_until
        return min(self.closed_until, oldest + length_s)

    @property
    def length_s(self) -> float | None:
        """The window's length, if it is known and not in doubt."""
        return None if self.is_doubted else self._length_s

    @property
    def is_doubted(self) -> bool:
        """Whether the window's length, though known, doesn't say when it ends."""
        return bool(self._doubted or self._refills)

    @property
    def per_window(self) -> Limit | None:
        """The limit with the best guess of its window."""
        length_s = self._length_s or self._first_reset_s or self._longest_reset_s
        return Limit(self.limit, length_s) if self.limit and length_s else None

    def _is_over(self, now: float, sent_at: float, quota: Quota) -> bool:
        """Whether this answer is about a later window: its request was sent after the known end, or
        it came after that end and states that nothing is left.
        """
        over_at = math.inf if self.closed_until is None else self.closed_until
        return sent_at >= over_at or (now >= over_at and quota.remaining == 0)

    def _move_end(
        self, ends_at: float | None, travel_s: float, *, fresh: bool, may_rise: bool
    ) -> None:
        """Takes the earlier end, unless an answer in force is about another window."""
        if self.closed_until is None or ends_at is None or fresh:
            self.closed_until = ends_at
            return
        # Rounding and latency move an end by up to a second plus the latency.
        is_another = may_rise and ends_at > self.closed_until + 1.0 + travel_s
        self.closed_until = ends_at if is_another else min(self.closed_until, ends_at)

    def _count_left(self, quota: Quota, *, fresh: bool) -> int:
        """Requests left; counted here when the answer states limit and reset only."""
        if quota.remaining is not None:
            return quota.remaining
        return max(0, ((self.limit if fresh else self.remaining) or 0) - 1)

    def _wait_blindly(self, now: float, *, refused: bool) -> None:
        """Sets an end where nothing is left and no reset is stated."""
        if self.remaining:
            self._blind_waits = 0
        elif self.closed_until is None:
            self._blind_waits = max(1, self._blind_waits + refused)
            wait_s = _BLIND_WAIT_S * 2.0 ** min(self._blind_waits, 10)
            self.closed_until = now + min(wait_s, _LONGEST_BLIND_WAIT_S)

    def _latest_end(self, quota: Quota, now: float) -> float | None:
        """The latest possible end of this answer's window."""
        length_s = self.length_s
        if quota.reset_in_s is None:
            return None if length_s is None else now + length_s
        margin_s = 1.0 if quota.reset_is_whole or self._doubted else 0.0
        end_in_s = quota.reset_in_s + margin_s
        if self._refills and not self._doubted and quota.limit and quota.remaining is not None:
            return now + end_in_s / max(1, quota.limit - quota.remaining)
        if length_s is not None and quota.reset_in_s < length_s + 1.0:
            end_in_s = min(end_in_s, length_s)
        return now + end_in_s

    def _learn_length(self, quota: Quota) -> None:
        """Learns the length from two windows whose first resets are close to one round number.

        "20" can be 20 s, or 20.9 s rounded down; with epoch seconds, "19" and "20.6" are 20 s as
        well. Windows of 21 s don't occur in practice. A wrong length costs one 429 (`mistaken`).
        """
        if quota.window_s is not None:
            self._length_s = quota.window_s
            return
        if quota.limit is None or (quota.remaining or 0) < quota.limit - 1:
            return  # not a window's beginning
        before_s, self._first_reset_s = self._first_reset_s, quota.reset_in_s
        if before_s is None or quota.reset_in_s is None:
            return
        near = [_nearest_round(before_s), _nearest_round(quota.reset_in_s)]
        if near[0] is not None and near[0] == near[1]:
            self._length_s = near[0]
        elif self._length_s is not None and quota.reset_in_s >= self._length_s + 1.0:
            self._length_s = None

    def _learn_kind(self, quota: Quota) -> None:
        """Detects a token bucket: its reset, when it is full, moves away as tokens are spent."""
        if not quota.limit or quota.remaining is None or quota.reset_in_s is None:
            return
        if quota.remaining >= quota.limit - 1:
            self._least_used_reset_s = quota.reset_in_s
        elif quota.remaining <= quota.limit // 2 and self._least_used_reset_s:
            self._refills = quota.reset_in_s > 2 * (self._least_used_reset_s + 1.0)


def _nearest_round(seconds: float) -> float | None:
    """The usual window length (2, or a multiple of 5) less than a second away, else None."""
    for length_s in (2.0, 5.0 * round(seconds / 5)):
        if length_s > 0 and abs(seconds - length_s) < 1.0:
            return length_s
    return None


class AdvertisedLimits:
    """All quotas of one server. All of them apply; the longest wait decides.

    For a policy without a count (`RateLimit-Policy` alone) our own requests are counted.
    """

    def __init__(self, times: CountedTimes) -> None:
        self.source = ""
        self._times = times
        self._quotas: dict[str, AdvertisedLimit] = {}
        self.policies: dict[str, Limit] = {}
        self._resets_in_ms: bool | None = None  # None: not known
        self._last_reset: tuple[float, float] | None = None  # time and number

    def learn(
        self, info: RateLimitInfo, *, now: float, sent_at: float, probe: bool, refused: bool
    ) -> None:
        """Takes in an answer's quotas. Of a refusal's quotas only those that successes have stated
        as well: another one is a second limit that uses the same fields, and is learned.
        """
        if info.quotas:
            self.source = info.source
        for stated in info.quotas:
            quota = self._in_seconds(stated, now)
            if refused and not self.states(quota):
                continue
            if quota.remaining is None and quota.reset_in_s is None:
                assert quota.limit is not None
                assert quota.window_s is not None
                self.policies[quota.name] = Limit(quota.limit, quota.window_s)
            elif quota.name in self._quotas or len(self._quotas) < _MOST_QUOTAS:
                limit = self._quotas.setdefault(quota.name, AdvertisedLimit())
                limit.learn(quota, now=now, sent_at=sent_at, probe=probe, refused=refused)
        if len(self.policies) > _MOST_QUOTAS:
            self.policies.clear()
        if probe and not refused:  # quotas that aren't stated any more are dropped
            names = {quota.name for quota in info.quotas}
            self._quotas = {name: q for name, q in self._quotas.items() if name in names}
            self.policies = {name: p for name, p in self.policies.items() if name in names}

    def states(self, quota: Quota) -> bool:
        """Whether successes have stated this quota, by name and limit."""
        known = self._quotas.get(quota.name)
        return known is not None and (known.limit is None or quota.limit in {None, known.limit})

    def explain(self, info: RateLimitInfo, now: float, in_flight: int) -> bool:
        """Whether a stated quota caused a refusal: the answer names it, or one is spent."""
        spent = info.spent
        return self.wait_s(now, in_flight) > 0 if spent is None else self.states(spent)

    def mistaken(self, info: RateLimitInfo) -> None:
        """A probe after the computed end of a window was refused."""
        spent = info.spent
        for name, limit in self._quotas.items():
            if spent is None or spent.name == name:
                limit.mistaken()

    def wait_s(self, now: float, in_flight: int) -> float:
        """Seconds until one more may be sent."""
        waits = [quota.wait_s(now, in_flight, self._times) for quota in self._quotas.values()]
        waits += [self._times.wait_s(p, now, in_flight) for p in self.policies.values()]
        return max(waits, default=0.0)

    def is_over(self, in_flight: int) -> bool:
        """Whether a quota is spent and its window past, so that a probe has to be sent."""
        return any(
            quota.remaining is not None
            and quota.remaining <= in_flight
            and quota.closed_until is not None
            for quota in self._quotas.values()
        )

    def per_window(self) -> Iterator[Limit]:
        """The limits whose windows are known."""
        yield from (limit for quota in self._quotas.values() if (limit := quota.per_window))
        yield from self.policies.values()

    @property
    def least(self) -> AdvertisedLimit | None:
        """The quota with the least left."""
        known = [quota for quota in self._quotas.values() if quota.remaining is not None]
        return min(known, key=lambda quota: quota.remaining or 0, default=None)

    @property
    def slowest(self) -> AdvertisedLimit | None:
        """The quota with the lowest rate; where windows aren't known, that with the least left."""

        def rank(quota: AdvertisedLimit) -> tuple[float, float]:
            limit = quota.per_window
            return (limit.rate_per_s if limit else math.inf), quota.remaining or 0

        return min(self._quotas.values(), key=rank, default=None)

    def _in_seconds(self, quota: Quota, now: float) -> Quota:
        """The quota with its reset in seconds. Milliseconds fall by a thousand a second; until two
        answers show that, milliseconds are assumed: a mistake costs one 429 instead of hours.
        """
        if not quota.may_be_ms or quota.reset_in_s is None:
            return quota
        if self._last_reset is not None and self._resets_in_ms is None:
            then, before = self._last_reset
            fell, passed_s = before - quota.reset_in_s, now - then
            if fell > 10 * passed_s + 2:
                self._resets_in_ms = True
            elif passed_s > 1.5 and fell >= 0:
                self._resets_in_ms = False
        self._last_reset = now, quota.reset_in_s
        if self._resets_in_ms is False:
            return replace(quota, may_be_ms=False)
        in_s = quota.reset_in_s / 1000
        return replace(quota, reset_in_s=in_s, reset_is_whole=False, may_be_ms=False)
