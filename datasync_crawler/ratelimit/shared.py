"""The part of a key's quota that this process takes, where several processes send with one key.

Owns what is asked of the key's row (`store.rate_limits`) and reported to it, and the permits in
hand. The limiter decides first; where a limit is known, a permit of the row is needed as well.

All `now` are monotonic seconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from datasync_crawler.ratelimit.advertised import AdvertisedLimit
from datasync_crawler.ratelimit.decisions import Decision, Kind
from datasync_crawler.ratelimit.limiter import Limiter
from datasync_crawler.ratelimit.limits import Limit

#: The longest time between two reports while requests are sent, in seconds: so late at most a
#: process without a limit sees the pause that another one has met.
REPORTED_EVERY_S: Final = 1.0
# The share of a large limit that is taken at once, and of its window for which it may be kept.
_AT_ONCE, _KEPT = 1 / 20, 1 / 50
# The shortest time for which a permit may be kept: the event loop may be busy for so long.
_SHORTEST_KEPT_S: Final = 0.1
# The smoothed latency times this is seldom exceeded.
_LATENCY_MARGIN: Final = 1.25
# Before the first answer: a first request that arrived later than assumed would cost a refusal.
_FIRST_LATENCY_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Asked:
    """Arguments of ``take_permits``. `limits`: [requests, window in s] each; None: the row's."""

    wanted: int
    limits: Sequence[Sequence[float]] | None
    latency_s: float
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Granted:
    """The answer of ``take_permits``: permits, or the wait for one.

    `accepted`: requests of all processes that succeeded, ever; `paused_s`: the rest of a pause, 0.0
    until a request has succeeded after it, then None.
    """

    granted: int
    wait_s: float
    accepted: int
    paused_s: float | None
    learned: Limit | None


@dataclass(slots=True)
class _News:
    """What answers have shown since the last call. `returned`: permits of requests that were
    refused or not sent; `left_sent_at`: when the last one's request was sent; `resumed`: one
    succeeded after a pause.
    """

    accepted: int = 0
    answered: int = 0
    returned: int = 0
    left_sent_at: float | None = None
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    """The row at the last call. `refused_until`: the end of a pause as we reported it; `closed_at`:
    when the row was seen paused or without a permit.
    """

    at: float
    accepted: int
    learned: Limit | None
    refused_until: float | None
    closed_at: float | None
    is_paused: bool


@dataclass(frozen=True, slots=True)
class _Call:
    """The call under way, and what it reports."""

    at: float
    wanted: int
    kept_s: float
    news: _News
    reports_learned: bool
    refused_until: float | None


@dataclass(slots=True)
class _Hand:
    """Permits in hand, to be used until `until`; the row grants none before `opens_at`."""

    permits: int = 0
    until: float = -math.inf
    opens_at: float = -math.inf


