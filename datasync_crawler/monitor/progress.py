"""A crawl's progress: figures and lines, from stats and times.

Pure: counts in events, times in seconds (monotonic unless `wall` says otherwise: epoch seconds),
rates in events per second.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from datasync_crawler import stats as stat

#: The span of the current rate, in seconds.
RATE_WINDOW_S: Final = 10.0
#: A longer time that is left, in seconds, has no date: totals may be anything.
LONGEST_LEFT_S: Final = 10 * 365 * 86_400.0
#: Waits shorter than this are pacing, not a pause, in seconds.
SHORTEST_PAUSE_S: Final = 1.0
#: Upper bounds of the histograms of latency and commit times, in seconds; above the last: "inf".
HISTOGRAM_S: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests and the rate limit; None: not known. `remaining`: requests left until the reset."""

    in_flight: int = 0
    limit: int | None = None
    remaining: int | None = None
    reset_in_s: float | None = None
    paused_for_s: float = 0.0
    pause_reason: str = ""
    window_s: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """A run at one moment. `done`: committed offsets below the total.

    `gaps`: ranges whose request failed, to be requested again. `ends_at`: the end of `left_s`, in
    epoch seconds. `page_size`: mean events of a page. `follows`: when a run with FOLLOW looks
    again. `trouble`: what gets no answer, and when it is tried again. `processes`: those that share
    the crawl; `done` and the rates speak of all of them, the rest of this one.
    """

    total: int | None
    done: int
    rejected: int
    rate_now: float
    rate_mean: float
    left_s: float | None
    gaps: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    ends_at: float | None = None
    retries: int = 0
    page_size: int | None = None
    follows: str = ""
    trouble: str = ""
    processes: int = 1


class Meter:
    """Turns (time, events received) into rates."""

    def __init__(self, now: float) -> None:
        self._started_at = now
        self._points: deque[tuple[float, int]] = deque([(now, 0)])

    def read(self, now: float, wall: float, stats: Mapping[str, Any], *, gaps: int = 0) -> Figures:
        """The figures at *now*, from Scrapy's stats."""
        received, pages = stats.get(stat.RECEIVED, 0), stats.get(stat.PAGES_COMMITTED, 0)
        others = stats.get(stat.RECEIVED_BY_OTHERS, 0)
        total, done = stats.get(stat.TOTAL), stats.get(stat.COVERED, 0) + others
        rate_now, rate_mean = self._rates(now, received + others)
        api, left_s = traffic(wall, stats), None
        if total is not None:
            done = min(done, total)
            left_s = (total - done) / rate_mean if rate_mean > 0 else None
            requests = math.ceil((total - done) * pages / received) if pages and received else 0
            limited_s = limited_left_s(requests, api)
            # After a first pause the limit decides: the mean rate rises and falls with its windows.
            binds = stats.get(stat.PAUSES, 0) > 0
            if limited_s is not None and (binds or limited_s > (left_s or 0.0)):
                left_s = limited_s
        return Figures(
            total=total,
            done=done,
            rejected=stats.get(stat.REJECTED, 0),
            rate_now=rate_now,
            rate_mean=rate_mean,
            left_s=left_s,
            gaps=gaps,
            traffic=api,
            ends_at=None if left_s is None else wall + left_s,
            retries=stats.get(stat.RETRIES, 0),
            processes=stats.get(stat.PROCESSES, 1),
            page_size=round(received / pages) if pages else None,
            follows=follows(wall, stats),
            trouble=trouble(wall, stats),
        )

    def _rates(self, now: float, received: int) -> tuple[float, float]:
        self._points.append((now, received))
        while len(self._points) > 2 and self._points[1][0] <= now - RATE_WINDOW_S:
            self._points.popleft()
        then, before = self._points[0]
        rate_now = (received - before) / (now - then) if now > then else 0.0
        lasted_s = now - self._started_at
        return rate_now, received / lasted_s if lasted_s > 0 else 0.0


