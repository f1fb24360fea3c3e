"""The shared quota: what is asked of a key's row, and what its answers change."""

import math

from test_limiter import WALL, full, limiter

from datasync_crawler.ratelimit.limits import Limit
from datasync_crawler.ratelimit.shared import REPORTED_EVERY_S, Asked, Granted, SharedQuota

SIX = Limit(6, 12.0)


def quota(*limits: Limit, max_wait_s: float = 60.0) -> SharedQuota:
    return SharedQuota(limiter(*limits), max_wait_s=max_wait_s)


def grant(
    shared: SharedQuota, now: float, permits: int = 1, *, waiting: int = 1, accepted: int = 0,
    wait_s: float = 0.0, paused_s: float | None = None, learned: Limit | None = None,
) -> Asked:  # fmt: skip
    """One call and its answer; returns what was asked."""
    asked = shared.ask(now, waiting)
    assert asked is not None
    shared.granted(now, Granted(permits, wait_s, accepted, paused_s, learned))
    return asked


def send(shared: SharedQuota, now: float) -> None:
    """A request that the limiter and the row let go."""
    assert shared.decide(now).delay_s == 0
    assert shared._limiter.try_acquire(now).delay_s == 0
    shared.sent(now)


def refuse(shared: SharedQuota, now: float, sent_at: float) -> None:
    """The answer is a 429."""
    shared._limiter.answered(now, WALL + now, 429, {"retry-after": "5"}, b"", sent_at=sent_at)
    shared.ended(sent_at, "limited")


def test_the_first_request_needs_a_permit_and_leaves_the_limits_to_the_row() -> None:
    """Nothing is known yet: the row may know a limit, or a pause."""
    shared = quota()
    assert shared.decide(0.0).reason == "permit"
    assert not shared.keeps_left
    assert not shared.is_due(100.0)
    assert grant(shared, 0.0).limits is None
    assert shared.keeps_left
    assert shared.decide(0.0).delay_s == 0


def test_a_stated_limit_is_named_from_the_first_call_on() -> None:
    """The row counts in the windows that it is given."""
    assert grant(quota(SIX), 0.0).limits == [[6, 12.0]]


def test_without_a_limit_no_permit_is_needed() -> None:
    """Once the row was seen open: a call a second, for what it reports."""
    shared = quota()
    grant(shared, 0.0)
    send(shared, 0.0)
    shared.ended(0.0, "ok")
    assert shared.decide(0.5).delay_s == 0
    assert not shared.is_due(0.5)
    assert shared.is_due(REPORTED_EVERY_S)
    assert grant(shared, 1.0, 0, waiting=0).report["accepted"] == 1


def test_one_call_at_a_time() -> None:
    """While a call is under way, there is no other one."""
    shared = quota(SIX)
    assert shared.ask(0.0, 1) is not None
    assert shared.ask(0.0, 1) is None
    assert not shared.is_due(100.0)


def test_no_permit_waits_as_long_as_the_row_says() -> None:
    """The window is full: nobody asks again before it opens."""
    shared = quota(SIX)
    grant(shared, 0.0, 0, wait_s=4.0)
    assert shared.decide(1.0).delay_s == 3.0
    assert shared.decide(1.0).reason == "limit"
    assert shared.decide(4.0).reason == "permit"


def test_permits_that_were_kept_too_long_are_given_back() -> None:
    """They are used within a moment, or reported as returned."""
    shared = quota(SIX)
    grant(shared, 0.0, 2)
    send(shared, 0.0)
    assert shared.decide(5.0).reason == "permit"
    report = grant(shared, 5.0).report
    assert (report["answered"], report["returned"]) == (1, 1)


def test_large_limits_are_taken_in_handfuls() -> None:
    """A twentieth of the limit at once, kept for a fiftieth of its window."""
    shared = quota(Limit(1000, 10.0))
    grant(shared, 0.0)
    send(shared, 0.0)
    shared._limiter.answered(0.1, WALL, 200, {}, b"", sent_at=0.0)
    shared.ended(0.0, "ok")
    assert grant(shared, 1.0, 50, waiting=200).wanted == 50
    assert shared.decide(1.19).delay_s == 0
    assert shared.decide(1.21).reason == "permit"


def test_refused_permits_are_returned_and_the_pause_is_reported_once() -> None:
    """A 429 that one process meets pauses all with that key."""
    shared = quota(SIX)
    grant(shared, 0.0)
    send(shared, 0.0)
    refuse(shared, 0.1, 0.0)
    assert shared.is_due(0.1)
    report = grant(shared, 0.1, 0, paused_s=5.0).report
    assert (report["answered"], report["returned"]) == (1, 1)
    assert 0 < report["paused_s"] <= 6
    assert "paused_s" not in grant(shared, 0.2, 0, paused_s=4.9).report


