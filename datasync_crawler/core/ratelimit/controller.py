"""The one authority on sending: may a request go out now, and if not, when to ask again.

Owns requests in flight, pauses and probes, and puts `Window` (what the headers tell) and
`Allowance` (what is found by trying) together. It doesn't sleep, log or send: decisions are
returned.

All `now` are monotonic seconds; `wall` is epoch seconds, used for HTTP dates when the answer
has no Date of its own, and for what is remembered over a restart.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from datasync_crawler.core.backoff import delay_s
from datasync_crawler.core.ratelimit.allowance import Allowance
from datasync_crawler.core.ratelimit.clock import ServerClock
from datasync_crawler.core.ratelimit.headers import Advice, read_advice
from datasync_crawler.core.ratelimit.remembered import ages_s, number, seconds_until
from datasync_crawler.core.ratelimit.window import Window

# In flight while nothing is known that limits, and how far that may grow by itself.
_FIRST_IN_FLIGHT = 8
_MOST_IN_FLIGHT = 64
# A 429 is never answered at once, whatever Retry-After says; longer when it says so again. Not
# longer than this: who says 1 s fifty times may mean it, and growth would cost an hour.
_SHORTEST_PAUSE_S = 0.25
_LONGEST_FLOOR_S = 0.5
# Refused without a word on when to come back: 1 s, growing by a third, at most a minute.
_BLIND_PAUSE_S = 1.0
_BLIND_SHARE = 0.35
_LONGEST_BLIND_PAUSE_S = 60.0
# Below what clocks tell apart, the caller would ask again at the same moment for ever.
_SHORTEST_WAIT_S = 0.001
# What waits for an answer, not for a time, is told to ask again after this at the latest.
_ASK_AGAIN_S = 1.0
# Told when to come back and refused again then, so many times in a row: it was no window's end.
_MISLED = 3
# A probe that hangs may do so for the download's whole time-out: after this another one goes.
_PROBE_PATIENCE_S = 10.0
_REMEMBERED = "remembered from the run before"
# After a window's end, for the answers of requests that may have gone into either.
_STRAGGLERS_S = 2.0

Kind = Literal["ok", "limited", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Decision:
    """May it go out? `delay_s` 0.0: yes, and it is counted as sent."""

    delay_s: float
    reason: str  # "" | "in flight" | "probe" | "pause" | "budget" | "pace"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an answer meant: ok, limited (wait, no retry is used up), refused (401 and 403: the
    key), failed (5xx).
    """

    kind: Kind
    pause_s: float = 0.0  # all requests wait this long from now


@dataclass(frozen=True, slots=True)
class Budget:
    """What the server lets through in the present window, as far as it has told."""

    limit: int | None
    remaining: int
    reset_in_s: float | None
    learnt_from: str


