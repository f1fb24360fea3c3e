"""monitor/progress.py: rates and times out of counts, and the words for them."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.monitor.progress import (
    RATE_WINDOW_S,
    Figures,
    Flight,
    Meter,
    Traffic,
    bucket,
    done_about,
    duration,
    ended,
    limited_left_s,
    line,
    quantile,
    traffic,
)


def figures(meter: Meter, now: float, received: int, total: int | None = 1000) -> Figures:
    stats = {"events/received": received, "crawl/covered": received, "crawl/total": total}
    return meter.read(now, 0.0, stats)


def test_the_rate_now_looks_back_ten_seconds() -> None:
    """A burst at the start is in the mean for ever, in the rate of now for ten seconds."""
    meter = Meter(100.0)
    burst = figures(meter, 101.0, 900)
    assert (burst.rate_now, burst.rate_mean) == (900.0, 900.0)
    later = figures(meter, 110.0, 900)
    assert (later.rate_now, later.rate_mean) == (90.0, 90.0)
    at_last = figures(meter, 101.0 + 2 * RATE_WINDOW_S, 1000)
    assert at_last.rate_now == pytest.approx(100 / 11)
    assert at_last.rate_mean == pytest.approx(1000 / 21)


def test_the_time_left_follows_the_mean() -> None:
    """Events left over the mean rate; unknown without a total or before the first event."""
    meter = Meter(0.0)
    assert figures(meter, 10.0, 250).left_s == pytest.approx(30.0)
    assert figures(meter, 10.0, 250, total=None).left_s is None
    assert figures(meter, 10.0, 0).left_s is None
    assert figures(meter, 10.0, 2000, total=1000).left_s == 0.0


def test_an_absurd_total_has_no_date() -> None:
    """One event in 1000 s, of a million million: a date that no calendar has."""
    assert "done in over 10 years" in line(figures(Meter(0.0), 1000.0, 1, total=10**12))


def test_no_time_is_no_rate() -> None:
    """In the instant of the start nothing is divided by zero."""
    assert figures(Meter(5.0), 5.0, 10) == Figures(1000, 10, 0, 0.0, 0.0, None)


@given(
    st.lists(st.tuples(st.floats(0, 1000), st.integers(0, 10**9)), min_size=1, max_size=30),
    st.none() | st.integers(0, 10**12),
)
def test_figures_are_never_negative(steps: list[tuple[float, int]], total: int | None) -> None:
    """Whatever the steps in time and events, each figure can be said to a person."""
    meter, now, received = Meter(0.0), 0.0, 0
    for lasted_s, came in steps:
        now, received = now + lasted_s, received + came
        said = figures(meter, now, received, total)
        assert min(said.rate_now, said.rate_mean, said.left_s or 0.0) >= 0.0
        assert line(said)
        assert len(meter._points) <= len(steps) + 1


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            Figures(600_000, 188_000, 46, 0.0, 1600.2, None, 1,
                    Traffic(0, 12, 0, 9.0, 9.0, "rate limit"), retries=2, page_size=2000),
            ("events: 31.3 %, 188,000 of 600,000; API: 0 of 12 left, next window in 9 s, "
             "2,000 events a page; run: 1,600 events/s, 2 retries, 1 gap, 46 rejected (0.02 %)"),
        ),
        (
            Figures(None, 12, 3, 0.0, 0.0, None, 0, Traffic(paused_for_s=5, pause_reason="HTTP 5"),
                    retries=1),
            ("events: 12 of ?; API: paused 5 s: HTTP 5; run: 0 events/s, 1 retry, "
             "3 rejected (25.00 %)"),
        ),
        (
            Figures(0, 0, 0, 0.0, 0.0, None, traffic=Traffic(3)),
            "events: 0 of 0; API: 3 in flight; run: 0 events/s, 0 retries, 0 rejected",
        ),
    ],
)  # fmt: skip
def test_a_line_says_what_is_known(said: Figures, words: str) -> None:
    """Done, total, share, quota, rate, rejections; what isn't known is left out."""
    assert line(said) == words


@pytest.mark.parametrize(
    ("left_s", "words"), [(45.0, "(45 s)"), (250.0, "(4 min)"), (8000.0, "(2 h 13 min)")]
)
def test_the_end_is_a_clock_time(left_s: float, words: str) -> None:
    """With the time that is left; a date where it is far."""
    said = done_about(Figures(10, 1, 0, 0.0, 1.0, left_s, ends_at=1e9 + left_s))
    assert re.fullmatch(r"done about \d\d:\d\d " + re.escape(words), said)
    far = done_about(Figures(10, 1, 0, 0.0, 1.0, 1e5, ends_at=1e9))
    assert re.match(r"done about \d\d \w+ \d\d:\d\d", far)


