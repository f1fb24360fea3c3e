"""Permits of a key's row, on a real PostgreSQL: over all callers, no limit is exceeded."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasync_crawler.ratelimit.limits import Limit
from datasync_crawler.ratelimit.shared import Asked
from datasync_crawler.store.rate_limits import LimitMemory

if TYPE_CHECKING:
    from rooms import Room


def memory(room: Room, key: str = "k") -> LimitMemory:
    return LimitMemory(room.connector, room.schema, key)


def ask(
    wanted: int = 1,
    limits: list[list[float]] | None = None,
    latency_s: float = 0.0,
    **report: Any,
) -> Asked:
    return Asked(wanted, limits, latency_s, report)


def shift(room: Room, seconds: float) -> None:
    """Lets time pass for the row."""
    room.query(
        "UPDATE rate_limits SET grants = (SELECT coalesce(jsonb_agg(jsonb_build_array("
        "(g->>0)::float8 - %(s)s, g->1, g->2)), '[]') FROM jsonb_array_elements(grants) AS g), "
        "blocked_until = blocked_until - %(s)s * interval '1 second', "
        "resets_at = resets_at - %(s)s * interval '1 second', "
        "stated_at = stated_at - %(s)s * interval '1 second', "
        "probed_at = probed_at - %(s)s * interval '1 second'",
        {"s": seconds},
    )


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    limits=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 60)), min_size=1, max_size=2),
    steps=st.lists(
        st.tuples(st.integers(1, 30), st.floats(0, 20), st.floats(0, 2)), min_size=5, max_size=40
    ),
)
def test_no_window_holds_more_than_its_limit(
    room: Room, limits: list[tuple[int, int]], steps: list[tuple[int, float, float]]
) -> None:
    """Whatever is asked for when, and however late a request may arrive. Where nothing is granted,
    something is after the wait that was named.
    """
    room.query("TRUNCATE rate_limits")
    one, pairs, now = memory(room), [list(pair) for pair in limits], 0.0
    granted: list[tuple[float, float, int]] = []
    for wanted, pass_s, latency_s in steps:
        answer = one.take(ask(wanted, pairs, latency_s))
        assert 0 <= answer.granted <= wanted
        if answer.granted:
            granted.append((now, now + latency_s, answer.granted))
        else:
            assert answer.wait_s > 0
            shift(room, answer.wait_s)
            now += answer.wait_s
            again = one.take(ask(1, pairs, latency_s))
            assert again.granted == 1
            granted.append((now, now + latency_s, 1))
        for requests, window_s in limits:
            for begin, _, _ in granted:
                within = [number for at, _, number in granted if begin <= at < begin + window_s - 1]
                assert sum(within) <= requests, (requests, window_s, granted)
        shift(room, pass_s)
        now += pass_s
    one.close()


def test_callers_at_once_get_no_more_than_the_limit(room: Room) -> None:
    """Four threads that ask as fast as they can: eight in each second, and nearly all of them."""
    got: list[int] = []
    end = time.monotonic() + 2.5

    def caller() -> None:
        one = memory(room)
        while time.monotonic() < end:
            answer = one.take(ask(2, [[8, 1.0]]))
            got.append(answer.granted)
            if not answer.granted:
                time.sleep(min(answer.wait_s, 0.05))
        one.close()

    threads = [threading.Thread(target=caller) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 16 <= sum(got) <= 24


def test_keys_have_rows_of_their_own(room: Room) -> None:
    assert memory(room, "a").take(ask(5, [[5, 60.0]])).granted == 5
    assert memory(room, "a").take(ask(5, [[5, 60.0]])).granted == 0
    assert memory(room, "b").take(ask(5, [[5, 60.0]])).granted == 5


def test_without_a_limit_all_is_granted(room: Room) -> None:
    assert memory(room).take(ask(500, [])).granted == 500


def test_what_a_caller_leaves_out_is_the_rows(room: Room) -> None:
    """Somebody's own script gives no limits."""
    one = memory(room)
    assert one.take(ask(3, [[5, 60.0]])).granted == 3
    assert one.take(ask(10)).granted == 2


def test_a_pause_of_one_is_a_pause_of_all_and_ends_with_one_probe(room: Room) -> None:
    one, other = memory(room), memory(room)
    one.take(ask(1, []))
    one.take(ask(0, [], paused_s=30.0))
    answer = other.take(ask(4, []))
    assert (answer.granted, answer.paused_s is not None) == (0, True)
    assert 29 < answer.wait_s <= 30
    shift(room, 31)
    probe, waits = one.take(ask(4, [])), other.take(ask(4, []))
    assert (probe.granted, waits.granted) == (1, 0)
    one.take(ask(0, [], answered=1, accepted=1, resumed=True))
    assert other.take(ask(4, [])).granted == 4


def test_a_probe_whose_process_died_is_replaced(room: Room) -> None:
    one, other = memory(room), memory(room)
    one.take(ask(0, [], paused_s=1.0))
    shift(room, 2)
    assert one.take(ask(1, [])).granted == 1
    assert other.take(ask(1, [])).granted == 0
    shift(room, 11)
    assert other.take(ask(1, [])).granted == 1


def test_what_is_left_by_the_servers_word_is_left_for_all(room: Room) -> None:
    """Two that both read "5 left" send five together."""
    one, other = memory(room), memory(room)
    for each in (one, other):
        each.take(ask(0, [], remaining=5, reset_in_s=20.0, sent_age_s=0.1))
    assert one.take(ask(4, [])).granted == 4
    assert other.take(ask(4, [])).granted == 1
    assert other.take(ask(4, [])).granted == 0


