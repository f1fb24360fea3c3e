"""What is said of a running crawl: its figures and its lines, out of counts and times.

Pure: counts in events, times in seconds (monotonic), rates in events per second.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

#: The rate "now" looks back so far, in seconds.
RATE_WINDOW_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Figures:
    """A moment of a run. `done`: offsets below the total that are committed."""

    total: int | None
    done: int
    rejected: int
    rate_now: float
    rate_mean: float
    left_s: float | None


class Meter:
    """Turns (time, events received) into rates."""

    def __init__(self, now: float) -> None:
        self._started_at = now
        self._points: deque[tuple[float, int]] = deque([(now, 0)])

    def figures(
        self, now: float, *, received: int, done: int, rejected: int, total: int | None
    ) -> Figures:
        """The figures at *now*; *received* counts from the run's start."""
        self._points.append((now, received))
        while len(self._points) > 2 and self._points[1][0] <= now - RATE_WINDOW_S:
            self._points.popleft()
        then, before = self._points[0]
        rate_now = (received - before) / (now - then) if now > then else 0.0
        lasted_s = now - self._started_at
        rate_mean = received / lasted_s if lasted_s > 0 else 0.0
        left_s = None
        if total is not None and rate_mean > 0:
            left_s = max(total - done, 0) / rate_mean
        return Figures(total, done, rejected, rate_now, rate_mean, left_s)


def line(figures: Figures) -> str:
    """One line of progress, for a log."""
    of = "?" if figures.total is None else f"{figures.total:,}"
    share = ""
    if figures.total:
        share = f" ({min(figures.done / figures.total, 1):.1%})"
    left = "" if figures.left_s is None else f", {duration(figures.left_s)} left"
    rejected = f", {figures.rejected:,} rejected" if figures.rejected else ""
    return (
        f"{figures.done:,} of {of} events{share}, {figures.rate_now:,.0f} events/s now, "
        f"{figures.rate_mean:,.0f} on average{left}{rejected}"
    )


def duration(seconds: float) -> str:
    """A time for a person: 42 s, 3 min 5 s, 2 h 7 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, for its summary. Counts in events; `seconds` of wall time.

    `reread`: known events of the first page, read again to look for new ones; not counted as
    duplicates.
    """

    reason: str
    complete: bool
    total: int | None
    stored: int | None
    received: int
    inserted: int
    duplicates: int
    changed: int
    reread: int
    rejected_now: int | None
    rejected: int
    seconds: float
    missing: str | None
    added_since: int
    sentence: str | None


def summary(outcome: Outcome) -> list[str]:
    """The last lines of a run: what is there, and if it isn't all, what is missing and what to do.

    Never says "complete" of a run that isn't proved.
    """
    rate = outcome.received / outcome.seconds if outcome.seconds > 0 else 0.0
    rejected = outcome.rejected if outcome.rejected_now is None else outcome.rejected_now
    lines = []
    if outcome.stored is not None:
        lines.append(f"events stored     {outcome.stored:,}")
    lines += [
        f"new in this run   {outcome.inserted:,}",
        f"duplicates        {outcome.duplicates:,}"
        + (f" ({outcome.changed:,} with other content)" if outcome.changed else ""),
        f"rejections        {rejected:,}"
        + (" (table rejected_events: reason and raw bytes)" if rejected else ""),
        f"seconds           {outcome.seconds:.1f}",
        f"events/s          {rate:,.0f}",
    ]
    if outcome.complete and outcome.reason == "finished":
        lines.append(f"complete: proved against the API's total ({outcome.total:,})")
        if outcome.added_since:
            lines.append(
                f"{outcome.added_since:,} more were added while the crawl ended: run it again."
            )
        return lines
    lines.append(f"NOT complete: {_why(outcome)}")
    return lines


def _why(outcome: Outcome) -> str:
    again = "Run the same command again: it goes on where it was."
    if outcome.sentence:
        return outcome.sentence
    if outcome.missing:
        return f"missing are {outcome.missing}. {again}"
    if outcome.reason == "shutdown":
        return f"stopped by a signal; everything fetched is committed. {again}"
    return f"ended with {outcome.reason}. {again}"
