"""The limiter: when a request may be sent, how answers are read, what is kept for the next run."""

import json
import math
from email.utils import formatdate

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from datasync_crawler.ratelimit.headers import LONGEST_S
from datasync_crawler.ratelimit.in_flight import InFlightLimit
from datasync_crawler.ratelimit.limiter import Limiter
from datasync_crawler.ratelimit.limits import Limit

WALL = 1_790_000_000.0


def limiter(
    *limits: Limit, max_wait_s: float = 3600, share: float = 1.0, first: int = 8
) -> Limiter:
    return Limiter(
        in_flight_limit=InFlightLimit(first=first, most=64, max_bytes=64_000_000),
        max_wait_s=max_wait_s,
        random=lambda: 0.5,
        limits=limits,
        share=share,
    )


def full(left: int, reset: object = 20, limit: int = 10) -> dict[str, str]:
    return {
        "x-ratelimit-limit": str(limit),
        "x-ratelimit-remaining": str(left),
        "x-ratelimit-reset": str(reset),
    }


def answer(
    rate: Limiter, now: float, status: int = 200, *, sent_at: float | None = None, **kw: str
) -> str:
    headers = {name.replace("_", "-"): text for name, text in kw.items()}
    sent = now if sent_at is None else sent_at
    return rate.answered(now, WALL + now, status, headers, b"", sent_at=sent).kind


def answer_full(rate: Limiter, now: float, headers: dict[str, str], status: int = 200) -> None:
    """Asks, and answers at once."""
    assert rate.try_acquire(now).delay_s == 0
    rate.answered(now, WALL + now, status, headers, b"", sent_at=now)


def primed(left: int = 9, reset: object = 20) -> Limiter:
    """A limiter whose first request, at 0 s, was answered with full headers at 0.1 s."""
    rate = limiter()
    assert rate.try_acquire(0.0).delay_s == 0
    rate.answered(0.1, WALL, 200, full(left, reset), b"", sent_at=0.0)
    return rate


def test_the_first_request_goes_alone() -> None:
    """Only its answer gives the limit: a second request could exceed it."""
    rate = limiter()
    assert rate.try_acquire(0.0).reason == ""
    assert rate.try_acquire(0.0).reason == "probe"
    answer(rate, 0.1)
    assert rate.try_acquire(0.1).delay_s == 0


def test_budget_is_spent_whole_and_those_in_flight_are_counted() -> None:
    """With 9 left, 8 at a time in flight: nine go out in all, then all wait for the reset."""
    rate = primed()
    sent = 0
    while rate.try_acquire(0.2).delay_s == 0:
        sent += 1
    assert (sent, rate.try_acquire(0.2).reason) == (8, "in flight")
    answer(rate, 0.3, sent_at=0.2, **{k.replace("-", "_"): v for k, v in full(1).items()})
    assert rate.try_acquire(0.3).reason == "limit"  # the other seven may be the ones that are left
    for _ in range(7):
        answer(rate, 0.3, sent_at=0.2, **{k.replace("-", "_"): v for k, v in full(1).items()})
    assert rate.try_acquire(0.4).delay_s == 0
    rate.answered(0.5, WALL, 200, full(0), b"", sent_at=0.4)
    decision = rate.try_acquire(0.6)
    assert decision.reason == "limit"
    assert 20 <= 0.6 + decision.delay_s <= 21.2  # whole seconds may have been cut
    assert rate.paused_for_s(0.6) == decision.delay_s
    budget = rate.budget(0.6)
    assert budget is not None
    assert (budget.limit, budget.remaining) == (10, 0)
    assert "x-ratelimit-remaining" in budget.source


def test_after_the_reset_one_goes_first() -> None:
    """A probe is sent into the next window; the others follow when it is answered."""
    rate = primed(left=0)
    assert rate.try_acquire(21.0).delay_s > 0
    assert rate.try_acquire(21.2).delay_s == 0
    assert rate.try_acquire(21.2).reason == "probe"
    rate.answered(21.3, WALL, 200, full(9), b"", sent_at=21.2)
    assert rate.try_acquire(21.3).delay_s == 0


@pytest.mark.parametrize("status", [403, 429, 503])
def test_one_pause_for_all_then_one_probe(status: int) -> None:
    """A 429 with Retry-After pauses all requests; a probe is sent after it."""
    rate = primed(left=9)
    for _ in range(3):
        assert rate.try_acquire(1.0).delay_s == 0
    assert answer(rate, 1.1, status, retry_after="30", sent_at=1.0) == "limited"
    assert rate.pause_reason == f"HTTP {status}, retry-after"
    assert rate.try_acquire(2.0).reason == "pause"
    answer(rate, 2.0, sent_at=1.0)
    assert rate.try_acquire(31.0).reason == "pause"
    assert rate.try_acquire(31.2).reason == ""
    answer(rate, 31.3, sent_at=1.0)  # a straggler proves nothing
    assert rate.try_acquire(31.3).reason == "probe"
    rate.answered(31.4, WALL, 200, full(9), b"", sent_at=31.2)
    assert rate.try_acquire(31.4).reason != "probe"
    assert rate.pause_reason == ""