def test_an_answer_to_an_earlier_request_raises_nothing(room: Room) -> None:
    """Its request was sent before the answer that says less had come."""
    one, other = memory(room), memory(room)
    one.take(ask(0, [], remaining=2, reset_in_s=20.0, sent_age_s=0.1))
    other.take(ask(0, [], remaining=5, reset_in_s=20.0, sent_age_s=10.0))
    assert other.take(ask(9, [])).granted == 2


def test_a_success_before_the_end_of_a_pause_does_not_end_it(room: Room) -> None:
    one, other = memory(room), memory(room)
    one.take(ask(0, [], paused_s=30.0))
    other.take(ask(0, [], accepted=1, resumed=True))
    assert other.take(ask(1, [])).granted == 0


def test_what_a_dead_process_had_is_spent_until_the_window_ends(room: Room) -> None:
    """And no longer: the probe of the next window has it all."""
    dead, other = memory(room), memory(room)
    other.take(ask(0, [], remaining=3, reset_in_s=5.0, sent_age_s=0.1))
    assert dead.take(ask(3, [])).granted == 3
    assert other.take(ask(1, [])).granted == 0
    shift(room, 8)
    assert other.take(ask(9, [])).granted == 1
    report = {"answered": 1, "accepted": 1, "remaining": 9, "reset_in_s": 5.0, "sent_age_s": 0.0}
    assert other.take(ask(9, [], **report)).granted == 9


def test_what_was_learned_and_accepted_is_everybodys(room: Room) -> None:
    one, other = memory(room), memory(room)
    one.take(ask(0, [], accepted=7, learned=[4, 2.5]))
    answer = other.take(ask(0, [], accepted=2))
    assert (answer.accepted, answer.learned) == (9, Limit(4, 2.5))
    other.take(ask(0, [], learned=None))
    assert one.take(ask(0, [])).learned is None


def test_the_log_of_grants_stays_short(room: Room) -> None:
    one = memory(room)
    for _ in range(300):
        one.take(ask(1, [[1000, 3600.0]]))
    assert room.query("SELECT jsonb_array_length(grants) <= 70 FROM rate_limits") == [(True,)]
    assert one.take(ask(1000, [[1000, 3600.0]])).granted == 700


def test_refused_requests_dont_count_towards_a_limit(room: Room) -> None:
    """Five of six are refused: five more may be sent, and the one that succeeded counts on."""
    one = memory(room)
    assert one.take(ask(1, [[6, 60.0]])).granted == 1
    assert one.take(ask(5, [[6, 60.0]])).granted == 5
    answer = one.take(ask(9, [[6, 60.0]], answered=6, accepted=1, returned=5))
    assert (answer.granted, one.take(ask(1, [[6, 60.0]])).granted) == (5, 0)


def test_a_sliding_window_opens_when_the_first_grants_leave_it(room: Room) -> None:
    """An answer that was asked for before they left says "none left" until a whole second later."""
    one = memory(room)
    one.take(ask(0, [], remaining=10, reset_in_s=2.0, sent_age_s=0.0, window=[10, 2.0]))
    assert one.take(ask(10, [])).granted == 10
    shift(room, 2.01)
    report = {"answered": 10, "accepted": 10, "remaining": 0, "reset_in_s": 2.0}
    answer = one.take(ask(1, [], **report, sent_age_s=0.05))
    assert (answer.granted, answer.wait_s) == (1, 0)


def test_a_shortened_log_lets_no_grant_leave_its_window_early(room: Room) -> None:
    """Grants that have become one entry count from the last of them."""
    one, granted = memory(room), []
    for _ in range(70):
        assert one.take(ask(1, [[1000, 1.0]])).granted == 1
        granted.append(room.query("SELECT (grants->-1->>0)::float8 FROM rate_limits")[0][0])
    ((log,),) = room.query("SELECT grants FROM rate_limits")
    assert len(log) < 65
    kept = sorted(at for at, _, number in log for _ in range(number))
    assert len(kept) == 70
    assert all(later >= at for later, at in zip(kept, granted, strict=True))


def test_the_wait_is_for_the_first_grant_that_leaves_room(room: Room) -> None:
    one = memory(room)
    assert one.take(ask(1, [[2, 10.0]])).granted == 1
    shift(room, 4)
    assert one.take(ask(1, [[2, 10.0]])).granted == 1
    assert 5 < one.take(ask(1, [[2, 10.0]])).wait_s <= 6


def test_a_grant_is_dated_behind_the_wait_for_the_row(room: Room) -> None:
    """Else a grant that has waited would leave its window too early."""
    one = memory(room)
    one.take(ask(1, [[5, 60.0]]))
    held = room.database.connect()
    held.autocommit = False
    with held.cursor() as cursor, ThreadPoolExecutor(1) as thread:
        cursor.execute("SELECT 1 FROM rate_limits FOR UPDATE")
        taking = thread.submit(one.take, ask(1, [[5, 60.0]]))
        time.sleep(0.5)
        released_s = room.query("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0]
        held.rollback()
        assert taking.result().granted == 1
    held.close()
    assert room.query("SELECT (grants->-1->>0)::float8 >= %s FROM rate_limits", (released_s,)) == [
        (True,)
    ]


def test_a_request_that_may_arrive_late_counts_from_then_on(room: Room) -> None:
    one = memory(room)
    assert one.take(ask(1, [[1, 10.0]], latency_s=5.0)).granted == 1
    shift(room, 12)
    answer = one.take(ask(1, [[1, 10.0]]))
    assert answer.granted == 0
    assert 2 < answer.wait_s <= 3
