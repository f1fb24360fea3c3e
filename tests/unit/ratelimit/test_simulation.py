"""The limiter against simulated servers in virtual time: how near the ideal it comes."""

import itertools
import math
import random

import pytest
from limiters import (
    COMMON,
    FULL,
    LIMITERS,
    Bucket,
    Counter,
    Fixed,
    Hiccup,
    Limiter,
    Punishing,
    Stacked,
    Storm,
    Unlimited,
    client,
    crawl,
)

from datasync_crawler.ratelimit.in_flight import InFlightLimit
from datasync_crawler.ratelimit.limits import Limit

SIZES = [(10, 20.0), (10, 60.0), (50, 20.0), (3, 30.0), (1, 20.0)]


@pytest.mark.parametrize(("style", "rounding"), FULL)
@pytest.mark.parametrize("name", COMMON)
def test_full_headers_are_met_within_five_percent_and_without_a_429(
    name: str, style: str, rounding: str
) -> None:
    """Whatever the limiter and the way it rounds: nearly the ideal, and never one too many."""
    for (limit, window_s), latency_s in itertools.product(SIZES, (0.0, 0.05, 0.2)):
        limiter = LIMITERS[name](limit, window_s)
        result = crawl(limiter, style, pages=6 * limit, rounding=rounding, latency_s=latency_s)
        assert result.refusals == []
        assert len(result.sent) == 6 * limit
        work_s = latency_s * 1.2 * (1 + math.ceil(limit / 8))  # the last window's own
        assert result.seconds <= limiter.ideal_s(6 * limit) * 1.05 + 1 + work_s


@pytest.mark.parametrize("name", ["sliding, reset all", "bucket, reset full"])
@pytest.mark.parametrize(("style", "rounding"), FULL)
def test_resets_that_speak_of_all_being_free_are_met_within_a_quarter(
    name: str, style: str, rounding: str
) -> None:
    """Some servers say when everything is free again, not when the next request is allowed."""
    for limit, window_s in SIZES[:3]:
        limiter = LIMITERS[name](limit, window_s)
        result = crawl(limiter, style, pages=6 * limit, rounding=rounding)
        assert len(result.refusals) <= 1
        assert result.seconds <= limiter.ideal_s(6 * limit) * 1.25


@pytest.mark.parametrize("style", ["retry-after", "body"])
@pytest.mark.parametrize("name", LIMITERS)
def test_retry_after_alone_is_met_within_fifteen_percent(name: str, style: str) -> None:
    """The limit is learned from the refusals: a burst at first, then one at a time, and fewer."""
    for limit, window_s in SIZES[:3]:
        limiter = LIMITERS[name](limit, window_s)
        result = crawl(limiter, style, pages=6 * limit)
        assert result.seconds <= limiter.ideal_s(6 * limit) * 1.15
        later = [at for at in result.refusals if at - result.refusals[0] > window_s]
        assert len(later) <= (9 if name.startswith("bucket") else 2)


def test_the_bursts_of_a_bucket_shrink() -> None:
    """Trying for more after tokens have piled up, few go out at a time: few are refused."""
    for (limit, window_s), seed in itertools.product([(50, 20.0), (60, 60.0), (100, 60.0)], (0, 1)):
        result = crawl(
            Bucket(limit, window_s), "retry-after", pages=8 * limit, latency_s=0.02, seed=seed
        )
        sizes = result.burst_sizes(0.25)
        assert all(size <= 3 for size in sizes[1:]), sizes


@pytest.mark.parametrize("style", ["retry-after", "none"])
@pytest.mark.parametrize("name", COMMON)
def test_whatever_is_unadvertised_is_met_over_many_sizes(name: str, style: str) -> None:
    """Limits from 1 to 100 and windows from 20 s to two minutes: no outlier, no storm."""
    rnd = random.Random(3)
    for seed in range(40):
        limit = rnd.choice([1, 2, 3, 5, 8, 10, 15, 20, 30, 60, 100])
        window_s = rnd.choice([20.0, 25.0, 30.0, 45.0, 60.0, 120.0])
        latency_s = rnd.choice([0.02, 0.05, 0.2, 0.5])
        limiter, pages = LIMITERS[name](limit, window_s), max(6 * limit, 12)
        result = crawl(limiter, style, pages=pages, latency_s=latency_s, seed=seed)
        work_s = 1 + latency_s * limit / 8  # the last window's own
        goal = {"retry-after": 1.16, "none": 1.4}[style]
        assert result.seconds <= limiter.ideal_s(pages) * goal + work_s


