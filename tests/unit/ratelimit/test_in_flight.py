"""The number of requests in flight, against servers that are simulated by their arithmetic."""

from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.ratelimit.in_flight import InFlightLimit


def policy(first: int, most: int, max_bytes: int = 10**9) -> InFlightLimit:
    return InFlightLimit(first=first, most=most, max_bytes=max_bytes)


def settle(limit: InFlightLimit, latency_s: float, service_s: float, answers: int = 600) -> int:
    """Little's law: *latency_s* of waiting that many can share, *service_s* one after another."""
    for _ in range(answers):
        limit.sent(limit.limit())
        limit.answered(max(latency_s + service_s, limit.limit() * service_s), 1000)
    return limit.limit()


def test_a_slow_server_gets_as_many_as_help() -> None:
    """300 ms away and 10 ms of work an answer: thirty-one keep it busy, twice as many only wait."""
    assert 31 <= settle(policy(4, 200), 0.3, 0.01) <= 62


def test_a_near_server_gets_a_few() -> None:
    """When answers are all work and no waiting, more in flight only queue."""
    assert 2 <= settle(policy(4, 64), 0.0, 0.01) <= 12


def test_a_far_server_gets_them_soon() -> None:
    """Without a queue, four round trips make more than a hundred of eight."""
    assert settle(policy(8, 200), 0.3, 0.0001, answers=8 + 16 + 32 + 64) > 100


def test_workers_is_the_most() -> None:
    """However far the server is away, the given number isn't passed."""
    assert settle(policy(4, 10), 3.0, 0.001) == 10


def test_a_server_that_slows_down_gets_fewer() -> None:
    """What helped before is given back when answers queue."""
    limit = policy(4, 64)
    before = settle(limit, 0.3, 0.01)
    assert settle(limit, 0.3, 0.1, answers=2000) < before


def test_answers_say_nothing_while_the_limit_isnt_reached() -> None:
    """Sixty quick answers with one in flight leave it where it was."""
    limit = policy(8, 64)
    for _ in range(60):
        limit.sent(1)
        limit.answered(0.01, 1000)
    assert limit.limit() == 8


def test_answers_that_come_at_once_count_each() -> None:
    """All of a round trip, before the next request goes out: twice as many."""
    limit = policy(8, 64)
    for expected in (16, 32, 64, 64):
        before = limit.limit()
        for in_flight in range(1, before + 1):
            limit.sent(in_flight)
        for _ in range(before):
            limit.answered(0.3, 1000)
        assert limit.limit() == expected


def test_memory_bounds_large_bodies() -> None:
    """Of 60 MB one fits into 64 MB, of 1 MB all; waiting ones take room, but one always may go."""
    limit = policy(64, 64, 64_000_000)
    assert limit.limit() == 64
    limit.answered(0.1, 60_000_000)
    assert limit.limit() == 1
    for _ in range(300):
        limit.answered(0.1, 1_000_000)
    assert limit.limit() == 64
    assert limit.limit(waiting_bytes=60_000_000) == 4
    assert limit.limit(waiting_bytes=10**9) == 1


@given(
    st.lists(st.floats(min_value=-1, max_value=1e6, allow_nan=False), max_size=200),
    st.integers(-5, 100),
    st.integers(-5, 100),
)
def test_the_limit_stays_within_its_bounds(times: list[float], first: int, most: int) -> None:
    """Whatever the times, it's between the first number and *most*, and moves by one."""
    limit = policy(first, most)
    for took_s in times:
        before = limit.limit()
        least = min(max(1, first), max(1, most))
        limit.sent(before)
        limit.answered(took_s, 0)
        assert least <= limit.limit() <= max(1, most)
        assert abs(limit.limit() - before) <= 1
