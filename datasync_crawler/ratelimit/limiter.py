"""The rate limiter: decides whether a request may be sent now, and if not, when to ask again.

Owns the order of the checks: pause, probe, requests in flight, then every known limit: stated by
the user, advertised by the server, learned from 429s. All of them apply; the longest wait decides.

All `now` are monotonic seconds; `wall` is epoch seconds, for dates where an answer has none.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from datasync_crawler.ratelimit.advertised import AdvertisedLimit, AdvertisedLimits
from datasync_crawler.ratelimit.clock import ServerClock
from datasync_crawler.ratelimit.decisions import Budget, Decision, Outcome, Reason
from datasync_crawler.ratelimit.headers import LONGEST_S, RateLimitInfo, read_info
from datasync_crawler.ratelimit.in_flight import InFlightLimit
from datasync_crawler.ratelimit.learned import LearnedLimit
from datasync_crawler.ratelimit.limits import CountedTimes, Limit
from datasync_crawler.ratelimit.messages import Messages
from datasync_crawler.ratelimit.probe import Probe
from datasync_crawler.ratelimit.refusals import Refusals
from datasync_crawler.ratelimit.stated import StatedLimits

# A shorter wait may be below the clock's resolution, and the caller would spin.
_SHORTEST_WAIT_S: Final = 0.001
# The wait where only an answer can change the decision.
_ASK_AGAIN_S: Final = 1.0
# Request times kept for the next run, at most.
_MOST_REMEMBERED_TIMES: Final = 1_000
_REMEMBERED: Final = "remembered from the last run"
_ELSEWHERE: Final = "another process with this key was refused"
# Ends of pauses that are nearer to each other are one pause's.
_SAME_PAUSE_S: Final = 0.1


class Limiter:
    """One per API key. `limits`: stated by the user; `share`: our part of each limit."""

    def __init__(
        self,
        *,
        in_flight_limit: InFlightLimit,
        max_wait_s: float,
        random: Callable[[], float],
        limits: Iterable[Limit] = (),
        share: float = 1.0,
    ) -> None:
        self.in_flight = 0
        self.in_flight_limit = in_flight_limit
        self._times = CountedTimes()
        self._stated = StatedLimits(limits, share, self._times)
        self._advertised = AdvertisedLimits(self._times)
        self._learned = LearnedLimit(self._times)
        self._learned_from: int | None = None  # the limit that the 429 stated
        self._refusals = Refusals(random)
        self._probe = Probe()
        self._clock = ServerClock()
        self._messages = Messages()
        self._max_wait_s = max_wait_s

    # --- sending ---------------------------------------------------------------------------------

    def try_acquire(self, now: float, waiting_bytes: int = 0) -> Decision:
        """`check`, and `sent` if the request may go."""
        decision = self.check(now, waiting_bytes)
        if decision.delay_s == 0:
            self.sent(now)
        return decision

    def check(self, now: float, waiting_bytes: int = 0, *, by_advertised: bool = True) -> Decision:
        """Whether the caller may send a request now, any of those that wait.

        `waiting_bytes`: bytes of bodies that wait to be stored; `by_advertised`: False where the
        shared row keeps what is left of advertised quotas.
        """
        if now < self._refusals.paused_until:
            return _wait(self._refusals.paused_until - now, "pause")
        if self._probe.is_awaited(now):
            return Decision(_ASK_AGAIN_S, "probe")
        if self.room(waiting_bytes) == 0:
            return Decision(_ASK_AGAIN_S, "in flight")
        limits_s = self._limits_wait_s(now, by_advertised=by_advertised)
        wait_s = max(limits_s, self._learned.wait_s(now, self.in_flight))
        return _wait(wait_s, "limit") if wait_s > 0 else Decision(0.0, "")

    def sent(self, now: float) -> None:
        """Counts a request that `check` has let go."""
        self._probe.sent(now, alone=self._is_alone(now))
        self._learned.sent(now, self.in_flight, refused=self._refusals.teaches)
        self._stated.sent(now)
        self.in_flight += 1
        self.in_flight_limit.sent(self.in_flight)

    def room(self, waiting_bytes: int = 0) -> int:
        """How many more requests may be in flight."""
        most = min(self._learned.most_in_flight, self.in_flight_limit.limit(waiting_bytes))
        return max(0, int(most) - self.in_flight)

    def goes_alone(self, now: float) -> bool:
        """Whether the next request is a probe or a trial."""
        return self._probe.is_due or self._is_alone(now)

    def _is_alone(self, now: float) -> bool:
        is_trial = self._learned.full_for_s(now) > 0
        return is_trial or self._advertised.is_over(self.in_flight)

    def cancelled(self, sent_at: float) -> None:
        """Returns an unused permit; `sent_at`: the `now` of the `try_acquire` that gave it."""
        self._landed()
        self._probe.ended(sent_at)

    def _limits_wait_s(self, now: float, *, by_advertised: bool = True) -> float:
        """Seconds to wait by the stated and advertised limits."""
        stated_s = self._stated.wait_s(now, self.in_flight, self._by_server())
        return max(stated_s, self._advertised.wait_s(now, self.in_flight) if by_advertised else 0.0)

    def _by_server(self) -> Iterator[Limit]:
        yield from self._advertised.per_window()
        if self._learned.limit is not None:
            yield self._learned.limit

    # --- answers ---------------------------------------------------------------------------------

    def answered(
        self,
        now: float,
        wall: float,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        sent_at: float,
    ) -> Outcome:
        """Takes in an answer. `headers` have lower-case names; `sent_at`: the `now` of the
        `try_acquire` that let its request go.
        """
        epoch_s = self._clock.epoch_s(now, wall, headers.get("date"), sent_at=sent_at)
        info = read_info(status, headers, body, server_epoch_s=epoch_s)
        if info.concurrency is not None:
            self.in_flight_limit.by_server = max(1, info.concurrency)
        messages = self._messages.nonsense(info.nonsense)
        probe = self._probe.ended(sent_at)
        if self._refusals.is_limits(now, sent_at, status, info, probe=probe):
            messages += self._limited(now, sent_at, status, info, probe=probe)
            self._landed()
            return Outcome("limited", tuple(messages))
        self._landed()
        if info.quotas or (probe and status < 400):
            messages += self._advertise(info, now=now, sent_at=sent_at, probe=probe)
        if status >= 500:
            if probe:
                self._probe_failed(now, f"HTTP {status}")
            return Outcome("failed", tuple(messages))
        if status == 200:
            self.in_flight_limit.answered(now - sent_at, len(body))
        messages += self._let_through(now, sent_at, probe=probe)
        return Outcome("unauthorized" if status in {401, 403} else "ok", tuple(messages))

    def failed(self, now: float, sent_at: float) -> None:
        """Takes in that no answer came: reset, time-out, cancelled."""
        self._landed()
        if self._probe.ended(sent_at):
            self._probe_failed(now, "no answer")

    def _landed(self) -> None:
        if self.in_flight == 0:
            raise RuntimeError("an answer to a request that wasn't sent: call try_acquire() first")
        self.in_flight -= 1

    def _limited(
        self, now: float, sent_at: float, status: int, info: RateLimitInfo, *, probe: bool
    ) -> list[str]:
        """Pauses all requests. The limit that was exceeded is advertised, or has to be learned."""
        is_advertised = self._advertised.explain(info, now, self.in_flight - 1)
        if is_advertised and probe and self._refusals.count == 0:
            self._advertised.mistaken(info)
        messages = self._advertise(info, now=now, sent_at=sent_at, probe=probe, refused=True)
        known_s, learned = self._learned.full_for_s(now), self._learned.limit
        window_s = learned.window_s if learned else 0.0
        wait_s = self._refusals.limited(now, sent_at, info, known_s, window_s)
        if not is_advertised:
            self._learned.refused()
            self._learned_from = info.spent.limit if info.spent else None
            self._refusals.teaches = True
        self._probe.is_due = True
        why = info.source or "no retry time given"
        self._refusals.pause(now, now + wait_s, f"HTTP {status}, {why}")
        return messages

    def _probe_failed(self, now: float, why: str) -> None:
        wait_s = self._refusals.probe_failed(now)
        self._probe.is_due = True
        self._refusals.pause(now, now + wait_s, f"probe failed: {why}")

    def _let_through(self, now: float, sent_at: float, *, probe: bool) -> list[str]:
        refusals = self._refusals
        messages: list[str] = []
        if probe and refusals.teaches:
            due_at = refusals.paused_until if refusals.opens_at is None else refusals.opens_at
            self._learned.reopened(min(due_at, sent_at))
            messages = self._messages.learned(self._learned.limit)
        self._times.add(now)
        self._learned.accepted()
        if probe:
            refusals.over()
            self._probe.is_due = False
        return messages

    def _advertise(
        self, info: RateLimitInfo, *, now: float, sent_at: float, probe: bool, refused: bool = False
    ) -> list[str]:
        before = self._advertised.slowest
        limit_before = before.limit if before else None
        self._advertised.learn(info, now=now, sent_at=sent_at, probe=probe, refused=refused)
        after = self._advertised.slowest
        if after is None:
            return []
        if not refused and self._learned_from is not None and self._learned_from == after.limit:
            # The learned limit is the advertised one, which had been lowered.
            self._learned = LearnedLimit(self._times)
            self._learned_from = None
        return self._messages.advertised(
            limit_before, after.limit, after.per_window, self._advertised.source
        )

    # --- other processes with the same key (`shared`) -------------------------------------------

    def counted_limits(self, now: float) -> list[Limit]:
        """The limits for which requests are counted, those of other processes too."""
        learned = self._learned.in_force(now, self.in_flight)
        limits = [*self._stated.limits, *self._advertised.policies.values()]
        limits += [learned] if learned else []
        return limits + self._stated.spacing(self._by_server(), self.in_flight_limit.latency_s)

    def least_left(self) -> AdvertisedLimit | None:
        """The advertised quota with the least left."""
        return self._advertised.least

    def is_limited(self, now: float) -> bool:
        """Whether a limit is known, or a refusal not yet over."""
        return (
            self._refusals.count > 0
            or self._advertised.least is not None
            or bool(self.counted_limits(now))
        )

    @property
    def refused_until(self) -> float | None:
        """The end of the pause after a refusal, until a request has succeeded; else None."""
        return self._refusals.paused_until if self._refusals.count else None

    def others(self, accepted: int) -> None:
        """Takes in that other processes have had so many requests accepted."""
        self._learned.accepted_elsewhere(accepted)

    def adopt(self, learned: Limit | None) -> None:
        """Takes over the limit that another process has learned, or that it isn't one any more."""
        if learned is None:
            self._learned = LearnedLimit(self._times)
        else:
            self._learned.start_from(learned)

    def paused_elsewhere(self, now: float, for_s: float) -> None:
        """Takes in the pause that another process has met."""
        if now + for_s > self._refusals.paused_until + _SAME_PAUSE_S:
            self._refusals.pause(now, now + for_s, _ELSEWHERE)

    # --- state -----------------------------------------------------------------------------------

    def budget(self, now: float) -> Budget | None:
        """The budget by the limit with the lowest rate; None if no limit is known."""
        counted = [(limit, "RATE_LIMIT") for limit in self._stated.limits]
        if self._learned.limit is not None:
            counted.append((self._learned.limit, "learned from refusals"))
        limit, source = min(counted, key=lambda c: c[0].rate_per_s, default=(None, ""))
        slowest = self._advertised.slowest
        if slowest is not None and slowest.remaining is not None:
            per_window = slowest.per_window
            if limit is None or (per_window and per_window.rate_per_s <= limit.rate_per_s):
                return self._advertised_budget(slowest, slowest.remaining, now)
        if limit is None:
            return None
        ours = self._stated.ours(limit.requests)
        used = self._times.count_since(now - limit.window_s) + self.in_flight
        wait_s = self._times.wait_s(limit, now, self.in_flight)
        return Budget(ours, max(0, ours - used), wait_s, limit.window_s, source)

    def _advertised_budget(self, limit: AdvertisedLimit, remaining: int, now: float) -> Budget:
        ours = None if limit.limit is None else self._stated.ours(limit.limit)
        left = max(0, remaining - self.in_flight)
        return Budget(
            limit=ours,
            remaining=left if ours is None else min(left, ours),
            reset_in_s=None if limit.closed_until is None else max(0.0, limit.closed_until - now),
            window_s=limit.per_window.window_s if limit.per_window else None,
            source=self._advertised.source,
        )

    @property
    def pause_reason(self) -> str:
        """Why all requests pause; empty when they don't."""
        return self._refusals.reason

    @property
    def learned_limit(self) -> Limit | None:
        """The limit learned from 429s and the like."""
        return self._learned.limit

    def paused_for_s(self, now: float) -> float:
        """Seconds until a pause and all limits let a request through."""
        return max(
            0.0,
            self._refusals.paused_until - now,
            self._limits_wait_s(now),
            self._learned.full_for_s(now, self.in_flight),
        )

    def refused_for_s(self, now: float) -> float:
        """Seconds since the first 429 (or the like) after the last success."""
        return self._refusals.lasted_s(now)

    def waits_too_long(self, now: float, elsewhere_s: float = 0.0) -> float | None:
        """The wait that is left, when it exceeds `max_wait_s` together with `refused_for_s`; else
        None. `elsewhere_s`: the wait by other processes' requests.
        """
        wait_s = max(self.paused_for_s(now), elsewhere_s)
        if wait_s > 0 and self._refusals.lasted_s(now) + wait_s > self._max_wait_s:
            return wait_s
        return None

    # --- over a restart --------------------------------------------------------------------------

    def snapshot(self, now: float) -> dict[str, object]:
        """The state for the next run, without the pause (`paused_for_s`), as JSON values.

        Requests in flight count as let through: a killed process doesn't get their answers.
        """
        limit = self._learned.limit
        limits = [*self._stated.limits, *self._by_server()]
        window_s = max((limit.window_s for limit in limits), default=0.0)
        ages_s = self._times.ages_s(now, younger_than_s=window_s, most=_MOST_REMEMBERED_TIMES)
        return {
            "limit": None if limit is None else limit.requests,
            "window_s": None if limit is None else limit.window_s,
            "ages_s": [round(age_s, 3) for age_s in ages_s] + [0.0] * self.in_flight,
            "reason": self._refusals.reason,
        }

    def restore(
        self, now: float, data: Mapping[str, object], *, age_s: float, paused_for_s: float
    ) -> tuple[str, ...]:
        """Restores a `snapshot` of `age_s` ago, and the pause; returns log messages.

        Invalid values are ignored: the limits are learned again.
        """
        limit, window_s = _number(data.get("limit")), _number(data.get("window_s"))
        if limit is not None and window_s is not None and 1 <= limit < 1e9 and window_s > 0:
            self._learned.start_from(Limit(int(limit), window_s))
        listed = data.get("ages_s")
        ages = map(_number, listed if isinstance(listed, list) else [])
        self._times.restore(now, [age + age_s for age in ages if age is not None and age >= 0])
        if 0 < paused_for_s <= LONGEST_S:
            reason = str(data.get("reason") or _REMEMBERED)
            self._refusals.pause(now, now + paused_for_s, reason)
        return tuple(self._messages.learned(self._learned.limit))


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < LONGEST_S else None  # type: ignore[arg-type]


def _wait(delay_s: float, reason: Reason) -> Decision:
    return Decision(max(delay_s, _SHORTEST_WAIT_S), reason)