def test_a_pause_of_another_process_is_kept_and_its_end_reported() -> None:
    """The first request that succeeds after it ends the row's pause."""
    shared = quota(SIX)
    grant(shared, 0.0, 0, paused_s=3.0)
    assert shared._limiter.check(1.0).delay_s >= 2
    grant(shared, 3.5, 1, paused_s=0.0)
    send(shared, 3.5)
    shared._limiter.answered(3.6, WALL, 200, {}, b"", sent_at=3.5)
    shared.ended(3.5, "ok")
    assert grant(shared, 4.0).report["resumed"] is True


def test_an_answer_from_before_the_pause_ends_nothing() -> None:
    """It was sent before the row was seen paused."""
    shared = quota(SIX)
    grant(shared, 0.0)
    send(shared, 0.0)
    grant(shared, 1.0, 0, paused_s=3.0)
    shared.ended(0.0, "ok")
    assert "resumed" not in grant(shared, 1.5, 0, paused_s=2.5).report


def test_what_is_left_of_an_advertised_quota_is_reported() -> None:
    """With its window, and the age of the request whose answer said so."""
    shared = quota()
    grant(shared, 0.0)
    send(shared, 0.0)
    shared._limiter.answered(0.1, WALL, 200, full(9), b"", sent_at=0.0)
    shared.ended(0.0, "ok")
    report = grant(shared, 0.5).report
    assert report["remaining"] == 9
    assert 18 < report["reset_in_s"] < 21
    assert report["sent_age_s"] == 0.5


def test_where_nothing_is_advertised_nothing_is_left_to_report() -> None:
    """None says that the row should forget what it knows."""
    shared = quota()
    grant(shared, 0.0)
    send(shared, 0.0)
    shared._limiter.answered(0.1, WALL, 200, {}, b"", sent_at=0.0)
    shared.ended(0.0, "ok")
    report = grant(shared, 0.5).report
    assert (report["remaining"], report["window"]) == (None, None)


def test_the_end_of_a_request_without_an_answer_says_nothing() -> None:
    """It isn't accepted, and shows no quota; its permit is spent."""
    shared = quota(SIX)
    grant(shared, 0.0)
    send(shared, 0.0)
    shared.ended(0.0)
    assert grant(shared, 0.5).report == {"answered": 1}


def test_a_limit_that_another_process_has_learned_is_adopted() -> None:
    """And isn't reported back."""
    shared = quota()
    grant(shared, 0.0)
    grant(shared, 1.0, learned=SIX)
    assert shared._limiter.learned_limit == SIX
    assert "learned" not in grant(shared, 2.0, learned=SIX).report


def test_a_limit_that_was_learned_here_is_reported() -> None:
    """The row's own is then the older one."""
    shared = quota()
    grant(shared, 0.0)
    shared._limiter.adopt(SIX)
    assert grant(shared, 1.0).report["learned"] == [6, 12.0]
    assert shared._limiter.learned_limit == SIX


def test_a_call_that_failed_is_reported_by_the_next() -> None:
    """Nothing that was seen is lost with the connection."""
    shared = quota(SIX)
    grant(shared, 0.0, 2)
    send(shared, 0.0)
    shared._limiter.answered(0.1, WALL, 200, {}, b"", sent_at=0.0)
    shared.ended(0.0, "ok")
    assert shared.ask(0.5, 1) is not None
    shared.lost(0.5)
    assert not shared.keeps_left
    report = grant(shared, 1.0).report
    assert (report["accepted"], report["answered"]) == (1, 1)
    assert shared.keeps_left


def test_a_row_that_cant_be_reached_is_waited_for_and_then_left() -> None:
    """After *max_wait_s* this process goes by its own limits; at once if it won't come back."""
    shared = quota(SIX, max_wait_s=60)
    shared.ask(0.0, 1)
    shared.lost(0.0)
    shared.ask(10.0, 1)
    shared.lost(10.0)
    assert shared.decide(59.0).reason == "permit"
    assert shared.decide(60.0).delay_s == 0
    gone = quota(SIX)
    gone.ask(0.0, 1)
    gone.lost(0.0, for_good=True)
    assert gone._lost_since == -math.inf
    assert gone.decide(0.0).delay_s == 0
