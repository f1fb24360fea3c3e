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
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from limiters import Bucket, Counter, Fixed, Limiter, Punishing, Sliding, Stacked, crawl

from datasync_crawler.ratelimit import learned, limiter, refusals
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


def scenarios() -> Iterator[Scenario]:  # noqa: C901, PLR0912  # a list
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
            taken = {"foreign": every(3.0)}
            yield Scenario("a third taken", style, partial(kind, 9, 9.0), 90, 135.0, taken)
        for block_s, how in ((20.0, "block"), (2.0, "anew"), (1.0, "doubling")):
            yield Scenario("punishing", style, partial(Punishing, 10, 2.0, block_s, how), 300)
        for kind in (Fixed, Bucket):
            ideal_s = kind(5, 2.0).ideal_s(400) + 60
            idle = {"idle": (5.0, 65.0)}
            yield Scenario("idle 60 s", style, partial(kind, 5, 2.0), 400, ideal_s, idle)
    for style in ("full", "retry-after", "none"):
        yield Scenario("two at once", style, partial(stack, (5, 5.0), (30, 60.0)), 90, 145.0)
        yield Scenario("two at once", style, partial(stack, (10, 10.0), (30, 40.0)), 60, 60.0)
    for phase_s in (0.0, 3.4, 6.8):
        for limit, pages in ((10, 30), (10, 60), (100, 600)):
            yield Scenario("counter", "none", partial(Counter, limit, 10.0, phase_s), pages)
        make, taken = partial(Counter, 10, 10.0, phase_s), {"foreign": every(3.0)}
        yield Scenario("counter, a third taken", "none", make, 30, 29 * 1.5, taken)
    for rate, burst in ((2, 1), (1, 5), (10, 20)):
        make = partial(Bucket, burst, burst / rate)
        yield Scenario("limit_req, 503", "none", make, 120, None, {"refusal": 503})
        shrinks = {"changes": [(10 * burst / rate, partial(set_window, burst / rate / 10))]}
        ideal_s = 10 * burst / rate + 90 * burst * burst / rate / 10 / burst
        make = partial(Fixed, burst, burst / rate)
        yield Scenario("window shrinks", "retry-after", make, 100 * burst, ideal_s, shrinks)
    for refusal in (429, 503):
        for pages in (30, 120):
            taken = {"refusal": refusal, "foreign": every(3.0)}
            make, ideal_s = partial(Bucket, 1, 1.0), (pages - 1) * 1.5
            yield Scenario("limit_req, a third taken", "none", make, pages, ideal_s, taken)


def every(seconds: float) -> list[float]:
    """When another client sends its requests."""
    return [seconds * number for number in range(400)]


def set_window(window_s: float, server: Limiter) -> None:
    server.window_s = window_s  # type: ignore[misc]


def stack(first: tuple[int, float], second: tuple[int, float]) -> Stacked:
    return Stacked(Fixed(*first), Fixed(*second))


FAMILIES = list(dict.fromkeys(scenario.family for scenario in scenarios()))


class Evenly(LearnedLimit):
    def _first(self, cycle: Limit, at: float) -> Limit:
        return Limit(1, 1 / super()._first(cycle, at).rate_per_s)


class NoTrials(LearnedLimit):
    def in_force(self, now: float, in_flight: int) -> Limit | None:
        return self.limit


class NoConfirmation(LearnedLimit):
    @property
    def most_in_flight(self) -> float:
        return math.inf


class SameBurst(LearnedLimit):
    def reopened(self, at: float) -> None:
        before = self.limit
        super().reopened(at)
        if before and self.limit and self.limit.requests < before.requests:
            self.limit = before


class IdleCounts(LearnedLimit):
    def sent(self, now: float, in_flight: int, *, refused: bool) -> None:
        before = self._opened_at
        super().sent(now, in_flight, refused=refused)
        self._opened_at = self._opened_at if before is None else before


class NoSplitting(LearnedLimit):
    def _first(self, cycle: Limit, at: float) -> Limit:
        super()._first(cycle, at)
        return cycle


#: A class, or a constant and the value that leaves it out.
VARIANTS: dict[str, type[LearnedLimit] | tuple[Any, str, float]] = {
    "as it is": LearnedLimit,
    "evenly from the start, no burst": Evenly,
    "no trials": NoTrials,
    "no confirmation: all at once": NoConfirmation,
    "bursts don't shrink": SameBurst,
    "idle times count": IdleCounts,
    "no splitting of a flow": NoSplitting,
    "a rate over any number of requests": (learned, "_ENOUGH", 1),
    "refused trials don't ask for patience": (learned, "_MOST_PATIENCE", 1),
    "no trial soon after a much lower rate": (learned, "_DOUBTFUL", 0.0),
    "a known window isn't tried further": (learned, "_KNOWN_WELL", 0.0),
    "a known window is tried at half": (learned, "_SHORTER", 0.0),
    "pauses don't depend on the window": (refusals, "_SHARE_OF_WINDOW", 0.0),
}


def row(variant: type[LearnedLimit] | tuple[Any, str, float]) -> str:
    """The cells of one variant."""
    if isinstance(variant, tuple):
        with patch.object(variant[0], variant[1], variant[2]):
            return cells()
    with patch.object(limiter, "LearnedLimit", variant):
        return cells()


def cells() -> str:
    """Every scenario, by families."""
    shares: dict[str, list[float]] = {family: [] for family in FAMILIES}
    refused: dict[str, list[int]] = {family: [] for family in FAMILIES}
    for scenario in scenarios():
        for seed in (1, 2):
            server = scenario.make()
            done = crawl(server, scenario.style, pages=scenario.pages, seed=seed, **scenario.crawl)
            ideal_s = scenario.ideal_s or server.ideal_s(scenario.pages)
            shares[scenario.family].append(done.seconds / ideal_s)
            refused[scenario.family].append(len(done.refusals))
    return " | ".join(
        f"{statistics.fmean(shares[family]):.2f}, {max(shares[family]):.1f};"
        f" {statistics.fmean(refused[family]):.0f}"
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