@pytest.mark.parametrize("name", LIMITERS)
def test_without_any_header_the_limit_is_found_within_forty_percent(name: str) -> None:
    """Refused without a word, it settles near the limit."""
    for limit, window_s in SIZES[:3]:
        limiter = LIMITERS[name](limit, window_s)
        result = crawl(limiter, "none", pages=6 * limit)
        assert result.seconds <= limiter.ideal_s(6 * limit) * 1.4


@pytest.mark.parametrize(("before", "after"), [(10, 30), (30, 10), (10, 100), (100, 5)])
@pytest.mark.parametrize("name", COMMON)
def test_a_limit_that_changes_in_mid_crawl_is_followed(name: str, before: int, after: int) -> None:
    """With headers, the new limit holds from the next answer on, up and down."""
    limiter = LIMITERS[name](before, 20.0)

    def change(limiter: Limiter) -> None:
        limiter.limit = after

    result = crawl(limiter, "full", pages=before * 4 + after * 8, changes=[(70.0, change)])
    assert len(result.refusals) <= 1  # a lower limit tells itself to the next request only
    late = [at for at in result.sent if at > 130]
    if late:
        assert len(late) / (result.seconds - late[0] + 20) >= 0.8 * after / 20


@pytest.mark.parametrize(("style", "after"), [("retry-after", 5), ("retry-after", 20), ("none", 5)])
def test_a_limit_that_changes_unadvertised_is_found(style: str, after: int) -> None:
    """Without headers too, down at once and up after a while, in bursts that shrink again."""
    limiter = Fixed(10, 20.0)

    def change(limiter: Limiter) -> None:
        limiter.limit = after

    result = crawl(limiter, style, pages=20 * after, changes=[(70.0, change)])
    last = [at for at in result.sent if at > result.seconds - 100]
    assert len(last) >= 0.7 * after * 5


def test_one_refusal_doesnt_hold_a_crawl_to_its_slow_past() -> None:
    """Slow for 100 s, refused for one, fast since: the average of the past is left behind."""
    rate = client(most=1)

    def speed_up(limiter: Limiter) -> None:
        rate.in_flight_limit = InFlightLimit(first=16, most=16, max_bytes=64_000_000)

    changes = [(100.0, speed_up)]
    result = crawl(Hiccup(100.0), "none", pages=40_000, changes=changes, rate=rate)
    late = [at for at in result.sent if at > result.seconds - 30]
    assert len(late) >= 0.8 * 30 * 16 / 0.05


@pytest.mark.parametrize("style", ["retry-after", "none"])
@pytest.mark.parametrize("since", [0.6, 2.4, 5.0, 20.0])
@pytest.mark.parametrize("name", COMMON)
def test_a_time_in_which_nobody_asks_isnt_learned_as_slowness(
    name: str, since: float, style: str
) -> None:
    """A minute without a database: after it, half the rate at least, not a twentieth for ever."""
    limiter, idle = LIMITERS[name](5, 2.0), (since, since + 60.0)
    result = crawl(limiter, style, pages=1000, idle=idle)
    assert result.seconds <= idle[1] + limiter.ideal_s(1000) * 2


def test_a_window_that_shrinks_unadvertised_is_found() -> None:
    """From one request in 30 s to one in a second: a single one more is refused for ever."""
    limiter = Fixed(1, 30.0)

    def shrink(limiter: Limiter) -> None:
        limiter.window_s = 1.0

    result = crawl(limiter, "retry-after", pages=200, changes=[(300.0, shrink)])
    assert result.seconds < 1200


