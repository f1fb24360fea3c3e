"""When the rate controller lets a request go, what it makes of answers, what it remembers."""

import json
import math
from email.utils import formatdate

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from datasync_crawler.core.ratelimit import RateController
from datasync_crawler.core.ratelimit.headers import LONGEST_S

WALL = 1_790_000_000.0


def controller(max_in_flight: int | None = None, max_wait_s: float = 3600) -> RateController:
    return RateController(max_in_flight=max_in_flight, max_wait_s=max_wait_s, random=lambda: 0.5)


def full(left: int, reset: object = 20, limit: int = 10) -> dict[str, str]:
    return {
        "x-ratelimit-limit": str(limit),
        "x-ratelimit-remaining": str(left),
        "x-ratelimit-reset": str(reset),
    }


def answer(
    rate: RateController, now: float, status: int = 200, *, sent_at: float | None = None, **kw: str
) -> str:
    headers = {name.replace("_", "-"): text for name, text in kw.items()}
    return rate.answered(now, WALL + now, status, headers, b"", sent_at=sent_at).kind


def primed(left: int = 9, reset: object = 20) -> RateController:
    """A controller whose first request, at 0 s, was answered with full headers at 0.1 s."""
    rate = controller()
    assert rate.ask(0.0).delay_s == 0
    rate.answered(0.1, WALL, 200, full(left, reset), b"", sent_at=0.0)
    return rate


def test_the_first_request_goes_alone() -> None:
    """Its answer tells the limit: a second one could be one too many."""
    rate = controller()
    assert rate.ask(0.0).reason == ""
    assert rate.ask(0.0).reason == "probe"
    answer(rate, 0.1)
    assert rate.ask(0.1).delay_s == 0


def test_budget_is_spent_whole_and_those_in_flight_are_counted() -> None:
    """With 9 left, 8 at a time in flight: nine go out in all, then all wait for the reset."""
    rate = primed()
    sent = 0
    while rate.ask(0.2).delay_s == 0:
        sent += 1
    assert (sent, rate.ask(0.2).reason) == (8, "in flight")
    answer(rate, 0.3, sent_at=0.2, **{k.replace("-", "_"): v for k, v in full(1).items()})
    assert rate.ask(0.3).reason == "budget"  # the other seven may be the ones that are left
    for _ in range(7):
        answer(rate, 0.3, sent_at=0.2, **{k.replace("-", "_"): v for k, v in full(1).items()})
    assert rate.ask(0.4).delay_s == 0
    rate.answered(0.5, WALL, 200, full(0), b"", sent_at=0.4)
    decision = rate.ask(0.6)
    assert decision.reason == "budget"
    assert 20 <= 0.6 + decision.delay_s <= 21.2  # whole seconds may have been cut
    assert rate.paused_for_s(0.6) == decision.delay_s
    budget = rate.budget(0.6)
    assert budget is not None
    assert (budget.limit, budget.remaining) == (10, 0)
    assert "x-ratelimit-remaining" in budget.learnt_from


def test_after_the_reset_one_goes_first() -> None:
    """What the next window holds, a probe tells; then the others follow."""
    rate = primed(left=0)
    assert rate.ask(21.0).delay_s > 0
    assert rate.ask(21.2).delay_s == 0
    assert rate.ask(21.2).reason == "probe"
    rate.answered(21.3, WALL, 200, full(9), b"", sent_at=21.2)
    assert rate.ask(21.3).delay_s == 0


@pytest.mark.parametrize("status", [429, 503])
def test_one_pause_for_all_then_one_probe(status: int) -> None:
    """A refusal with Retry-After stops everything until then; one goes first after it."""
    rate = primed(left=9)
    for _ in range(3):
        assert rate.ask(1.0).delay_s == 0
    outcome = rate.answered(1.1, WALL, status, {"retry-after": "30"}, b"", sent_at=1.0)
    assert (outcome.kind, outcome.pause_s) == ("limited", 30)
    assert rate.ask(2.0).reason == "pause"
    answer(rate, 2.0, sent_at=1.0)
    assert rate.ask(31.0).reason == "pause"
    assert rate.ask(31.2).reason == ""
    answer(rate, 31.3, sent_at=1.0)  # a straggler proves nothing
    assert rate.ask(31.3).reason == "probe"
    rate.answered(31.4, WALL, 200, full(9), b"", sent_at=31.2)
    assert rate.ask(31.4).reason == ""
    notes = rate.take_notes()
    assert f"Pause of 30.0 s for all requests (HTTP {status}, retry-after)" in notes
    assert notes[-1] == "The API answers again after 30.3 s: going on"
    assert rate.take_notes() == ()