def test_fifty_refusals_in_a_row_are_just_waits() -> None:
    """Each 429 causes a finite wait above zero; then requests are sent again."""
    rate, now = limiter(), 0.0
    for _ in range(50):
        assert rate.try_acquire(now).delay_s == 0
        assert answer(rate, now + 0.1, 429, sent_at=now) == "limited"
        wait_s = rate.try_acquire(now + 0.1).delay_s
        assert 0 < wait_s <= 63
        now += 0.1 + wait_s + 1e-6
    assert rate.try_acquire(now).delay_s == 0
    assert answer(rate, now + 0.1, sent_at=now) == "ok"
    assert rate.in_flight == 0


def test_a_refusal_with_retry_after_zero_still_waits() -> None:
    """The wait after a 429 is never zero, and longer from the second one in a row on."""
    rate, waits, now = limiter(), [], 0.0
    for _ in range(4):
        assert rate.try_acquire(now).delay_s == 0
        answer(rate, now, 429, retry_after="0")
        waits.append(rate.paused_for_s(now))
        now += waits[-1]
    assert waits == pytest.approx([0.25, 0.5, 0.5, 0.5])


def test_a_refusal_that_tells_only_its_reset_waits_for_that() -> None:
    """X-RateLimit-Reset stands in for a missing Retry-After."""
    rate = primed()
    answer_full(rate, 1.0, full(0, 19), status=429)
    assert rate.try_acquire(1.0).delay_s == pytest.approx(19)


def test_one_burst_of_refusals_is_one_pause() -> None:
    """Eight 429s to concurrent requests are one pause."""
    rate = limiter()
    rate.try_acquire(0.0)
    answer(rate, 0.1, sent_at=0.0)
    for _ in range(8):
        assert rate.try_acquire(0.2).delay_s == 0
    for _ in range(8):
        answer(rate, 0.3, 429, sent_at=0.2)
    assert rate.paused_for_s(0.3) <= 1.1


def test_a_wait_that_is_too_long_says_how_long() -> None:
    """A pause beyond RATE_LIMIT_MAX_WAIT is kept as it is, and reported."""
    rate = limiter(max_wait_s=3600)
    rate.try_acquire(0.0)
    assert rate.waits_too_long(0.0) is None
    answer(rate, 0.0, 429, retry_after="90000")
    assert rate.waits_too_long(0.0) == 90_000
    assert "retry-after" in rate.pause_reason


@pytest.mark.parametrize("retry_after", ["60", ""])
def test_refused_for_too_long_in_total_is_too_long(retry_after: str) -> None:
    """However short each single wait: from the first refusal to the end of the present pause."""
    rate, now, requests = limiter(max_wait_s=600), 0.0, 0
    while rate.waits_too_long(now) is None:
        assert rate.try_acquire(now).delay_s == 0
        answer(rate, now, 429, retry_after=retry_after)
        requests += 1
        if rate.waits_too_long(now) is None:
            now += rate.try_acquire(now).delay_s
    assert 500 < now <= 600
    assert requests <= 25
    assert rate.refused_for_s(now) == now


def test_a_success_in_between_begins_the_count_anew() -> None:
    """Only refusals in a row count: one success an hour keeps the crawl going."""
    rate, now = limiter(max_wait_s=600), 0.0
    for status in (429, 200) * 8:
        while delay_s := rate.try_acquire(now).delay_s:
            assert rate.waits_too_long(now) is None
            now += delay_s
        answer(rate, now, status, retry_after="100")
    assert now > 600


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "unauthorized"), (403, "unauthorized"), (404, "ok")]
)
def test_a_refused_key_is_told_apart(status: int, kind: str) -> None:
    """401 and 403 mean the key; other 4xx are left to the caller."""
    rate = limiter()
    rate.try_acquire(0.0)
    assert answer(rate, 0.1, status) == kind


def test_403_with_nothing_left_is_a_limit() -> None:
    """As GitHub and haproxy do; a 403 with requests left means the key."""
    rate = primed()
    rate.try_acquire(1.0)
    rate.try_acquire(1.0)
    assert rate.answered(1.1, WALL, 403, full(0, 30), b"", sent_at=1.0).kind == "limited"
    assert rate.answered(1.1, WALL, 403, full(5, 30), b"", sent_at=1.0).kind == "unauthorized"


def test_503_without_a_word_is_a_limit_when_several_come_at_once() -> None:
    """As nginx's limit_req does. A single 503, or one to a probe, is a failure."""
    rate = primed()
    for _ in range(4):
        rate.try_acquire(1.0)
    kinds = [answer(rate, 1.1, 503, sent_at=1.0) for _ in range(3)]
    assert kinds == ["failed", "limited", "limited"]
    now = 1.1 + rate.try_acquire(1.1).delay_s
    assert rate.try_acquire(now).delay_s == 0
    assert answer(rate, now, 503) == "failed"
    now += rate.try_acquire(now).delay_s
    assert rate.try_acquire(now).delay_s == 0
    assert answer(rate, now) == "ok"