@pytest.mark.parametrize(
    ("done", "share"),
    [(999_999, "99.9 %"), (1_000_000, "100.0 %"), (1_000_001, "100.0 %"), (1, "0.0 %")],
)
def test_a_share_is_never_rounded_up_to_all(done: int, share: str) -> None:
    """100 % is said of all events and of nothing less."""
    assert f" {share}," in line(Figures(1_000_000, done, 0, 0.0, 0.0, None))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599.4, "59 min 59 s"),
     (3599.6, "1 h 0 min"), (7620, "2 h 7 min"), (86_399.4, "23 h 59 min"), (360_000, "4 d 4 h")],
)  # fmt: skip
def test_a_duration_has_two_units_at_most(seconds: float, said: str) -> None:
    """Rounding carries over into the next unit."""
    assert duration(seconds) == said


# --- out of Scrapy's stats ------------------------------------------------------------------------


def test_figures_are_read_from_the_stats() -> None:
    """Done is what the ledger's chain holds, and never passes the total."""
    stats = {"events/received": 500, "events/reread": 100, "crawl/covered": 700,
             "crawl/total": 1000, "events/rejected": 2}  # fmt: skip
    said = Meter(0.0).read(10.0, 1e9, stats, gaps=3)
    assert (said.done, said.total, said.rejected, said.gaps) == (700, 1000, 2, 3)
    assert (said.rate_mean, said.left_s) == (50.0, 6.0)
    assert Meter(0.0).read(10.0, 1e9, {**stats, "crawl/total": 600}).done == 600
    assert Meter(0.0).read(10.0, 1e9, {**stats, "crawl/total": None}).done == 700


def test_traffic_counts_down() -> None:
    """Points in time become times left; a window that is over says nothing of the next."""
    stats = {
        "rate_limit/in_flight": 4, "rate_limit/limit": 10, "rate_limit/remaining": 7,
        "rate_limit/reset_at": 1030.0, "rate_limit/paused_until": 1012.0,
        "rate_limit/pause_reason": "HTTP 429",
    }  # fmt: skip
    assert traffic(1000.0, stats) == Traffic(4, 10, 7, 30.0, 12.0, "HTTP 429")
    assert traffic(1020.0, stats) == Traffic(4, 10, 7, 10.0, 0.0, "")
    assert traffic(1031.0, stats) == Traffic(4, 10, None, None, 0.0, "")
    assert traffic(1000.0, {}) == Traffic()
    assert traffic(1000.0, {"rate_limit/remaining": 3}) == Traffic(remaining=3)


@pytest.mark.parametrize(
    ("requests", "api", "left_s"),
    [
        (210, Traffic(limit=6, remaining=5, reset_in_s=12.0, window_s=12.0), 12 + 34 * 12),
        (6, Traffic(limit=6, remaining=0, reset_in_s=4.0, window_s=12.0), 4),
        (7, Traffic(limit=6, remaining=0, reset_in_s=4.0, window_s=12.0), 4 + 12),
        (7, Traffic(limit=6, window_s=12.0), 12),
        (5, Traffic(limit=6, remaining=5, reset_in_s=12.0, window_s=12.0), None),
        (7, Traffic(limit=6, remaining=0, reset_in_s=4.0), None),
        (7, Traffic(limit=6, remaining=0, paused_for_s=60.0, window_s=12.0), 60 + 12),
    ],
)
def test_a_limit_says_how_long_requests_take(
    requests: int, api: Traffic, left_s: float | None
) -> None:
    """Requests left over the limit, times the window; nothing where they fit into this window."""
    assert limited_left_s(requests, api) == left_s


def test_the_time_left_never_rises_while_the_crawl_waits() -> None:
    """6 requests in 12 s and 60 pages: two minutes at the first answer, and less each second."""
    meter, before = Meter(0.0), math.inf
    for second in range(1, 120):
        window = second // 12
        pages = min(60, 6 * (window + 1))
        stats = {
            "events/received": 100 * pages, "crawl/covered": 100 * pages,
            "crawl/total": 6000, "pages/committed": pages,
            "rate_limit/limit": 6, "rate_limit/window_s": 12.0, "rate_limit/remaining": 0,
            "rate_limit/reset_at": 1000.0 + 12 * (window + 1), "rate_limit/pauses": window + 1,
        }  # fmt: skip
        said = meter.read(float(second), 1000.0 + second, stats)
        if said.done == 6000:
            break
        assert said.left_s is not None
        assert said.left_s <= before - 1 or second == 1
        assert said.ends_at == 1000.0 + second + said.left_s
        assert abs(said.left_s - (108 - second)) <= 12
        before = said.left_s
    assert window == 9