def test_fifty_refusals_in_a_row_are_just_waits() -> None:
    """Each is answered with a wait above zero and below a minute and a bit; then it goes on."""
    rate, now = controller(), 0.0
    for _ in range(50):
        assert rate.ask(now).delay_s == 0
        assert answer(rate, now + 0.1, 429, sent_at=now) == "limited"
        wait_s = rate.ask(now + 0.1).delay_s
        assert 0 < wait_s <= 63
        now += 0.1 + wait_s + 1e-6
    assert rate.ask(now).delay_s == 0
    assert answer(rate, now + 0.1, sent_at=now) == "ok"
    assert rate.in_flight == 0


def test_a_refusal_with_retry_after_zero_still_waits() -> None:
    """Never a wait of zero after a 429, and a longer one when it is said again."""
    rate, waits = controller(), []
    now = 0.0
    for _ in range(4):
        assert rate.ask(now).delay_s == 0
        waits.append(rate.answered(now, WALL, 429, {"retry-after": "0"}, b"", sent_at=now).pause_s)
        now += waits[-1]
    assert waits == [0.25, 0.5, 0.5, 0.5]


def test_a_refusal_that_tells_only_its_reset_waits_for_that() -> None:
    """X-RateLimit-Reset stands in for a missing Retry-After."""
    rate = primed()
    assert rate.ask(1.0).delay_s == 0
    assert rate.answered(1.1, WALL, 429, full(0, 19), b"", sent_at=1.0).pause_s == 19


def test_one_burst_of_refusals_is_one_pause() -> None:
    """Eight 429s to requests that were in flight together don't add up."""
    rate = controller()
    rate.ask(0.0)
    answer(rate, 0.1, sent_at=0.0)
    for _ in range(8):
        assert rate.ask(0.2).delay_s == 0
    pauses = [rate.answered(0.3, WALL, 429, {}, b"", sent_at=0.2).pause_s for _ in range(8)]
    assert max(pauses) <= 1.1
    assert len([note for note in rate.take_notes() if "Pause" in note]) == 1


def test_wait_too_long_says_how_long() -> None:
    """A pause above the longest wait is taken as it is, and told."""
    rate = controller(max_wait_s=3600)
    rate.ask(0.0)
    assert rate.wait_too_long(0.0) is None
    rate.answered(0.0, WALL, 429, {"retry-after": "90000"}, b"")
    assert rate.wait_too_long(0.0) == 90_000
    assert "retry-after" in rate.pause_reason


@pytest.mark.parametrize(("status", "kind"), [(401, "refused"), (403, "refused"), (404, "ok")])
def test_a_refused_key_is_told_apart(status: int, kind: str) -> None:
    """401 and 403 are about the key; other 4xx are the caller's business."""
    rate = controller()
    rate.ask(0.0)
    assert answer(rate, 0.1, status) == kind


@pytest.mark.parametrize("status", [500, 0])
def test_a_probe_that_fails_is_followed_by_a_wait_and_another(status: int) -> None:
    """A server that is down isn't hit by all at once."""
    rate = controller()
    rate.ask(0.0)
    if status:
        assert rate.answered(0.1, WALL, 500, {}, b"", sent_at=0.0).kind == "failed"
    else:
        rate.failed(0.1, sent_at=0.0)
    assert 0 < rate.ask(0.1).delay_s <= 0.5
    assert rate.ask(1.0).delay_s == 0
    assert rate.ask(1.0).reason == "probe"


def test_a_probe_that_hangs_is_followed_by_another() -> None:
    """Its time-out is two minutes: all would wait for it. Still one goes at a time."""
    rate = primed(left=0)
    assert rate.ask(30.0).delay_s == 0
    assert rate.ask(39.0).reason == "probe"
    assert rate.ask(40.0).delay_s == 0
    assert rate.ask(40.0).reason == "probe"
    rate.answered(40.1, WALL, 200, full(8), b"", sent_at=40.0)
    assert rate.ask(40.1).delay_s == 0
    rate.failed(150.0, sent_at=30.0)
    assert rate.paused_for_s(150.0) == 0