def test_503_to_one_page_at_each_retry_is_its_failure() -> None:
    """Others succeed, then it is tried alone: nobody pauses, and its retries are used up."""
    rate = primed()
    rate.try_acquire(1.0)
    rate.try_acquire(1.0)
    assert answer(rate, 1.1, 503, sent_at=1.0) == "failed"
    assert answer(rate, 1.1, sent_at=1.0) == "ok"
    for now in (2.0, 5.0, 15.0):
        assert rate.try_acquire(now).delay_s == 0
        assert answer(rate, now + 0.1, 503, sent_at=now) == "failed"
        assert rate.paused_for_s(now + 0.1) == 0
        assert rate.pause_reason == ""


def test_once_a_pause_has_helped_a_single_503_is_a_limit() -> None:
    """Until a probe gets a 503: then the server is down."""
    rate = primed()
    for _ in range(3):
        rate.try_acquire(1.0)
    for _ in range(3):
        answer(rate, 1.1, 503, sent_at=1.0)
    now = 1.1 + rate.try_acquire(1.1).delay_s
    answer_full(rate, now, full(9))
    while delay_s := rate.try_acquire(now).delay_s:
        now += delay_s
    assert answer(rate, now, 503) == "limited"
    now += rate.try_acquire(now).delay_s
    assert rate.try_acquire(now).delay_s == 0
    assert answer(rate, now, 503) == "failed"


@pytest.mark.parametrize("status", [500, 0])
def test_a_probe_that_fails_is_followed_by_a_wait_and_another(status: int) -> None:
    """A server that is down isn't hit by all at once."""
    rate = limiter()
    rate.try_acquire(0.0)
    if status:
        assert rate.answered(0.1, WALL, 500, {}, b"", sent_at=0.0).kind == "failed"
    else:
        rate.failed(0.1, 0.0)
    assert 0 < rate.try_acquire(0.1).delay_s <= 0.5
    assert rate.try_acquire(1.0).delay_s == 0
    assert rate.try_acquire(1.0).reason == "probe"


def test_a_probe_that_hangs_is_followed_by_another() -> None:
    """A hanging probe is replaced before its time-out of two minutes; one is sent at a time."""
    rate = primed(left=0)
    assert rate.try_acquire(30.0).delay_s == 0
    assert rate.try_acquire(39.0).reason == "probe"
    assert rate.try_acquire(40.0).delay_s == 0
    assert rate.try_acquire(40.0).reason == "probe"
    rate.answered(40.1, WALL, 200, full(8), b"", sent_at=40.0)
    assert rate.try_acquire(40.1).delay_s == 0
    rate.failed(150.0, 30.0)
    assert rate.paused_for_s(150.0) == 0


def test_a_failure_of_another_request_is_not_a_pause() -> None:
    """A 500 or a reset of one request among many causes no pause."""
    rate = primed()
    for _ in range(2):
        rate.try_acquire(1.0)
    assert answer(rate, 1.1, 500, sent_at=1.0) == "failed"
    rate.failed(1.1, 1.0)
    assert rate.try_acquire(1.1).delay_s == 0


def test_an_unused_permit_is_given_back() -> None:
    """A request cancelled before it was sent returns its permit, and the probe's."""
    rate = limiter()
    rate.try_acquire(0.0)
    rate.cancelled(0.0)
    assert rate.in_flight == 0
    assert rate.try_acquire(0.2).delay_s == 0
    answer(rate, 0.3, sent_at=0.2)
    rate.try_acquire(0.4)
    rate.cancelled(0.4)
    assert rate.in_flight == 0


def test_an_unused_permit_of_another_leaves_the_probe_alone() -> None:
    """While a probe is on its way, cancelling an older request doesn't let a second one go."""
    rate = primed(left=9)
    rate.try_acquire(0.2)
    rate.try_acquire(0.2)
    rate.answered(0.3, WALL, 429, {"retry-after": "5"}, b"", sent_at=0.2)
    assert rate.try_acquire(6.0).delay_s == 0
    rate.cancelled(0.2)
    assert rate.try_acquire(6.1).reason == "probe"


def test_an_answer_out_of_nowhere_is_a_mistake() -> None:
    """An answer without a request raises an error."""
    with pytest.raises(RuntimeError, match="call try_acquire"):
        limiter().failed(0.0, 0.0)


def test_memory_and_the_servers_policy_bound_what_is_in_flight() -> None:
    """Bodies of 20 MB: three of them make 64 MB; waiting ones count as well, one always may go."""
    rate = limiter()
    rate.try_acquire(0.0)
    rate.answered(0.1, WALL, 200, {}, b" " * 20_000_000, sent_at=0.0)
    assert [rate.try_acquire(0.2).reason for _ in range(4)] == ["", "", "", "in flight"]
    for _ in range(3):
        answer(rate, 0.3, sent_at=0.2)
    assert [rate.try_acquire(0.4, 30_000_000).reason for _ in range(2)] == ["", "in flight"]
    answer(rate, 0.5, sent_at=0.4)
    assert [rate.try_acquire(0.6, 90_000_000).reason for _ in range(2)] == ["", "in flight"]
    served = limiter()
    served.try_acquire(0.0)
    policy = '"c";q=2;qu="concurrent-requests"'
    answer(served, 0.1, ratelimit_policy=policy, sent_at=0.0)
    assert [served.try_acquire(0.2).reason for _ in range(3)] == ["", "", "in flight"]