@pytest.mark.parametrize(
    ("seconds", "name"),
    [(0.0, "0.025"), (0.025, "0.025"), (0.0251, "0.05"), (1.0, "1"), (30.0, "30"), (30.1, "inf")],
)
def test_a_bucket_is_named_by_its_upper_bound(seconds: float, name: str) -> None:
    """A bound belongs to the bucket below it."""
    assert bucket(seconds) == name


@pytest.mark.parametrize(
    ("counts", "share", "seconds"),
    [
        ({}, 0.5, None),
        ({"0.1": 10}, 0.0, None),
        ({"0.1": 10}, 0.5, 0.075),
        ({"0.1": 10}, 1.0, 0.1),
        ({"0.025": 4, "0.5": 4}, 0.5, 0.025),
        ({"0.025": 4, "0.5": 4}, 0.75, 0.375),
        ({"1": 1, "inf": 9}, 0.9, 30.0),
    ],
)
def test_a_quantile_is_interpolated_within_its_bucket(
    counts: dict[str, int], share: float, seconds: float | None
) -> None:
    """As Prometheus does; beyond the last bound it is that bound, of nothing it is nothing."""
    assert quantile(counts, share) == (seconds if seconds is None else pytest.approx(seconds))


def test_a_flight_ends_in_the_ledger_or_as_a_gap() -> None:
    """Queued, in flight, fetched, then committed; or after a grace a gap, until asked for again."""
    flight = Flight()
    flight.sent(0, 10)
    flight.sent(10, 5)
    assert flight.ranges(0.0, 1) == {"flight": [(0, 10)], "fetched": [], "queued": [(10, 5)]}
    flight.left(0, 1.0)
    flight.left(10, 1.0)
    flight.left(99, 1.0)
    fetched = {"flight": [], "fetched": [(0, 10), (10, 5)], "queued": []}
    assert flight.ranges(2.0, 0) == fetched
    flight.committed(0)
    assert flight.ranges(2.0, 0)["fetched"] == [(10, 5)]
    late, nothing = 1.0 + Flight.GRACE_S, {"flight": [], "fetched": [], "queued": []}
    assert (flight.ranges(late, 0), flight.gaps(late, 20)) == (nothing, 1)
    assert (flight.gaps(late, None), flight.gaps(late, 10)) == (1, 0)
    flight.sent(10, 5)
    assert (flight.ranges(late, 1)["flight"], flight.gaps(late, 20)) == ([(10, 5)], 0)
    flight.committed(10)
    assert (flight.ranges(late, 0), flight.gaps(late, 20)) == (nothing, 0)


@pytest.mark.parametrize(
    ("reason", "stats", "ended_with"),
    [
        ("shutdown", {"crawl/follow_s": 60, "crawl/complete": True}, "finished"),
        ("shutdown", {"crawl/follow_s": 60, "crawl/complete": False}, "shutdown"),
        ("shutdown", {"crawl/complete": True}, "shutdown"),
        ("unauthorized", {"crawl/follow_s": 60, "crawl/complete": True}, "unauthorized"),
    ],
)
def test_a_run_that_follows_is_finished_by_a_signal(
    reason: str, stats: dict[str, object], ended_with: str
) -> None:
    """Only when its last look was complete, and by nothing else."""
    assert ended(reason, stats) == ended_with


@pytest.mark.parametrize(
    ("stats", "said"),
    [
        ({}, ""),
        ({"crawl/next_look_at": None}, ""),
        ({"crawl/next_look_at": 130.0, "crawl/complete": True}, "up to date, next look in 30 s"),
        ({"crawl/next_look_at": 99.0}, "not up to date, next look in 0 s"),
    ],
)
def test_a_run_that_follows_says_when_it_looks(stats: dict[str, object], said: str) -> None:
    """Between two looks, and in the line of facts."""
    seen = Meter(0.0).read(1.0, 100.0, stats)
    assert seen.follows == said
    assert said in line(seen)