def test_a_storm_of_refusals_isnt_learned_as_a_limit() -> None:
    """Told "1 s" fifty times: "five in fifty seconds" is doubted as soon as it is over."""
    result = crawl(Storm(), "retry-after", pages=100)
    assert len(result.refusals) <= 52
    assert result.seconds < result.refusals[49] + 70


@pytest.mark.parametrize(("limit", "window_s"), [(5, 2.0), (4, 5.0), (10, 2.0), (3, 8.0)])
@pytest.mark.parametrize("name", COMMON)
def test_short_windows_are_met_by_retry_after_alone(name: str, limit: int, window_s: float) -> None:
    """Said in whole seconds, windows of a few seconds are met within a fifth all the same, but
    for the time that a bucket of such tokens would need to fill again: once, and 24 s at most.
    """
    limiter = LIMITERS[name](limit, window_s)
    result = crawl(limiter, "retry-after", pages=40 * limit)
    filling_s = min(limit * window_s, 24.0)
    assert result.seconds <= filling_s + limiter.ideal_s(40 * limit) * 1.16
    late = [at for at in result.sent if at > result.seconds - 10 * window_s]
    assert len(late) >= 0.8 * 10 * limit


def test_a_long_flow_isnt_remembered_as_a_long_window() -> None:
    """2,000 in 1,000 s, refused once: the next run doesn't send 2,000 and wait for the rest."""
    before = client(most=1)
    first = crawl(Hiccup(1000.0), "none", pages=2100, latency_s=0.5, rate=before)
    rate = client(most=16)
    rate.restore(0.0, before.snapshot(first.seconds), age_s=1000.0, paused_for_s=0.0)
    assert rate.learned_limit is not None
    assert rate.learned_limit.rate_per_s >= 1.9
    assert rate.learned_limit.window_s <= 20
    second = crawl(Unlimited(), "none", pages=4000, rate=rate)
    assert second.seconds < 300


def test_a_slow_api_without_limit_gets_more_in_flight() -> None:
    """300 ms an answer and no limit: the number in flight grows by itself, nothing paces."""
    result = crawl(Unlimited(), "none", pages=2000, latency_s=0.3)
    assert result.refusals == []
    assert result.seconds < 2000 * 0.3 / 8 * 0.6


def test_skewed_clocks_cost_nothing() -> None:
    """Our clock an hour off: the answers' Dates put it right, epoch resets are met as well."""
    for wrong_s in (-3600.0, -0.7, 0.7, 3600.0):
        for style in ("full epoch s", "full epoch ms"):
            limiter = Fixed(10, 20.0)
            result = crawl(limiter, style, pages=60, wall_wrong_s=wrong_s)
            assert len(result.refusals) <= 2 * (abs(wrong_s) < 1)
            assert result.seconds <= 100 * 1.05 + 6


def foreign(every_s: float) -> list[float]:
    """When another client sends its requests."""
    return [every_s * number for number in range(80)]


@pytest.mark.parametrize("style", ["retry-after", "none"])
@pytest.mark.parametrize("name", COMMON)
def test_a_foreign_request_before_the_crawl_spoils_one_window(name: str, style: str) -> None:
    """One with the same key, three seconds before: not a belief that is kept."""
    for limit, window_s in ((30, 30.0), (10, 60.0), (10, 10.0)):
        limiter = LIMITERS[name](limit, window_s)
        result = crawl(limiter, style, pages=6 * limit, foreign=[-3.0])
        assert result.seconds <= (limiter.ideal_s(6 * limit) + window_s) * 1.3 + 1


@pytest.mark.parametrize("style", ["full", "retry-after", "none"])
@pytest.mark.parametrize("name", COMMON)
def test_a_client_that_takes_a_third_leaves_us_two(name: str, style: str) -> None:
    """Within half more than what is left to us."""
    limiter = LIMITERS[name](9, 9.0)
    result = crawl(limiter, style, pages=90, foreign=foreign(3.0))
    assert result.seconds <= 90 * 1.5 * 1.5