def test_limit_changes_are_followed_and_logged() -> None:
    """Each new limit is one message, not one per answer; with its window where that is known."""
    rate, said = limiter(), []
    for limit, left in ((10, 9), (10, 3), (30, 3), (5, 3)):
        rate.try_acquire(1.0)
        said += rate.answered(1.1, WALL, 200, full(left, 12, limit), b"", sent_at=1.0).messages
    source = "(x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset)"
    assert said == [
        f"Rate limit: 10 requests per 12 s {source}",
        f"Rate limit changed from 10 to 30 requests per 12 s {source}",
        f"Rate limit changed from 30 to 5 requests per 12 s {source}",
    ]


def test_a_window_that_had_begun_before_is_told_again() -> None:
    """Seven seconds are left of the first window; the second shows the length."""
    rate, said, now = limiter(), [], 0.0
    for left, reset in ((9, 7), (0, 7), (9, 20), (0, 20), (9, 20)):
        while delay_s := rate.try_acquire(now).delay_s:
            now += delay_s
        headers = full(left, reset)
        said += rate.answered(now, WALL + now, 200, headers, b"", sent_at=now).messages
    assert [message.partition(" (")[0] for message in said] == [
        "Rate limit: 10 requests per 7 s",
        "Rate limit: 10 requests per 20 s",
    ]


def test_nonsense_is_told_once() -> None:
    """One line for each field, not one for each answer."""
    rate, said = limiter(), []
    for _ in range(3):
        rate.try_acquire(0.0)
        headers = {"x-ratelimit-reset": "-5"}
        said += rate.answered(0.1, WALL, 200, headers, b"", sent_at=0.0).messages
    assert said == ["Ignored invalid rate-limit fields: x-ratelimit-reset: -5"]


