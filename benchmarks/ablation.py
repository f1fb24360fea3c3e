"""What each part of the learned limit earns: simulated crawls without one part each.

    PYTHONPATH=. python benchmarks/ablation.py [VARIANT …]

Prints a row a variant and a cell a family of limiters: mean time over the ideal, worst; mean
refusals. The simulation is `tests/support/limiters.py`, in virtual time. Decision 18 holds the
table.
"""

from __future__ import annotations

import math
import statistics
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from limiters import Bucket, Counter, Fixed, Limiter, Punishing, Sliding, Stacked, crawl

from datasync_crawler.ratelimit import limiter as limiter_module
from datasync_crawler.ratelimit.learned import LearnedLimit
from datasync_crawler.ratelimit.limits import Limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Scenario:
    """A crawl of `pages` of a limiter; `ideal_s` where the limiter alone doesn't say it."""

    family: str
    style: str
    make: Callable[[], Limiter]
    pages: int
    ideal_s: float | None = None
    crawl: dict[str, Any] = field(default_factory=dict)


def scenarios() -> Iterator[Scenario]:  # noqa: C901  # a list
    for style in ("retry-after", "none"):
        for limit, window_s in ((10, 20.0), (50, 20.0), (5, 2.0), (100, 60.0), (3, 30.0)):
            pages = 6 * limit
            for make in (Fixed, partial(Fixed, grid=0.37 * window_s), Sliding):
                yield Scenario("windows", style, partial(make, limit, window_s), pages)
            yield Scenario("buckets", style, partial(Bucket, limit, window_s), pages)
        for make in (
            partial(Sliding, 30, 30.0),
            partial(Sliding, 10, 10.0),
            partial(Fixed, 10, 10.0),
        ):
            ideal_s = make().ideal_s(101)
            yield Scenario("one foreign", style, make, 100, ideal_s, {"foreign": [-3.0]})
        for kind in (Fixed, Sliding, Bucket):
            taken = {"foreign": [3.0 * number for number in range(80)]}
            yield Scenario("a third taken", style, partial(kind, 9, 9.0), 90, 135.0, taken)
        for block_s, how in ((20.0, "block"), (2.0, "anew"), (1.0, "doubling")):
            yield Scenario("punishing", style, partial(Punishing, 10, 2.0, block_s, how), 300)
        for kind in (Fixed, Bucket):
            ideal_s = kind(5, 2.0).ideal_s(400) + 60
            idle = {"idle": (5.0, 65.0)}
            yield Scenario("idle 60 s", style, partial(kind, 5, 2.0), 400, ideal_s, idle)
    for style in ("full", "retry-after", "none"):
        stacked = partial(stack, (5, 5.0), (30, 60.0))
        yield Scenario("two at once", style, stacked, 90, 145.0)
    for limit in (10, 100):
        yield Scenario("counter", "none", partial(Counter, limit, 10.0), 6 * limit)
    for rate, burst in ((2, 1), (1, 5), (10, 20)):
        make = partial(Bucket, burst, burst / rate)
        yield Scenario("limit_req, 503", "none", make, 120, None, {"refusal": 503})


def stack(first: tuple[int, float], second: tuple[int, float]) -> Stacked:
    return Stacked(Fixed(*first), Fixed(*second))


FAMILIES = list(dict.fromkeys(scenario.family for scenario in scenarios()))


class Evenly(LearnedLimit):
    def _first_estimate(self, cycle: Limit, at: float) -> Limit:
        return Limit(1, 1 / super()._first_estimate(cycle, at).rate_per_s)


class NoTrials(LearnedLimit):
    def wait_s(self, now: float, in_flight: int) -> float:
        return self.full_for_s(now, in_flight)


class NoConfirmation(LearnedLimit):
    @property
    def most_in_flight(self) -> float:
        return math.inf


class NeverAnew(LearnedLimit):
    def _corrected(self, before: Limit, cycle: Limit) -> Limit:
        self._early = 0
        return super()._corrected(before, cycle)


class AnewAtOnce(LearnedLimit):
    def _corrected(self, before: Limit, cycle: Limit) -> Limit:
        self._early = 1
        return super()._corrected(before, cycle)


class NoAverage(LearnedLimit):
    def _corrected(self, before: Limit, cycle: Limit) -> Limit:
        after = super()._corrected(before, cycle)
        return before if after.requests == before.requests else after


class NotSooner(LearnedLimit):
    def reopened(self, at: float) -> None:
        known = self.limit is not None
        super().reopened(at)
        if known:
            self._patience = max(self._patience, self._burst)


class IdleCounts(LearnedLimit):
    def sent(self, now: float, *, refused: bool) -> None:
        before = self._opened_at
        super().sent(now, refused=refused)
        self._opened_at = self._opened_at if before is None else before


class NoSplitting(LearnedLimit):
    def _first_estimate(self, cycle: Limit, at: float) -> Limit:
        super()._first_estimate(cycle, at)
        return cycle


class GiveWay(LearnedLimit):
    def _corrected(self, before: Limit, cycle: Limit) -> Limit:
        after = super()._corrected(before, cycle)
        oldest = self._times.last(before.requests)
        if after is before and oldest is not None and self._opened_at is not None:
            return Limit(before.requests, max(before.window_s, self._opened_at - oldest))
        return after


class OnePerInterval(LearnedLimit):
    def _corrected(self, before: Limit, cycle: Limit) -> Limit:
        after = super()._corrected(before, cycle)
        return Limit(1, 1 / cycle.rate_per_s) if after is cycle else after


class QuarterFirst(LearnedLimit):
    def _trial_window_s(self, window_s: float) -> float:
        return super()._trial_window_s(window_s) if self._too_short_s else window_s / 4


VARIANTS: dict[str, type[LearnedLimit]] = {
    "as it is": LearnedLimit,
    "evenly from the start, no burst": Evenly,
    "no trials": NoTrials,
    "no confirmation: all at once": NoConfirmation,
    "never learned anew": NeverAnew,
    "learned anew at the first early refusal": AnewAtOnce,
    "no correction by the average": NoAverage,
    "a low belief isn't tried sooner": NotSooner,
    "idle times count": IdleCounts,
    "no splitting of a flow": NoSplitting,
    "+ gives way by a longer window first": GiveWay,
    "+ learned anew as one per interval": OnePerInterval,
    "+ the first trial at a quarter": QuarterFirst,
}


def row(variant: type[LearnedLimit]) -> str:
    """The cells of one variant."""
    limiter_module.LearnedLimit = variant  # type: ignore[misc]
    shares: dict[str, list[float]] = {family: [] for family in FAMILIES}
    refusals: dict[str, list[int]] = {family: [] for family in FAMILIES}
    for scenario in scenarios():
        for seed in (1, 2):
            limiter = scenario.make()
            done = crawl(limiter, scenario.style, pages=scenario.pages, seed=seed, **scenario.crawl)
            ideal_s = scenario.ideal_s or limiter.ideal_s(scenario.pages)
            shares[scenario.family].append(done.seconds / ideal_s)
            refusals[scenario.family].append(len(done.refusals))
    return " | ".join(
        f"{statistics.fmean(shares[family]):.2f}, {max(shares[family]):.1f};"
        f" {statistics.fmean(refusals[family]):.0f}"
        for family in FAMILIES
    )


def main() -> int:
    """Prints the table."""
    print("| | " + " | ".join(FAMILIES) + " |")
    print("|---|" + "---|" * len(FAMILIES))
    for name, variant in VARIANTS.items():
        if not sys.argv[1:] or name in sys.argv[1:]:
            print(f"| {name} | {row(variant)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