class SharedQuota:
    """One per limiter, and one call at a time: `ask`, then `granted` or `lost`.

    `max_wait_s`: how long requests wait for a row that can't be reached.
    """

    def __init__(self, limiter: Limiter, *, max_wait_s: float) -> None:
        self._limiter = limiter
        self._max_wait_s = max_wait_s
        self._row: _Row | None = None  # None: not seen yet
        self._call: _Call | None = None
        self._lost_since: float | None = None
        self._news = _News()
        self._hand = _Hand()
        self._sent: set[float] = set()  # requests in flight that have a permit, by `sent_at`

    # --- requests --------------------------------------------------------------------------------

    @property
    def keeps_left(self) -> bool:
        """Whether the row keeps what is left of advertised quotas."""
        return self._row is not None and self._lost_since is None

    def decide(self, now: float) -> Decision:
        """Whether a request that the limiter lets go may be sent; `permit`: call `ask`."""
        hand = self._hand
        if hand.permits and now >= hand.until:
            self._news.answered += hand.permits  # never sent
            self._news.returned += hand.permits
            hand.permits = 0
        if hand.permits or not self._needs_permit(now):
            return Decision(0.0, "")
        if now < hand.opens_at:
            return Decision(max(0.001, hand.opens_at - now), "limit")
        return Decision(REPORTED_EVERY_S, "permit")

    def _needs_permit(self, now: float) -> bool:
        if self._lost_since is not None and now >= self._lost_since + self._max_wait_s:
            return False
        row = self._row
        return row is None or row.closed_at is not None or self._limiter.is_limited(now)

    def sent(self, now: float) -> None:
        """A request is sent."""
        if self._hand.permits:
            self._hand.permits -= 1
            self._sent.add(now)

    def ended(self, sent_at: float, kind: Kind | None = None) -> None:
        """A request ended, and the limiter knows how; `kind`: of its answer, None if none came."""
        news = self._news
        accepted = kind in {"ok", "unauthorized"}
        if sent_at in self._sent:
            self._sent.remove(sent_at)
            news.answered += 1
            news.returned += kind == "limited"
        news.accepted += accepted
        if kind is not None:
            news.left_sent_at = max(sent_at, news.left_sent_at or sent_at)
        row = self._row
        paused_at = row.closed_at if row is not None and row.is_paused else None
        if accepted and paused_at is not None and sent_at >= paused_at:
            news.resumed = True

    # --- calls -----------------------------------------------------------------------------------

    def is_due(self, now: float) -> bool:
        """Whether a call should be made though no permit is needed: for what it reports."""
        row = self._row
        if row is None or self._call is not None:
            return False
        refused_until = self._limiter.refused_until
        return (
            now >= row.at + REPORTED_EVERY_S
            or (refused_until is not None and refused_until != row.refused_until)
            or (self._news.answered > 0 and self._needs_permit(now))
        )

    def ask(self, now: float, waiting: int, waiting_bytes: int = 0) -> Asked | None:
        """The next call, for *waiting* requests; None while one is under way."""
        if self._call is not None:
            return None
        limiter = self._limiter
        limits = limiter.counted_limits(now)
        wanted = min(waiting, 1 if limiter.goes_alone(now) else limiter.room(waiting_bytes))
        few = self._few(waiting, limits)
        kept_s = 0.0
        if few > wanted > 0 and not limiter.goes_alone(now):
            wanted = few
            kept_s = _KEPT * min((limit.window_s for limit in limits), default=REPORTED_EVERY_S)
        report = self._report(now)
        is_reported = "learned" in report
        self._call = _Call(now, wanted, kept_s, self._news, is_reported, limiter.refused_until)
        self._news = _News()
        is_first = self._row is None and not limits
        pairs = None if is_first else [[limit.requests, limit.window_s] for limit in limits]
        latency_s = _LATENCY_MARGIN * (limiter.in_flight_limit.latency_s or _FIRST_LATENCY_S)
        return Asked(wanted, pairs, latency_s + kept_s, report)

    def _few(self, waiting: int, limits: Sequence[Limit]) -> int:
        """How many of *waiting* a large limit grants at once, though they can't be sent at once."""
        sizes = [limit.requests for limit in limits]
        left = self._limiter.least_left()
        if left is not None and left.remaining is not None:
            sizes.append(left.remaining)
        return min(waiting, int(_AT_ONCE * min(sizes, default=0)))

    def granted(self, now: float, answer: Granted) -> None:
        """Takes in the answer to the call."""
        call, row = self._call, self._row
        assert call is not None
        self._call = self._lost_since = None
        if row is not None:
            self._limiter.others(max(0, answer.accepted - row.accepted - call.news.accepted))
        if not call.reports_learned and answer.learned != (row.learned if row else None):
            self._limiter.adopt(answer.learned)
        is_paused = answer.paused_s is not None
        is_closed = is_paused or (call.wanted > 0 and answer.granted == 0)
        closed_at = None
        if is_closed:
            closed_at = now if row is None or row.closed_at is None else row.closed_at
        self._row = _Row(
            now, answer.accepted, answer.learned, call.refused_until, closed_at, is_paused
        )
        if answer.paused_s:
            self._limiter.paused_elsewhere(now, answer.paused_s)
        self._hand.permits += answer.granted
        self._hand.until = now + max(call.kept_s, _SHORTEST_KEPT_S)
        self._hand.opens_at = now + answer.wait_s

    def lost(self, now: float, *, for_good: bool = False) -> None:
        """The call failed: the next one reports the same. `for_good`: it won't succeed later."""
        call = self._call
        assert call is not None
        self._call = None
        if self._lost_since is None:
            self._lost_since = -math.inf if for_good else now
        news = self._news
        news.accepted += call.news.accepted
        news.answered += call.news.answered
        news.returned += call.news.returned
        news.resumed = news.resumed or call.news.resumed
        news.left_sent_at = news.left_sent_at or call.news.left_sent_at

    def _report(self, now: float) -> dict[str, Any]:
        news, row, limiter = self._news, self._row, self._limiter
        report: dict[str, Any] = {}
        if news.accepted:
            report["accepted"] = news.accepted
        if news.answered:
            report["answered"] = news.answered
        if news.returned:
            report["returned"] = news.returned
        until = limiter.refused_until
        if until is not None and (row is None or until != row.refused_until):
            report["paused_s"] = max(0.0, until - now)
        elif news.resumed:
            report["resumed"] = True
        learned = limiter.learned_limit
        if row is not None and learned != row.learned:
            report["learned"] = learned and [learned.requests, learned.window_s]
        if news.left_sent_at is not None:
            report |= _left(limiter.least_left(), now)
            report["sent_age_s"] = now - news.left_sent_at
        return report


def _left(quota: AdvertisedLimit | None, now: float) -> dict[str, Any]:
    """What is left of an advertised quota, until when, and its window if that is known."""
    if quota is None:
        return {"remaining": None, "window": None}
    ends_at, length_s = quota.closed_until, quota.length_s
    left: dict[str, Any] = {"remaining": quota.remaining}
    left["reset_in_s"] = None if ends_at is None else ends_at - now
    if quota.limit and length_s:
        left["window"] = [quota.limit, length_s]
    elif quota.is_doubted:
        left["window"] = None
    return left