def traffic(wall: float, stats: Mapping[str, Any]) -> Traffic:
    """The traffic at *wall*, from the stats ``rate_limit/…``; times there are epoch seconds."""
    reset_at, paused_until = stats.get(stat.LIMIT_RESET_AT), stats.get(stat.PAUSED_UNTIL)
    paused_for_s = 0.0 if paused_until is None else max(0.0, paused_until - wall)
    reset_in_s = None if reset_at is None else max(0.0, reset_at - wall)
    return Traffic(
        in_flight=stats.get(stat.IN_FLIGHT, 0),
        limit=stats.get(stat.LIMIT),
        # The rest of a window that is over isn't the next one's.
        remaining=None if reset_in_s == 0 else stats.get(stat.LIMIT_REMAINING),
        reset_in_s=reset_in_s or None,
        paused_for_s=paused_for_s,
        pause_reason=stats.get(stat.PAUSE_REASON, "") if paused_for_s else "",
        window_s=stats.get(stat.LIMIT_WINDOW_S),
    )


def follows(wall: float, stats: Mapping[str, Any]) -> str:
    """When a run with FOLLOW looks again; "" while it looks, and for any other run."""
    next_at = stats.get(stat.NEXT_LOOK_AT)
    if next_at is None:
        return ""
    state = "up to date" if stats.get(stat.COMPLETE) else "not up to date"
    return f"{state}, next look in {duration(max(next_at - wall, 0.0))}"


def trouble(wall: float, stats: Mapping[str, Any]) -> str:
    """What gets no answer, as in "can't reach api.example.com: try 2 of 4, next in 3 s"."""
    said = stats.get(stat.TROUBLE)
    if not said:
        return ""
    left_s = stats.get(stat.NEXT_TRY_AT, 0.0) - wall
    return f"{said}, next in {duration(left_s)}" if left_s >= 0.5 else str(said)


def ended(reason: str, stats: Mapping[str, Any]) -> str:
    """The finish reason of a run. One with FOLLOW has no end of its own: a signal after a complete
    look finishes it, as that look would have.
    """
    stays = stats.get(stat.FOLLOW_S) is not None and stats.get(stat.COMPLETE) is True
    if not (stays and reason == "shutdown"):
        return reason
    return "too_many_rejected" if stats.get(stat.TOO_MANY_REJECTED) else "finished"


def limited_left_s(requests: int, api: Traffic) -> float | None:
    """Seconds that *requests* take under the rate limit; None where none of them has to wait.

    The rest of the present window is sent at once, and each later window takes its length. So the
    result falls while the crawl waits.
    """
    if not api.limit or not api.window_s:
        return None
    # After a window is over, all of the next one is left.
    left = api.limit if api.remaining is None else api.remaining
    if requests <= left:
        return None
    windows = math.ceil((requests - left) / api.limit)
    reset_in_s = api.window_s if api.remaining is None else api.reset_in_s or 0.0
    return max(reset_in_s, api.paused_for_s) + (windows - 1) * api.window_s


def line(figures: Figures) -> str:
    """One line of progress, for a log: what the panel says."""
    said = [f"{name}: {', '.join(filter(None, said))}" for name, said in facts(figures)]
    return "; ".join([*filter(None, [figures.trouble]), *said])


def facts(figures: Figures) -> list[tuple[str, tuple[str, ...]]]:
    """Three facts each about the events, the API and the run; "" for what isn't known."""
    api = figures.traffic
    left = "" if api.remaining is None else f"{api.remaining:,}"
    if left and api.limit is not None:
        left += f" of {api.limit:,}"
    retries = f"{figures.retries:,} {'retry' if figures.retries == 1 else 'retries'}"
    if figures.gaps:
        retries += f", {figures.gaps:,} gap{'s' if figures.gaps > 1 else ''}"
    page = f"{figures.page_size:,} events a page" if figures.page_size else ""
    if figures.processes > 1:
        page = f"{figures.processes} processes"
    total = "?" if figures.total is None else f"{figures.total:,}"
    end = figures.follows or done_about(figures)
    return [
        ("events", (share(figures), f"{figures.done:,} of {total}", end)),
        ("API", (left and f"{left} left", wait(api), page)),
        ("run", (f"{figures.rate_mean:,.0f} events/s", retries, _rejected(figures))),
    ]


def share(figures: Figures) -> str:
    """The done part as "12.3 %"; nothing while the total isn't known."""
    if not figures.total:
        return ""
    # Cut, not rounded: only all events are 100 %.
    return f"{min(1000 * figures.done // figures.total, 1000) / 10:.1f} %"