def test_nothing_left_and_no_reset_waits_longer_each_time() -> None:
    """Without a word on when, one request asks again and again, ever later, up to a minute, while
    it is refused; each one that is answered shows that the wait was long enough.
    """
    rate, now, waits = limiter(), 0.0, []
    for status in [200] * 3 + [429] * 6 + [200] * 3:
        while delay_s := rate.try_acquire(now).delay_s:
            now += delay_s
        answer(rate, now, status=status, x_ratelimit_remaining="0", sent_at=now)
        until = rate.budget(now)
        assert until is not None
        waits.append(until.reset_in_s)
    assert waits == [2, 2, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    now += 60
    assert rate.try_acquire(now).delay_s == 0
    answer(rate, now, x_ratelimit_remaining="5", sent_at=now)
    assert [rate.try_acquire(now).reason for _ in range(6)] == ["", "", "", "", "", "limit"]


def test_a_limit_without_a_count_is_counted_here() -> None:
    """With limit and reset alone, our own requests are counted."""
    rate = limiter()
    now = 0.0
    for _ in range(3):
        assert rate.try_acquire(now).delay_s == 0
        answer(rate, now + 0.1, x_ratelimit_limit="3", x_ratelimit_reset="20", sent_at=now)
        now += 0.2
    assert rate.try_acquire(now).reason == "limit"


def test_headers_that_stop_coming_are_forgotten() -> None:
    """When a probe's answer has no quota any more, the old one is dropped."""
    rate = primed(left=0)
    assert rate.try_acquire(30.0).delay_s == 0
    answer(rate, 30.1, sent_at=30.0)
    assert rate.budget(30.1) is None
    assert [rate.try_acquire(30.2).delay_s for _ in range(3)] == [0, 0, 0]


def test_a_stated_limit_holds_from_the_first_request_on() -> None:
    """Two in ten seconds, whatever the server advertises; the budget shows our count."""
    rate = limiter(Limit(2, 10.0))
    for now in (0.0, 1.0):
        answer_full(rate, now, full(100, limit=1000))
    assert rate.try_acquire(2.0).reason == "limit"
    assert rate.try_acquire(2.0).delay_s == pytest.approx(8)
    budget = rate.budget(2.0)
    assert budget is not None
    assert (budget.limit, budget.remaining, budget.window_s, budget.source) == (
        2, 0, 10.0, "RATE_LIMIT",
    )  # fmt: skip


def test_the_server_may_lower_a_stated_limit() -> None:
    """Nothing left by its headers is nothing left."""
    rate = limiter(Limit(1000, 10.0))
    answer_full(rate, 0.0, full(0, 30))
    assert rate.try_acquire(1.0).delay_s > 28


def test_of_several_stated_limits_the_tightest_paces() -> None:
    """Two a second under three in ten seconds."""
    rate = limiter(Limit(2, 1.0), Limit(3, 10.0))
    answer_full(rate, 0.0, {})
    answer_full(rate, 0.1, {})
    assert rate.try_acquire(0.2).delay_s == pytest.approx(0.8)
    answer_full(rate, 1.1, {})
    assert rate.try_acquire(2.5).delay_s == pytest.approx(7.5)


def test_a_share_goes_evenly() -> None:
    """Half of ten in twenty seconds: one each four, whether the user or the server states it."""
    for rate, headers in (
        (limiter(Limit(10, 20.0), share=0.5), {}),
        (limiter(share=0.5), {"ratelimit": '"a";r=9;t=20', "ratelimit-policy": '"a";q=10;w=20'}),
    ):
        answer_full(rate, 0.0, headers)
        assert rate.try_acquire(0.1).delay_s == pytest.approx(3.9)
        answer_full(rate, 4.0, headers)
        assert rate.try_acquire(4.0).delay_s == pytest.approx(4)
        budget = rate.budget(4.0)
        assert budget is not None
        assert (budget.limit, budget.window_s) == (5, 20)


def test_a_share_is_kept_where_no_window_is_stated() -> None:
    """Also when other clients began the window: the longest reset estimates its length."""
    rate = limiter(share=0.5)
    answer_full(rate, 0.0, full(4, 20, limit=10))
    assert rate.try_acquire(0.1).delay_s == pytest.approx(3.9)


def test_another_limits_refusal_is_learned_while_headers_state_one() -> None:
    """Stacked limits share one set of fields: the one that refuses is learned, both hold, and the
    stated one's window isn't doubted.
    """
    rate = limiter()
    for now in range(5):
        answer_full(rate, float(now) / 10, full(29 - now, 60, limit=30))
    answer_full(rate, 0.5, full(0, 5, limit=5), status=429)
    assert rate.try_acquire(0.6).delay_s == pytest.approx(4.9)
    answer_full(rate, 5.5, full(24, 55, limit=30))
    assert rate.learned_limit == Limit(5, 5.5)
    budget = rate.budget(5.5)
    assert budget is not None
    assert budget.limit == 30  # the slower of the two
    for now in (5.6, 5.7, 5.8, 5.9):
        answer_full(rate, now, full(20, 54, limit=30))
    assert rate.try_acquire(6.0).reason == "limit"


def test_a_limit_that_only_refusals_state_is_learned() -> None:
    """Fields on a 429 alone: its retry time is waited for, and its limit is kept from then on."""
    rate = limiter()
    for now in range(5):
        answer_full(rate, float(now) / 10, {})
    answer_full(rate, 0.5, full(0, 20, limit=5), status=429)
    assert rate.try_acquire(0.6).delay_s == pytest.approx(19.9)
    answer_full(rate, 20.5, {})
    assert rate.learned_limit == Limit(5, 20.5)


def test_a_limit_that_was_lowered_is_learned_until_it_is_stated() -> None:
    """The 429 that states it first teaches it; once a success states it, it is advertised."""
    rate = limiter()
    for now in range(5):
        answer_full(rate, float(now) / 10, full(9 - now, 20, limit=10))
    answer_full(rate, 0.5, full(0, 20, limit=5), status=429)
    answer_full(rate, 20.5, full(4, 20, limit=5))
    assert rate.learned_limit is None


@pytest.mark.parametrize(("unit", "expected_s"), [(1000, 15), (1, 15_000)])
def test_resets_in_milliseconds_are_told_by_how_fast_they_fall(unit: int, expected_s: int) -> None:
    """Falling by 1,000 or by 1 a second: two answers show the unit."""
    rate = limiter()
    for now in (0.0, 2.0):
        answer_full(rate, now, full(9, 15_000 + int((4 - now) * unit), limit=10))
    answer_full(rate, 4.0, full(0, 15_000, limit=10))
    assert rate.try_acquire(4.0).delay_s == pytest.approx(expected_s, abs=1.1)


def test_a_policy_without_a_count_is_kept_by_counting() -> None:
    """`RateLimit-Policy` alone: three in ten seconds, counted here, beside an advertised quota."""
    rate = limiter()
    headers = {"ratelimit": '"day";r=500;t=3600', "ratelimit-policy": '"day";q=1000, "s";q=3;w=10'}
    for now in (0.0, 1.0, 2.0):
        answer_full(rate, now, headers)
    assert rate.try_acquire(3.0).delay_s == pytest.approx(7)


def test_servers_clock_is_ours_as_far_as_its_dates_allow() -> None:
    """Epoch resets are counted from the server's clock, an hour ahead of ours here."""
    rate = limiter()
    rate.try_acquire(0.0)
    date = formatdate(WALL + 3600, usegmt=True)
    headers = full(0, int(WALL) + 3620) | {"date": date}
    rate.answered(0.0, WALL, 200, headers, b"", sent_at=0.0)
    assert 20 <= rate.try_acquire(0.0).delay_s <= 21
    rate.try_acquire(30.0)  # another machine answers, whose clock is right
    headers = full(0, int(WALL) + 50) | {"date": formatdate(WALL + 30, usegmt=True)}
    rate.answered(30.0, WALL + 30, 200, headers, b"", sent_at=30.0)
    assert 20 <= rate.try_acquire(30.0).delay_s <= 21


def test_a_sliding_window_isnt_closed_by_an_answer_that_was_on_its_way() -> None:
    """Asked for at 10.00 s, when the second of ten hadn't left the window, answered at 10.06 s,
    when it had: "none left, 1 s" doesn't close it for another second.
    """
    rate = limiter()
    headers = {"ratelimit-policy": '"a";q=10;w=10', "ratelimit": '"a";r=9;t=10'}
    answer_full(rate, 0.0, headers)
    for left in range(8, -1, -1):
        answer_full(rate, 0.05, headers | {"ratelimit": f'"a";r={left};t=10'})
    assert rate.try_acquire(9.9).delay_s == pytest.approx(0.1)
    assert rate.try_acquire(10.0).delay_s == 0
    headers |= {"ratelimit": '"a";r=0;t=1'}
    rate.answered(10.06, WALL + 10.06, 200, headers, b"", sent_at=10.0)
    assert rate.try_acquire(10.06).delay_s == 0


def test_idle_time_is_left_out_once() -> None:
    """Three that are sent together after a minute without work: the rate is as before."""
    rate = limiter()
    for now in range(10):
        answer_full(rate, float(now), {})
    refuse(rate, 10.0, 10)
    answer_full(rate, 20.0, {})
    assert rate.learned_limit == Limit(10, 20.0)
    for now in range(21, 30):
        answer_full(rate, float(now), {})
    sent = [rate.try_acquire(100.0).delay_s for _ in range(3)]
    assert sent == [0, 0, 0]
    for _ in sent:
        answer(rate, 100.1, sent_at=100.0)
    refuse(rate, 101.0, 9)
    answer_full(rate, 110.0, {})
    assert rate.learned_limit is not None
    assert rate.learned_limit.rate_per_s == pytest.approx(13 / 30, rel=0.05)


def test_a_wrong_guess_of_the_window_makes_cautious() -> None:
    """A wrong window length costs one 429; then a second is added to resets."""
    rate = primed(left=9, reset=20)
    now = 0.0
    for _ in range(3):  # two windows begin with "20": they are 20 s long, we believe
        rate.try_acquire(now + 0.5)
        rate.answered(now + 0.5, WALL, 200, full(0, 20), b"", sent_at=now + 0.5)
        now += 0.5 + rate.try_acquire(now + 0.5).delay_s
        assert rate.try_acquire(now).delay_s == 0
        rate.answered(now, WALL, 200, full(9, 20), b"", sent_at=now)
    rate.try_acquire(now)
    rate.answered(now, WALL, 200, full(0, 20), b"", sent_at=now)
    assert rate.try_acquire(now).delay_s == pytest.approx(20)
    now += 20
    assert rate.try_acquire(now).delay_s == 0
    rate.answered(now, WALL, 429, full(0, 1), b"", sent_at=now)
    now += 2
    assert rate.try_acquire(now).delay_s == 0
    rate.answered(now, WALL, 200, full(0, 20), b"", sent_at=now)
    assert rate.try_acquire(now).delay_s == pytest.approx(21)


def test_a_wrong_guess_is_doubted_for_a_while_only() -> None:
    """After sixteen windows without a 429 the length is used again."""
    rate, now, waits = primed(left=9, reset=20), 0.2, []
    for window in range(16):
        answer_full(rate, now, full(0, 20))
        waits.append(rate.try_acquire(now).delay_s)
        now += waits[-1]
        if window == 4:
            answer_full(rate, now, full(0, 1), status=429)
            now += 2
        answer_full(rate, now, full(9, 20))
    assert waits[5] == pytest.approx(21)
    assert waits[-1] == pytest.approx(20)


def refuse(rate: Limiter, now: float, retry_after_s: int) -> None:
    answer_full(rate, now, {"retry-after": str(retry_after_s)}, status=429)


def restarted(rate: Limiter, now: float, *, later_s: float = 0.0, paused: bool = True) -> Limiter:
    """A new run that begins at 100 s, `later_s` after the old one's *now*."""
    fresh = limiter()
    data = json.loads(json.dumps(rate.snapshot(now)))
    pause_s = max(0.0, rate.paused_for_s(now) - later_s) if paused else 0.0
    fresh.restore(100.0, data, age_s=later_s, paused_for_s=pause_s)
    return fresh


def with_learned(requests: int, window_s: float, **own: float) -> Limiter:
    rate = limiter(**own)  # type: ignore[arg-type]
    rate.restore(0.0, {"limit": requests, "window_s": window_s}, age_s=0.0, paused_for_s=0.0)
    return rate


def test_what_was_learned_is_remembered() -> None:
    """A new run keeps the pause and the learned limit."""
    rate = limiter()
    for now in range(10):
        answer_full(rate, float(now), {})
    refuse(rate, 10.0, 50)
    answer_full(rate, 60.0, {})
    assert rate.learned_limit == Limit(10, 60.0)
    refuse(rate, 61.0, 40)
    fresh = restarted(rate, 62.0, later_s=10)
    assert fresh.try_acquire(100.0).reason == "pause"
    assert fresh.try_acquire(100.0).delay_s == pytest.approx(29)
    assert fresh.learned_limit == rate.learned_limit
    assert "retry-after" in fresh.pause_reason


def test_a_new_estimate_is_approached_by_doubling() -> None:
    """A bucket opens for one token, a window for all: twice as many each round trip, no burst."""
    rate = limiter()
    for _ in range(10):
        answer_full(rate, 0.0, {})
    refuse(rate, 10.0, 50)
    rate.try_acquire(60.0)
    answer(rate, 60.1, sent_at=60.0)
    sent, now = [], 60.1
    for _ in range(4):
        sent.append(0)
        while rate.try_acquire(now).delay_s == 0:
            sent[-1] += 1
        for _ in range(sent[-1]):
            answer(rate, now + 0.1, sent_at=now)
        now += 0.1
    assert sent == [1, 2, 4, 2]  # with the probe, the ten that went through before


def test_what_went_through_is_remembered_with_a_learned_limit() -> None:
    """Without headers, only the times of our requests show that the window is closed."""
    rate = with_learned(2, 20.0)
    for now in (1.0, 2.0):
        answer_full(rate, now, {})
    fresh = restarted(rate, 3.0, later_s=3)
    assert fresh.try_acquire(100.0).reason == "pause"
    assert fresh.try_acquire(100.0).delay_s == pytest.approx(15)
    counted = restarted(rate, 3.0, later_s=3, paused=False)
    assert counted.try_acquire(100.0).reason == "limit"
    assert counted.try_acquire(100.0).delay_s == pytest.approx(15)


def test_those_in_flight_are_remembered_with_a_learned_limit() -> None:
    """Requests in flight at a kill count in the next run."""
    rate = with_learned(5, 20.0)
    answer_full(rate, 0.0, {})
    while rate.try_acquire(1.0).delay_s == 0:
        pass
    rate.answered(1.0, WALL, 200, {}, b"", sent_at=1.0)
    while rate.try_acquire(1.0).delay_s == 0:
        pass
    in_flight = rate.in_flight
    fresh = restarted(rate, 1.0, later_s=10, paused=False)
    answered_at = [100.0 - 10 + offset for offset in (-1.0, 0.0, *[0.0] * in_flight)]
    assert len(answered_at) < 5 or fresh.try_acquire(100.0).delay_s > 0


def test_a_learned_wait_can_be_too_long() -> None:
    """A learned window longer than RATE_LIMIT_MAX_WAIT ends the crawl without a retry time."""
    rate = with_learned(1, 20.0, max_wait_s=10)
    answer_full(rate, 0.0, {})
    assert rate.try_acquire(5.0).reason == "limit"
    assert rate.waits_too_long(5.0) == pytest.approx(15)
    assert rate.waits_too_long(11.0) is None


def test_a_spent_window_is_remembered() -> None:
    """Also without a refusal: the last run spent the quota, the next waits for the reset."""
    fresh = restarted(primed(left=0), 5.0, later_s=1)
    assert fresh.try_acquire(100.0).delay_s == pytest.approx(15.1)
    assert restarted(primed(left=0), 5.0, later_s=600).try_acquire(100.0).delay_s == 0


@pytest.mark.parametrize("value", [None, "x", math.nan, math.inf, -5, [], True, 0, 1e300])
def test_senseless_memories_are_left_out(value: object) -> None:
    """Invalid stored values are ignored."""
    rate = limiter()
    for data in (
        dict.fromkeys(("limit", "window_s", "ages_s"), value),
        {"limit": 3, "window_s": 5.0, "ages_s": [value, -1]},
    ):
        rate.restore(0.0, data, age_s=0.0, paused_for_s=0.0)
        assert rate.try_acquire(0.0).delay_s == 0
        answer(rate, 0.0)


def test_a_remembered_limit_that_is_refused_at_once_is_kept() -> None:
    """A run's first request that is refused came too early; the limit's number stays."""
    rate = with_learned(10, 20.0)
    refuse(rate, 0.0, 5)
    rate.try_acquire(5.0)
    answer(rate, 5.1, sent_at=5.0)
    assert rate.learned_limit == Limit(10, 20.0)


def test_a_remembered_limit_is_a_first_guess() -> None:
    """One early refusal replaces the restored limit by the successes and their time."""
    rate = with_learned(10, 20.0)
    for now in (0.0, 1.0, 2.0):
        answer_full(rate, now, {})
    refuse(rate, 3.0, 3)
    answer_full(rate, 6.0, {})
    assert rate.learned_limit == Limit(3, 6.0)


def test_a_learned_limit_counts_those_in_flight() -> None:
    """With as many in flight as the limit allows, the next one waits."""
    rate = with_learned(2, 20.0)
    rate.try_acquire(0.0)
    answer(rate, 0.1, sent_at=0.0)
    answer_full(rate, 0.2, {})
    assert [rate.try_acquire(30.0).reason for _ in range(3)] == ["", "", "limit"]


def test_the_policys_window_stands_in_for_a_missing_reset() -> None:
    """Limit, remaining and the window's length: it ends one length from now at the latest."""
    rate = limiter()
    rate.try_acquire(0.0)
    answer(rate, 0.5, ratelimit='"a";r=4', ratelimit_policy='"a";q=5;w=20', sent_at=0.0)
    budget = rate.budget(0.5)
    assert budget is not None
    assert budget.reset_in_s == 20


def test_a_window_that_grows_longer_is_learnt_anew() -> None:
    """Two windows began with 20 s left; the next, with 60, isn't cut to 20."""
    rate, now = limiter(), 0.0
    for reset in (20, 20, 60):
        assert rate.try_acquire(now).delay_s == 0
        rate.answered(now, WALL, 200, full(9, reset), b"", sent_at=now)
        assert rate.try_acquire(now).delay_s == 0
        rate.answered(now, WALL, 200, full(0, reset), b"", sent_at=now)
        now += rate.try_acquire(now).delay_s
    assert now == pytest.approx(21 + 20 + 61)


class AnyServer(RuleBasedStateMachine):
    """Any sequence of sends, answers of every kind, failures and times between them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.rate = limiter()
        self.out: list[float] = []
        self.closed_until = 0.0

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.3, 1.0, 5.0, 20.0, 4000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        decision = self.rate.try_acquire(self.now)
        assert 0 <= decision.delay_s <= LONGEST_S * 2
        assert (decision.delay_s == 0) == (decision.reason == "")
        if decision.delay_s == 0:
            assert self.now >= self.closed_until, "sent into a window known closed"
            self.out.append(self.now)

    @precondition(lambda self: self.out)
    @rule(
        status=st.sampled_from([200, 200, 200, 429, 503, 500, 401, 404]),
        headers=st.dictionaries(
            st.sampled_from(["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset",
                             "retry-after", "ratelimit", "ratelimit-policy", "date"]),
            st.sampled_from(["0", "1", "2", "5", "20", "-1", "x", "1790000020", "1790000020500",
                             "99999", '"a";r=0;t=5', '"a";q=5;w=5',
                             "Mon, 21 Sep 2026 14:14:11 GMT"]),
        ),
        which=st.integers(min_value=0),
    )  # fmt: skip
    def answer(self, status: int, headers: dict[str, str], which: int) -> None:
        sent_at = self.out.pop(which % len(self.out))
        outcome = self.rate.answered(
            self.now, WALL + self.now, status, headers, b"", sent_at=sent_at
        )
        assert all(message.isprintable() for message in outcome.messages)
        assert status != 429 or outcome.kind == "limited"
        if outcome.kind == "limited":
            pause_s = self.rate.paused_for_s(self.now)
            assert 0 < pause_s <= LONGEST_S + 1
            self.closed_until = self.now + self.rate.try_acquire(self.now).delay_s

    @precondition(lambda self: self.out)
    @rule(before=st.booleans())
    def fail(self, before: bool) -> None:
        sent_at = self.out.pop()
        if before:
            self.rate.cancelled(sent_at)
        else:
            self.rate.failed(self.now, sent_at)

    @rule()
    def restart(self) -> None:
        data = json.loads(json.dumps(self.rate.snapshot(self.now)))
        pause_s = self.rate.paused_for_s(self.now)
        self.rate = limiter(Limit(100, 5.0), share=0.9)
        self.rate.restore(self.now, data, age_s=0.0, paused_for_s=pause_s)
        self.out = []

    @invariant()
    def in_flight_is_what_is_out(self) -> None:
        assert self.rate.in_flight == len(self.out)
        assert 0 <= self.rate.paused_for_s(self.now) < math.inf
        assert (self.rate.waits_too_long(self.now) or math.inf) > 0
        budget = self.rate.budget(self.now)
        assert budget is None or budget.remaining >= 0

    def teardown(self) -> None:
        """When all is answered and time has passed, a request is sent: the limiter never hangs."""
        for sent_at in self.out:
            self.rate.failed(self.now, sent_at)
        for _ in range(20):
            decision = self.rate.try_acquire(self.now)
            if decision.delay_s == 0:
                return
            self.now += decision.delay_s
        raise AssertionError(f"still waiting: {decision}")


TestAnyServer = AnyServer.TestCase
TestAnyServer.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


def test_a_server_that_is_down_isnt_one_that_refuses() -> None:
    """Its failures use up retries; they don't add up to RATE_LIMIT_MAX_WAIT."""
    rate, now = limiter(max_wait_s=60), 0.0
    for _ in range(20):
        while delay_s := rate.try_acquire(now).delay_s:
            now += delay_s
        rate.failed(now + 5, now)
        now += 5
        assert rate.waits_too_long(now) is None
    assert rate.refused_for_s(now) == 0