@pytest.mark.parametrize("name", COMMON)
def test_a_share_lets_others_live(name: str) -> None:
    """Half of it is ours: another client gets all of its third, and we lose nothing by it."""
    limiter = LIMITERS[name](10, 20.0)
    result = crawl(limiter, "ietf", pages=50, foreign=foreign(6.0), rate=client(share=0.5))
    assert all(result.foreign)
    assert result.refusals == []
    assert result.seconds <= 50 * 4 * 1.05


@pytest.mark.parametrize("style", ["full", "retry-after", "none"])
def test_two_limits_with_one_set_of_fields_hold_at_once(style: str) -> None:
    """Five in 5 s under thirty in 60 s: single refusals, none in bursts but the first."""
    result = crawl(Stacked(Fixed(5, 5.0), Fixed(30, 60.0)), style, pages=90)
    assert result.seconds <= 145 * 1.15
    assert all(size <= 2 for size in result.burst_sizes(0.25)[1:])


@pytest.mark.parametrize("style", ["retry-after", "none"])
@pytest.mark.parametrize(("block_s", "kind"), [(20.0, "block"), (2.0, "anew"), (1.0, "doubling")])
def test_a_penalty_isnt_believed_as_the_window(block_s: float, kind: str, style: str) -> None:
    """Ten in 2 s, and a block after each refusal: 400 take 78 s without one. Most of the time is
    blocks; those that double add up.
    """
    result = crawl(Punishing(10, 2.0, block_s, kind), style, pages=400)
    assert result.seconds <= (850 if kind == "doubling" else 350)


@pytest.mark.parametrize("refusal", [429, 503])
@pytest.mark.parametrize("pages", [30, 120])
def test_anothers_requests_dont_make_the_rate_sink(pages: int, refusal: int) -> None:
    """One a second, unadvertised, of which another client takes a third: nginx without burst."""
    for seed in range(6):
        taken = [seed / 4 + 3 * number for number in range(1, 400)]
        limiter = Bucket(1, 1.0)
        result = crawl(limiter, "none", pages=pages, refusal=refusal, foreign=taken, seed=seed)
        assert result.seconds <= (pages - 1) * 1.5 * 1.2


@pytest.mark.parametrize("taken", [False, True])
def test_where_bursts_dont_pay_they_shrink(taken: bool) -> None:
    """A counter that decays evenly and counts refusals (haproxy's http_req_rate), whatever its
    phase: half more than the ideal, of which 17 s are the refusals of the first burst.
    """
    shares = []
    for seed in range(6):
        limiter = Counter(10, 10.0, 1.7 * seed)
        result = crawl(limiter, "none", pages=30, foreign=foreign(3.0) if taken else (), seed=seed)
        shares.append(result.seconds / (limiter.ideal_s(30) * (1.5 if taken else 1)))
    assert sum(shares) / len(shares) <= (1.7 if taken else 1.6)
    assert max(shares) <= 2.1


def test_a_pause_by_one_limit_isnt_learned_as_slowness_of_another() -> None:
    """Ten in 10 s under thirty in 40 s, of which only the second is advertised."""
    result = crawl(Stacked(Fixed(10, 10.0), Fixed(30, 40.0)), "full", pages=60)
    assert result.seconds <= 60 * 1.1


def test_503_is_met_as_a_limit() -> None:
    """Nginx's limit_req with its default: near the ideal, not a refusal for each request."""
    for burst, rate in ((5, 1.0), (20, 10.0)):
        limiter = Bucket(burst, burst / rate)
        result = crawl(limiter, "none", pages=60, refusal=503)
        assert result.seconds <= limiter.ideal_s(60) * 1.4
        assert len(result.refusals) <= 45


def test_a_stated_limit_is_never_exceeded() -> None:
    """Known to the user alone: not one refusal, whatever the limiter."""
    for name in COMMON:
        limiter = LIMITERS[name](10, 20.0)
        result = crawl(limiter, "none", pages=60, rate=client(limits=[Limit(10, 20.0)]))
        assert result.refusals == []
        assert result.seconds <= 100 * 1.05