def is_trouble(api: Traffic) -> bool:
    """Whether requests wait for another reason than a full window (429)."""
    return api.paused_for_s > 0 and "HTTP" in api.pause_reason and "429" not in api.pause_reason


def wait(api: Traffic) -> str:
    """What requests wait for, or how many are in flight."""
    if is_trouble(api):
        return f"paused {_about(api.paused_for_s)}: {api.pause_reason}"
    if api.paused_for_s:
        return f"next window in {_about(max(api.paused_for_s, 1.0))}"
    return f"{api.in_flight} in flight" if api.in_flight else ""


def _rejected(figures: Figures) -> str:
    if not figures.rejected:
        return "0 rejected"
    of = 100 * figures.rejected / max(figures.done, figures.rejected)
    return f"{figures.rejected:,} rejected ({of:.2f} %)"


def done_about(figures: Figures) -> str:
    """The text "done about 05:45 (4 min)", by the local clock."""
    if figures.left_s is None or figures.ends_at is None:
        return ""
    if figures.left_s > LONGEST_LEFT_S:
        return "done in over 10 years"
    at = datetime.fromtimestamp(figures.ends_at, UTC).astimezone()
    is_today = figures.left_s < 12 * 3600
    when = f"{at:{'%H:%M' if is_today else '%d %b %H:%M'}}"
    return f"done about {when} ({_about(figures.left_s)})"


def _about(seconds: float) -> str:
    """A time in one unit up to an hour, for a narrow column."""
    return f"{seconds / 60:.0f} min" if 90 <= seconds < 3600 else duration(seconds)


def duration(seconds: float) -> str:
    """A time as text: 42 s, 3 min 5 s, 2 h 7 min, 3 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def utc(at: float) -> str:
    """An instant in epoch seconds as text, in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def bucket(seconds: float) -> str:
    """The name of the histogram's bucket that *seconds* falls into: its upper bound, or "inf"."""
    return next((f"{bound:g}" for bound in HISTOGRAM_S if seconds <= bound), "inf")


def quantile(counts: Mapping[str, int], share: float) -> float | None:
    """The *share* quantile of a histogram in seconds; *counts* by `bucket` names.

    Interpolated within its bucket, as Prometheus' histogram_quantile does; values above the last
    bound count as that bound. None when nothing was counted.
    """
    wanted = share * sum(counts.values())
    if wanted <= 0:
        return None
    before, lower = 0, 0.0
    for bound in HISTOGRAM_S:
        here = counts.get(f"{bound:g}", 0)
        if here and before + here >= wanted:
            return lower + (bound - lower) * (wanted - before) / here
        before, lower = before + here, bound
    return HISTOGRAM_S[-1]


class Flight:
    """The requested ranges: queued, in flight, between response and commit, or gaps.

    A range that has left the downloader and isn't committed GRACE_S later has failed or waits for
    a retry: a gap, until it is requested again or committed.
    """

    GRACE_S: Final = 5.0

    def __init__(self) -> None:
        self._sent: dict[int, int] = {}
        self._left: dict[int, tuple[int, float]] = {}

    def sent(self, first: int, count: int) -> None:
        """A request for [first, first + count) has gone to the downloader."""
        self._left.pop(first, None)
        self._sent[first] = count

    def left(self, first: int, now: float) -> None:
        """The response has come, or the request has failed."""
        count = self._sent.pop(first, None)
        if count is not None:
            self._left[first] = (count, now)

    def committed(self, first: int) -> None:
        """The range is in the ledger."""
        self._sent.pop(first, None)
        self._left.pop(first, None)

    def ranges(self, now: float, in_flight: int) -> dict[str, list[tuple[int, int]]]:
        """(first, count) of ranges by their state: in flight, fetched, or queued for a permit.

        The gate sends requests in order, so the oldest *in_flight* have been sent.
        """
        asked = list(self._sent.items())
        return {
            "flight": asked[:in_flight],
            "fetched": [(at, n) for at, (n, since) in self._left.items()
                        if now - since < self.GRACE_S],
            "queued": asked[in_flight:],
        }  # fmt: skip

    def gaps(self, now: float, total: int | None) -> int:
        """Ranges below *total* that are gaps now."""
        return sum(
            now - since >= self.GRACE_S and (total is None or first < total)
            for first, (_, since) in self._left.items()
        )