class RateController:
    """One for each API key. `max_in_flight` None: grows by itself; it may be set at any time."""

    def __init__(
        self, *, max_in_flight: int | None, max_wait_s: float, random: Callable[[], float]
    ) -> None:
        self.max_in_flight = max_in_flight
        self.max_wait_s = max_wait_s
        self.in_flight = 0
        self.pause_reason = ""
        self._random = random
        self._window = Window()
        self._allowance = Allowance()
        self._grown_in_flight = float(_FIRST_IN_FLIGHT)
        self._paused_until = -math.inf
        self._paused_at = -math.inf
        self._refusals = 0  # pauses in a row that didn't end in a success
        self._refused_since = 0.0  # the first of those
        self._refused = False  # by a 429, in the pause that isn't over yet
        self._opens_at: float | None = None  # its end, when the server said it
        self._unproven = True  # the next request goes alone; so does the first of all
        self._probe_sent_at: float | None = None
        self._server_clock = ServerClock()
        self._notes: list[str] = []
        self._noted: set[str] = set()

    # Asking

    def ask(self, now: float) -> Decision:
        """For each waiting request, at the moment of sending; whose turn it is, is the caller's."""
        if now < self._paused_until:
            return _wait(self._paused_until - now, "pause")
        probe_hangs = self._probe_sent_at is not None
        if self._probe_sent_at is not None and now < self._probe_sent_at + _PROBE_PATIENCE_S:
            return Decision(_ASK_AGAIN_S, "probe")
        untold = self._window.remaining is None
        most = self._allowance.most_in_flight if untold else math.inf
        if self.in_flight >= min(most, self.in_flight_limit):
            return Decision(_ASK_AGAIN_S, "in flight")
        wait_s = self._budget_wait_s(now)
        if wait_s > 0:
            return _wait(wait_s, "budget")
        wait_s = self._allowance.delay_s(now, self.in_flight) if untold else 0.0
        if wait_s > 0:
            return _wait(wait_s, "pace")
        first_of_turn = self._allowance.goes_alone(now) if untold else self._window_is_over(now)
        if self._unproven or first_of_turn or probe_hangs:
            self._probe_sent_at = now
        self.in_flight += 1
        self._allowance.sent(now)
        return Decision(0.0, "")

    def sent_nothing(self, now: float, *, sent_at: float | None = None) -> None:
        """A permit wasn't used: the request was cancelled before it went out. `sent_at` as for
        `answered`.
        """
        self._landed()
        if self._is_probe(now if sent_at is None else sent_at):
            self._probe_sent_at = None

    def _is_probe(self, sent_at: float) -> bool:
        return self._probe_sent_at is not None and sent_at >= self._probe_sent_at

    @property
    def in_flight_limit(self) -> int:
        """Requests in flight at most, now."""
        if self.max_in_flight is not None:
            return max(1, self.max_in_flight)
        return int(self._grown_in_flight)

    def _budget_wait_s(self, now: float) -> float:
        window = self._window
        if window.remaining is None or window.remaining > self.in_flight:
            return 0.0
        closed_until = self._closed_until()
        if closed_until is None:
            return _ASK_AGAIN_S
        # What is left may be spent by those in flight: their answers tell, soon.
        grace_s = _STRAGGLERS_S if window.remaining > 0 else 0.0
        return max(0.0, closed_until + grace_s - now)

    def _closed_until(self) -> float | None:
        """The end of the window, or when enough of our own requests have left it, if sooner."""
        closed_until, length_s = self._window.closed_until, self._window.length_s
        if closed_until is None or length_s is None or self._window.limit is None:
            return closed_until
        opens_at = self._allowance.opens_at(self._window.limit - self.in_flight, length_s)
        return closed_until if opens_at is None else min(closed_until, opens_at)

    def _window_is_over(self, now: float) -> bool:
        """Budget spent and its window past: what the next one holds, a probe has to tell."""
        window = self._window
        return (
            window.remaining is not None
            and window.remaining <= self.in_flight
            and window.closed_until is not None
        )

    # Being told

    def answered(
        self,
        now: float,
        wall: float,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        sent_at: float | None = None,
    ) -> Outcome:
        """An answer has come. `headers` have lower-case names; `body` matters for 429 and 503.

        `sent_at`: the `now` of the `ask` that let this request go. It tells a probe's answer
        from a straggler's; without it, an answer is taken for the probe's.
        """
        self._landed()
        sent = now if sent_at is None else sent_at
        epoch_s = self._server_clock.epoch_s(now, wall, headers.get("date"), sent_at=sent)
        advice = read_advice(status, headers, body, server_epoch_s=epoch_s)
        self._note_nonsense(advice)
        probe = self._is_probe(sent)
        if probe:
            self._probe_sent_at = None
        if status == 429 or (status == 503 and advice.retry_after_s is not None):
            return self._limited(now, sent, status, advice, probe=probe)
        if advice.tells_budget:
            self._learn(advice, now=now, sent=sent, probe=probe)
        elif probe and status < 400:
            self._window.forget()
        if status >= 500:
            return Outcome("failed", self._probe_failed(now, f"HTTP {status}") if probe else 0.0)
        self._let_through(now, sent, probe=probe)
        return Outcome("refused" if status in {401, 403} else "ok")

    def failed(self, now: float, *, sent_at: float | None = None) -> None:
        """No answer came: reset, time-out, cancelled on the way. `sent_at` as for `answered`."""
        self._landed()
        sent = now if sent_at is None else sent_at
        if self._is_probe(sent):
            self._probe_sent_at = None
            self._probe_failed(now, "no answer")

    def _landed(self) -> None:
        if self.in_flight == 0:
            raise RuntimeError("an answer to a request that was never let go: call ask() first")
        self.in_flight -= 1

    def _limited(
        self, now: float, sent: float, status: int, advice: Advice, *, probe: bool
    ) -> Outcome:
        """Pause all. Refusals of one burst are one pause."""
        same_burst = sent <= self._paused_at
        if not same_burst:
            self._refusals += 1
        if self._refusals == 1:
            self._refused_since = now
        wait_s, why = self._pause_length(now, advice)
        if status == 429:
            self._learn_from_refusal(now, sent, advice, probe=probe)
        self._refused, self._unproven = self._refused or status == 429, True
        self._pause(now, now + wait_s, f"HTTP {status}, {why}", quiet=same_burst)
        return Outcome("limited", max(0.0, self._paused_until - now))

    def _learn_from_refusal(self, now: float, sent: float, advice: Advice, *, probe: bool) -> None:
        """A 429 to a probe: the window's end was guessed wrongly. Any: what went through before
        it was all, and it is closed until then.
        """
        if probe and self._window.closed_until is not None and self._refusals == 1:
            self._window.cautious = True
        if advice.tells_budget:
            self._learn(advice, now=now, sent=sent, probe=probe, refused=True)
        said_s = advice.retry_after_s if advice.reset_in_s is None else advice.reset_in_s
        # Said in whole seconds, rounded up: it's closed for all but the last second of them.
        still_closed = now if said_s is None else now + max(0.0, said_s - 1.0)
        self._allowance.refused(now, still_closed)
        self._opens_at = None if said_s is None else now + said_s

    def _pause_length(self, now: float, advice: Advice) -> tuple[float, str]:
        """How long to wait after a refusal, and who says so."""
        floor_s = _SHORTEST_PAUSE_S if self._refusals < 2 else _LONGEST_FLOOR_S
        if advice.retry_after_s is not None:
            return max(floor_s, advice.retry_after_s), advice.learnt_from
        if advice.reset_in_s is not None:
            return max(floor_s, advice.reset_in_s), advice.learnt_from
        # A share of what we have waited already: the window's end is missed by that share at most.
        wait_s = max(_BLIND_PAUSE_S, _BLIND_SHARE * (now - self._refused_since))
        wait_s = min(wait_s, _LONGEST_BLIND_PAUSE_S) * (1.0 + 0.1 * self._random())
        known_s = self._allowance.full_for_s(now)
        return max(wait_s, known_s), "without a word on when to come back"

    def _probe_failed(self, now: float, why: str) -> float:
        """A probe that didn't get through proves nothing: wait, then send another."""
        self._refusals += 1
        if self._refusals == 1:
            self._refused_since = now
        self._unproven = True
        wait_s = delay_s(self._refusals, base_s=0.5, cap_s=10.0, random=self._random)
        self._pause(now, now + wait_s, f"probe failed: {why}", quiet=self._refusals > 1)
        return wait_s

    def _pause(self, now: float, until: float, why: str, *, quiet: bool) -> None:
        if until <= self._paused_until:
            return
        self._paused_at, self._paused_until, self.pause_reason = now, until, why
        if not quiet:
            self._notes.append(f"Pause of {until - now:.1f} s for all requests ({why})")

    def _let_through(self, now: float, sent: float, *, probe: bool) -> None:
        """The server took it."""
        if probe and self._refused and self._window.remaining is None:
            self._allowance.reopened(
                sent,
                self._paused_until if self._opens_at is None else self._opens_at,
                misled=self._opens_at is not None and self._refusals >= _MISLED,
            )
        self._allowance.accepted(now, alone=probe)
        grown = self._grown_in_flight + 1 / self._grown_in_flight
        self._grown_in_flight = min(grown, _MOST_IN_FLIGHT)
        if probe:
            if self.pause_reason:
                lasted_s = now - self._refused_since
                self._notes.append(f"The API answers again after {lasted_s:.1f} s: going on")
            self._unproven, self._refused, self._refusals = False, False, 0
            self.pause_reason = ""

    def _learn(
        self, advice: Advice, *, now: float, sent: float, probe: bool, refused: bool = False
    ) -> None:
        before = self._window.limit
        self._window.learn(advice, now=now, sent_at=sent, probe=probe, refused=refused)
        if self._window.limit not in {None, before}:
            what = "learnt" if before is None else f"changed, was {before}"
            self._notes.append(
                f"Limit {what}: {self._window.limit} requests a window ({advice.learnt_from})"
            )

    def _note_nonsense(self, advice: Advice) -> None:
        new = [said for said in advice.nonsense if said.partition(":")[0] not in self._noted]
        if new:
            self._noted.update(said.partition(":")[0] for said in new)
            self._notes.append(f"Ignored, makes no sense: {'; '.join(new)}")

    # Looking

    def budget(self, now: float) -> Budget | None:
        """What is known of the present window; None: the server doesn't tell."""
        window = self._window
        if window.remaining is None:
            return None
        until = window.closed_until
        return Budget(
            limit=window.limit,
            remaining=max(0, window.remaining - self.in_flight),
            reset_in_s=None if until is None else max(0.0, until - now),
            learnt_from=window.learnt_from,
        )

    @property
    def rate_per_s(self) -> float | None:
        """The pace in requests per second, where it had to be found by trying."""
        found = self._allowance.limit
        return None if found is None else found / self._allowance.window_s

    def paused_for_s(self, now: float) -> float:
        """How long everything still waits: for a pause, the next window or what was found by
        trying; 0.0: it doesn't.
        """
        return max(0.0, self._paused_until - now, self._budget_wait_s(now), self._pace_wait_s(now))

    def _pace_wait_s(self, now: float) -> float:
        untold = self._window.remaining is None
        return self._allowance.full_for_s(now, self.in_flight) if untold else 0.0

    def wait_too_long(self, now: float) -> float | None:
        """The wait, when it is longer than `max_wait_s`."""
        wait_s = self.paused_for_s(now)
        return wait_s if wait_s > self.max_wait_s else None

    def take_notes(self) -> tuple[str, ...]:
        """The log lines since the last call."""
        notes, self._notes = tuple(self._notes), []
        return notes

    # Remembering

    def snapshot(self, now: float, wall: float) -> dict[str, object]:
        """What the next run should know, as JSON-able values; times are epoch seconds."""
        closed_until = self._window.closed_until
        budget = self.budget(now)
        paused_s = max(self._paused_until - now, self._pace_wait_s(now))
        ages = self._allowance.ages_s(now, self.in_flight)
        return {
            "paused_until": wall + paused_s if paused_s > 0 else None,
            "pause_reason": self.pause_reason,
            "limit": self._window.limit,
            "remaining": None if budget is None else budget.remaining,
            "closed_until": None if closed_until is None else wall + closed_until - now,
            "cautious": self._window.cautious,
            "found_limit": self._allowance.proven,
            "found_window_s": self._allowance.proven_window_s,
            "let_through_at": [round(wall - age_s, 3) for age_s in ages],
        }

    def restore(self, now: float, wall: float, data: Mapping[str, object]) -> None:
        """Take up what `snapshot` wrote. What makes no sense is left out: the API tells anew."""
        closed_s = seconds_until(data.get("closed_until"), wall)
        if closed_s is not None and data.get("remaining") == 0:
            self._window.remaining, self._window.closed_until = 0, now + closed_s
            self._window.learnt_from = _REMEMBERED
        paused_s = seconds_until(data.get("paused_until"), wall)
        if paused_s is not None:
            self._refused_since = now
            why = str(data.get("pause_reason") or _REMEMBERED)
            self._pause(now, now + paused_s, why, quiet=False)
        self._window.cautious = data.get("cautious") is True
        limit, window_s = number(data.get("found_limit")), number(data.get("found_window_s"))
        if limit is not None and window_s is not None and 1 <= limit < 1e9 and window_s > 0:
            self._allowance.believe(int(limit), window_s)
            self._allowance.remember(now, ages_s(data.get("let_through_at"), wall))


def _wait(delay_s: float, reason: str) -> Decision:
    return Decision(max(delay_s, _SHORTEST_WAIT_S), reason)