def test_a_failure_of_another_request_is_not_a_pause() -> None:
    """A 500 or a reset among many is retried by whoever sent it."""
    rate = primed()
    for _ in range(2):
        rate.ask(1.0)
    assert rate.answered(1.1, WALL, 500, {}, b"", sent_at=1.0).pause_s == 0
    rate.failed(1.1, sent_at=1.0)
    assert rate.ask(1.1).delay_s == 0


def test_an_unused_permit_is_given_back() -> None:
    """A request cancelled before it went out frees its place, and the probe's."""
    rate = controller()
    rate.ask(0.0)
    rate.sent_nothing(0.1)
    assert rate.in_flight == 0
    assert rate.ask(0.2).delay_s == 0
    answer(rate, 0.3, sent_at=0.2)
    rate.ask(0.4)
    rate.sent_nothing(0.5)
    assert rate.in_flight == 0


def test_an_unused_permit_of_another_leaves_the_probe_alone() -> None:
    """While a probe is on its way, cancelling an older request doesn't let a second one go."""
    rate = primed(left=9)
    rate.ask(0.2)
    rate.ask(0.2)
    rate.answered(0.3, WALL, 429, {"retry-after": "5"}, b"", sent_at=0.2)
    assert rate.ask(6.0).delay_s == 0
    rate.sent_nothing(6.1, sent_at=0.2)
    assert rate.ask(6.1).reason == "probe"


def test_an_answer_out_of_nowhere_is_a_mistake() -> None:
    """In flight never goes below zero; the caller is told."""
    with pytest.raises(RuntimeError, match="call ask"):
        controller().failed(0.0)


def test_in_flight_grows_while_nothing_limits_and_can_be_set() -> None:
    """A small number at first; a throttle may set it at any time."""
    rate = controller()
    assert rate.in_flight_limit == 8
    for _ in range(200):
        rate.ask(0.0)
        answer(rate, 0.0)
    assert 8 < rate.in_flight_limit <= 64
    rate.max_in_flight = 2
    assert rate.in_flight_limit == 2
    assert [rate.ask(1.0).reason for _ in range(3)] == ["", "", "in flight"]


def test_limit_changes_are_followed_and_noted() -> None:
    """Each new limit is one note, not one per answer."""
    rate = primed()
    for limit in (10, 30, 5):
        rate.ask(1.0)
        rate.answered(1.1, WALL, 200, full(3, 19, limit), b"", sent_at=1.0)
    notes = [note for note in rate.take_notes() if note.startswith("Limit")]
    source = "(x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset)"
    assert notes == [
        f"Limit learnt: 10 requests a window {source}",
        f"Limit changed, was 10: 30 requests a window {source}",
        f"Limit changed, was 30: 5 requests a window {source}",
    ]


def test_nonsense_is_noted_once() -> None:
    """One line for each field, not one for each answer."""
    rate = controller()
    for _ in range(3):
        rate.ask(0.0)
        answer(rate, 0.1, x_ratelimit_reset="-5")
    assert rate.take_notes() == ("Ignored, makes no sense: x-ratelimit-reset: -5",)


