"""The part of a key's quota that this process takes, where several processes send with one key.

Owns what is asked of the shared row (`store.rate_limits`) and reported to it, and the permits in
hand. The limiter decides first; where a limit is known, a permit of the row is needed as well.

All `now` are monotonic seconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from datasync_crawler.ratelimit.limiter import Decision, Limiter
from datasync_crawler.ratelimit.limits import Limit

#: The longest time between two reports while requests are sent, in seconds: so late at most a
#: process without limits sees another one's pause.
REPORTED_EVERY_S: Final = 1.0
# The share of a large limit that is taken at once, and of its window for which it may be kept.
_AT_ONCE, _KEPT = 1 / 20, 1 / 50
# A smoothed latency times this is seldom exceeded.
_LATENCY_MARGIN: Final = 1.25
# A shorter pause is over before it could be announced.
_SHORTEST_PAUSE_S: Final = 0.1
# Below this relative difference two learned limits are the same.
_SAME: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Asked:
    """Arguments of ``take_permits``. `limits`: [requests, window in s] each; None: the row's."""

    wanted: int
    limits: Sequence[Sequence[float]] | None
    latency_s: float
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Granted:
    """Its answer: permits, or the wait for one; the number of requests that all processes have
    had accepted, ever; the rest of a pause; the learned limit.
    """

    granted: int
    wait_s: float
    accepted: int
    paused_s: float
    learned: Limit | None


@dataclass(slots=True)
class _News:
    """What hasn't been reported yet. `left_sent_at`: when the request of the last answer went."""

    accepted: int = 0
    answered: int = 0
    left_sent_at: float | None = None


@dataclass(slots=True)
class _Hand:
    """Permits in hand, to be used until `until`; the row grants none before `opens_at`."""

    permits: int = 0
    until: float = -math.inf
    opens_at: float = -math.inf


@dataclass(slots=True)
class _Known:
    """The row as last seen, or as last written by us."""

    accepted: int | None = None  # None: never asked
    refused_until: float | None = None
    learned: Limit | None = None
    at: float = -math.inf


@dataclass(slots=True)
class _Asking:
    """The call under way: the news that it carries."""

    at: float
    news: _News
    refused_until: float | None
    learned: Limit | None
    kept_s: float


@dataclass(slots=True)
class SharedQuota:
    """One per limiter. One call at a time: `ask`, then `granted` or `lost`."""

    limiter: Limiter
    _news: _News = field(default_factory=_News)
    _hand: _Hand = field(default_factory=_Hand)
    _known: _Known = field(default_factory=_Known)
    _asking: _Asking | None = None
    _with_permit: set[float] = field(default_factory=set)  # `sent_at` of requests in flight

    def decide(self, now: float) -> Decision:
        """Whether a request that the limiter lets go may go: `permit` if the row must be asked."""
        if self._hand.permits and now >= self._hand.until:
            self._news.answered += self._hand.permits  # never sent: they count for windows alone
            self._hand.permits = 0
        if self._hand.permits or not self._needs_permit(now):
            return Decision(0.0, "")
        if now < self._hand.opens_at:
            return Decision(max(0.001, self._hand.opens_at - now), "limit")
        return Decision(REPORTED_EVERY_S, "permit")

    def sent(self, now: float) -> None:
        """A request goes out."""
        if self._hand.permits:
            self._hand.permits -= 1
            self._with_permit.add(now)

    def answered(self, sent_at: float, *, accepted: bool, came: bool = True) -> None:
        """The limiter took in an answer, or (*came* False) that there is none."""
        if sent_at in self._with_permit:
            self._news.answered += 1
        self._news.accepted += accepted
        if came:
            self._news.left_sent_at = max(sent_at, self._news.left_sent_at or sent_at)

    def cancelled(self, sent_at: float) -> None:
        """A permit wasn't used after all."""
        self._news.answered += sent_at in self._with_permit

    def has_news(self, now: float) -> bool:
        """Whether the row should be told at once, or hasn't been for long."""
        if self._asking is not None or self._known.accepted is None:
            return False
        is_due = now >= self._known.at + REPORTED_EVERY_S
        shared = self._needs_permit(now) and self._news.answered > 0
        return is_due or shared or self._known.refused_until != self.limiter.refused_until

    def ask(self, now: float, wanted: int, room: int) -> Asked | None:
        """The next call, for *wanted* requests of which *room* may go at once; None while one is
        under way.
        """
        if self._asking is not None:
            return None
        limits = self.limiter.counted_limits(now)
        fewest = min((limit.requests for limit in limits), default=0)
        shortest_s = min((limit.window_s for limit in limits), default=0.0)
        wanted = min(wanted, max(room, int(_AT_ONCE * fewest)))
        kept_s = _KEPT * shortest_s if wanted > room else 0.0
        self._asking = _Asking(
            now, self._news, self.limiter.refused_until, self.limiter.learned_limit, kept_s
        )
        report = self._report(now)
        self._news = _News()
        latency_s = _LATENCY_MARGIN * self.limiter.in_flight_limit.latency_s
        pairs = [[limit.requests, limit.window_s] for limit in limits]
        is_first = self._known.accepted is None and not pairs
        return Asked(wanted, None if is_first else pairs, latency_s + kept_s, report)

    def granted(self, now: float, answer: Granted) -> None:
        """Takes in the answer to the last call."""
        asking, known = self._asking, self._known
        assert asking is not None
        self._asking = None
        if known.accepted is not None:
            others = answer.accepted - known.accepted - asking.news.accepted
            self.limiter.others(max(0, others))
        if answer.learned is not None and not _is_same(answer.learned, asking.learned):
            self.limiter.adopt(answer.learned)
        self._known = _Known(
            answer.accepted, asking.refused_until, self.limiter.learned_limit, asking.at
        )
        if answer.paused_s > _SHORTEST_PAUSE_S:
            self.limiter.paused_elsewhere(now, answer.paused_s)
        self._hand.permits += answer.granted
        self._hand.until = now + max(asking.kept_s, _SHORTEST_PAUSE_S)
        self._hand.opens_at = now + answer.wait_s

    def lost(self) -> None:
        """The last call failed: its news are reported by the next one."""
        asking = self._asking
        assert asking is not None
        self._asking = None
        self._news.accepted += asking.news.accepted
        self._news.answered += asking.news.answered
        self._news.left_sent_at = self._news.left_sent_at or asking.news.left_sent_at

    def _needs_permit(self, now: float) -> bool:
        return self._known.accepted is None or self.limiter.is_limited(now)

    def _report(self, now: float) -> dict[str, Any]:
        news, known, limiter = self._news, self._known, self.limiter
        report: dict[str, Any] = {}
        if news.accepted:
            report["accepted"] = news.accepted
        if news.answered:
            report["answered"] = news.answered
        if known.refused_until != limiter.refused_until:
            if limiter.refused_until is None:
                report["resumed"] = True
            else:
                report["paused_s"] = max(0.0, limiter.refused_until - now)
        if limiter.learned_limit is not None and limiter.learned_limit != known.learned:
            learned = limiter.learned_limit
            report["learned"] = [learned.requests, learned.window_s]
        if news.left_sent_at is not None:
            remaining, reset_at = limiter.left()
            report["remaining"] = remaining
            report["sent_age_s"] = now - news.left_sent_at
            if reset_at is not None:
                report["reset_in_s"] = reset_at - now
        return report


def _is_same(one: Limit, other: Limit | None) -> bool:
    return (
        other is not None
        and one.requests == other.requests
        and math.isclose(one.window_s, other.window_s, rel_tol=_SAME)
    )