def test_nothing_left_and_no_reset_waits_longer_each_time() -> None:
    """Without a word on when, one request asks again and again, ever later, up to a minute, while
    it is refused; each one that is answered shows that the wait was long enough.
    """
    rate, now, waits = controller(), 0.0, []
    for status in [200] * 3 + [429] * 6 + [200] * 3:
        while delay_s := rate.ask(now).delay_s:
            now += delay_s
        answer(rate, now, status=status, x_ratelimit_remaining="0", sent_at=now)
        until = rate.budget(now)
        assert until is not None
        waits.append(until.reset_in_s)
    assert waits == [2, 2, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    now += 60
    assert rate.ask(now).delay_s == 0
    answer(rate, now, x_ratelimit_remaining="5", sent_at=now)
    assert [rate.ask(now).reason for _ in range(6)] == ["", "", "", "", "", "budget"]


def test_a_limit_without_a_count_is_counted_here() -> None:
    """Limit and reset alone: what we send is what is spent."""
    rate = controller()
    now = 0.0
    for _ in range(3):
        assert rate.ask(now).delay_s == 0
        answer(rate, now + 0.1, x_ratelimit_limit="3", x_ratelimit_reset="20", sent_at=now)
        now += 0.2
    assert rate.ask(now).reason == "budget"


def test_headers_that_stop_coming_are_forgotten() -> None:
    """When a probe's answer says nothing any more, the old budget doesn't hold us for ever."""
    rate = primed(left=0)
    assert rate.ask(30.0).delay_s == 0
    answer(rate, 30.1, sent_at=30.0)
    assert rate.budget(30.1) is None
    assert [rate.ask(30.2).delay_s for _ in range(3)] == [0, 0, 0]


def test_servers_clock_is_ours_as_far_as_its_dates_allow() -> None:
    """Epoch resets are counted from the server's clock, an hour ahead of ours here."""
    rate = controller()
    rate.ask(0.0)
    date = formatdate(WALL + 3600, usegmt=True)
    headers = full(0, int(WALL) + 3620) | {"date": date}
    rate.answered(0.0, WALL, 200, headers, b"", sent_at=0.0)
    assert 20 <= rate.ask(0.0).delay_s <= 21
    rate.ask(30.0)  # another machine answers, whose clock is right
    headers = full(0, int(WALL) + 50) | {"date": formatdate(WALL + 30, usegmt=True)}
    rate.answered(30.0, WALL + 30, 200, headers, b"", sent_at=30.0)
    assert 20 <= rate.ask(30.0).delay_s <= 21


def test_a_wrong_guess_of_the_window_makes_cautious() -> None:
    """A probe at the believed end that is refused costs one 429; then resets get a second more."""
    rate = primed(left=9, reset=20)
    now = 0.0
    for _ in range(3):  # two windows begin with "20": they are 20 s long, we believe
        rate.ask(now + 0.5)
        rate.answered(now + 0.5, WALL, 200, full(0, 20), b"", sent_at=now + 0.5)
        now += 0.5 + rate.ask(now + 0.5).delay_s
        assert rate.ask(now).delay_s == 0
        rate.answered(now, WALL, 200, full(9, 20), b"", sent_at=now)
    rate.ask(now)
    rate.answered(now, WALL, 200, full(0, 20), b"", sent_at=now)
    assert rate.ask(now).delay_s == pytest.approx(20)
    now += 20
    assert rate.ask(now).delay_s == 0
    rate.answered(now, WALL, 429, full(0, 1), b"", sent_at=now)
    now += 2
    assert rate.ask(now).delay_s == 0
    rate.answered(now, WALL, 200, full(0, 20), b"", sent_at=now)
    assert rate.ask(now).delay_s == pytest.approx(21)


def refuse(rate: RateController, now: float, retry_after_s: int) -> None:
    assert rate.ask(now).delay_s == 0
    rate.answered(now, WALL + now, 429, {"retry-after": str(retry_after_s)}, b"", sent_at=now)


def test_what_was_learnt_is_remembered() -> None:
    """A new run neither goes into a closed window nor starts from nothing."""
    rate = controller()
    for now in range(10):
        rate.ask(float(now))
        answer(rate, float(now), sent_at=float(now))
    refuse(rate, 10.0, 50)
    assert rate.ask(60.0).delay_s == 0
    answer(rate, 60.0, sent_at=60.0)
    assert rate.rate_per_s == pytest.approx(10 / 60)
    refuse(rate, 61.0, 40)
    data = json.loads(json.dumps(rate.snapshot(62.0, WALL + 62)))
    fresh = controller()
    assert fresh.rate_per_s is None
    fresh.restore(1000.0, WALL + 72, data)
    assert fresh.ask(1000.0).reason == "pause"
    assert fresh.ask(1000.0).delay_s == pytest.approx(29)
    assert fresh.rate_per_s == pytest.approx(rate.rate_per_s)
    assert "retry-after" in fresh.pause_reason


def test_a_new_belief_is_tried_with_care() -> None:
    """A bucket opens for one token, a window for all: twice as many each round trip, no burst."""
    rate = controller()
    for _ in range(10):
        rate.ask(0.0)
        answer(rate, 0.0, sent_at=0.0)
    refuse(rate, 10.0, 50)
    rate.ask(60.0)
    answer(rate, 60.1, sent_at=60.0)
    sent, now = [], 60.1
    for _ in range(4):
        sent.append(0)
        while rate.ask(now).delay_s == 0:
            sent[-1] += 1
        for _ in range(sent[-1]):
            answer(rate, now + 0.1, sent_at=now)
        now += 0.1
    assert sent == [1, 2, 4, 2]  # with the probe, the ten that went through before


def test_what_went_through_is_remembered_with_an_untold_limit() -> None:
    """Without headers nothing says that the window is closed but what was sent into it."""
    rate = controller()
    rate.restore(0.0, WALL, {"found_limit": 2, "found_window_s": 20.0})
    for now in (1.0, 2.0):
        rate.ask(now)
        answer(rate, now, sent_at=now)
    data = json.loads(json.dumps(rate.snapshot(3.0, WALL + 3)))
    fresh = controller()
    fresh.restore(100.0, WALL + 6, data)
    assert fresh.ask(100.0).reason == "pause"
    assert fresh.ask(100.0).delay_s == pytest.approx(15)
    data["paused_until"] = None
    counted = controller()
    counted.restore(100.0, WALL + 6, data)
    assert counted.ask(100.0).reason == "pace"
    assert counted.ask(100.0).delay_s == pytest.approx(15)
    data["let_through_at"] = [None, "x", math.inf, WALL + 1e9, True, []]
    senseless = controller()
    senseless.restore(100.0, WALL + 6, data)
    assert senseless.ask(100.0).delay_s == 0


def test_those_in_flight_are_remembered_with_an_untold_limit() -> None:
    """A process that is killed while answers are on their way: the next one counts them, too."""
    rate = controller()
    rate.restore(0.0, WALL, {"found_limit": 5, "found_window_s": 20.0})
    rate.ask(0.0)
    answer(rate, 0.0, sent_at=0.0)
    while rate.ask(1.0).delay_s == 0:
        pass
    data = json.loads(json.dumps(rate.snapshot(1.0, WALL + 1)))
    fresh = controller()
    fresh.restore(100.0, WALL + 11, data)
    assert fresh.ask(100.0).delay_s == pytest.approx(9)
    assert fresh.ask(109.0).delay_s == 0
    answer(fresh, 109.0, sent_at=109.0)
    assert fresh.ask(109.0).reason == "pace"


def test_a_wait_found_by_trying_can_be_too_long() -> None:
    """Also without a word from the API: a window longer than the longest wait ends the crawl."""
    rate = controller(max_wait_s=10)
    rate.restore(0.0, WALL, {"found_limit": 1, "found_window_s": 20.0})
    rate.ask(0.0)
    answer(rate, 0.0, sent_at=0.0)
    assert rate.ask(5.0).reason == "pace"
    assert rate.wait_too_long(5.0) == pytest.approx(15)
    assert rate.wait_too_long(11.0) is None


def test_a_spent_window_is_remembered() -> None:
    """Also without a refusal: the last run spent the budget, the next waits for the reset."""
    data = json.loads(json.dumps(primed(left=0).snapshot(5.0, WALL + 5)))
    fresh = controller()
    fresh.restore(100.0, WALL + 6, data)
    assert fresh.ask(100.0).reason == "budget"
    assert fresh.ask(100.0).delay_s == pytest.approx(15.1)
    late = controller()
    late.restore(100.0, WALL + 600, data)
    assert late.ask(100.0).delay_s == 0


@pytest.mark.parametrize("value", [None, "x", math.nan, math.inf, -5, [], True, 0, 1e300])
def test_senseless_memories_are_left_out(value: object) -> None:
    """A damaged memory costs nothing but the memory."""
    keys = (
        "paused_until",
        "closed_until",
        "remaining",
        "found_limit",
        "found_window_s",
        "cautious",
    )
    rate = controller()
    rate.restore(0.0, WALL, dict.fromkeys(keys, value))
    assert rate.ask(0.0).delay_s == 0
    assert rate.rate_per_s is None


def test_a_remembered_allowance_that_is_refused_at_once_is_kept() -> None:
    """The first request of a run is refused: it came too early, that says nothing on the number."""
    rate = controller()
    rate.restore(0.0, WALL, {"found_limit": 10, "found_window_s": 20.0})
    refuse(rate, 0.0, 5)
    assert rate.ask(5.0).delay_s == 0
    answer(rate, 5.1, sent_at=5.0)
    assert rate.rate_per_s == 0.5


def test_an_allowance_counts_those_in_flight() -> None:
    """As many in flight as the limit: the next one waits."""
    rate = controller()
    rate.restore(0.0, WALL, {"found_limit": 2, "found_window_s": 20.0})
    rate.ask(0.0)
    answer(rate, 0.1, sent_at=0.0)
    assert [rate.ask(30.0).reason for _ in range(3)] == ["", "", "pace"]


def test_the_policys_window_stands_in_for_a_missing_reset() -> None:
    """Limit, remaining and the window's length: it ends one length from now at the latest."""
    rate = controller()
    rate.ask(0.0)
    answer(rate, 0.5, ratelimit='"a";r=4', ratelimit_policy='"a";q=5;w=20', sent_at=0.0)
    budget = rate.budget(0.5)
    assert budget is not None
    assert budget.reset_in_s == 20


def test_a_window_that_grows_longer_is_learnt_anew() -> None:
    """Two windows began with 20 s left; the next, with 60, isn't cut to 20."""
    rate, now = controller(), 0.0
    for reset in (20, 20, 60):
        assert rate.ask(now).delay_s == 0
        rate.answered(now, WALL, 200, full(9, reset), b"", sent_at=now)
        assert rate.ask(now).delay_s == 0
        rate.answered(now, WALL, 200, full(0, reset), b"", sent_at=now)
        now += rate.ask(now).delay_s
    assert now == pytest.approx(21 + 20 + 61)


class AnyServer(RuleBasedStateMachine):
    """Any sequence of sends, answers of every kind, failures and times between them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.rate = RateController(max_in_flight=None, max_wait_s=3600, random=lambda: 0.5)
        self.out: list[float] = []
        self.closed_until = 0.0

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.3, 1.0, 5.0, 20.0, 4000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        decision = self.rate.ask(self.now)
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
        assert 0 <= outcome.pause_s <= LONGEST_S
        if status == 429:
            assert outcome.kind == "limited"
            assert outcome.pause_s > 0
        if outcome.kind == "limited":
            self.closed_until = self.now + outcome.pause_s

    @precondition(lambda self: self.out)
    @rule(before=st.booleans())
    def fail(self, before: bool) -> None:
        sent_at = self.out.pop()
        if before:
            self.rate.sent_nothing(self.now, sent_at=sent_at)
        else:
            self.rate.failed(self.now, sent_at=sent_at)

    @rule()
    def restart(self) -> None:
        data = json.loads(json.dumps(self.rate.snapshot(self.now, WALL + self.now)))
        self.rate = RateController(max_in_flight=3, max_wait_s=3600, random=lambda: 0.5)
        self.rate.restore(self.now, WALL + self.now, data)
        self.out = []

    @invariant()
    def in_flight_is_what_is_out(self) -> None:
        assert self.rate.in_flight == len(self.out)
        assert 0 <= self.rate.paused_for_s(self.now) < math.inf
        assert (self.rate.wait_too_long(self.now) or math.inf) > 3600
        budget = self.rate.budget(self.now)
        assert budget is None or budget.remaining >= 0

    def teardown(self) -> None:
        """When all is answered and time has passed, something goes out: it never hangs."""
        for sent_at in self.out:
            self.rate.failed(self.now, sent_at=sent_at)
        for _ in range(20):
            decision = self.rate.ask(self.now)
            if decision.delay_s == 0:
                return
            self.now += decision.delay_s
        raise AssertionError(f"still waiting: {decision}")


TestAnyServer = AnyServer.TestCase
TestAnyServer.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


def test_a_failed_probe_s_pause_is_counted_from_its_failure() -> None:
    """The note at its end says how long it lasted, not how long the machine has been up."""
    controller = RateController(max_in_flight=4, max_wait_s=3600, random=lambda: 0.0)
    started = 5000.0
    assert controller.ask(started).delay_s == 0.0
    controller.failed(started + 1, sent_at=started)
    again = started + 1 + controller.ask(started + 1).delay_s
    assert controller.ask(again).delay_s == 0.0
    controller.answered(again + 1, 0.0, 200, {}, b"", sent_at=again)
    lines = [note for note in controller.take_notes() if "answers again" in note]
    assert lines == ["The API answers again after 1.2 s: going on"], lines
