"""The number of requests in flight, against servers that are simulated by their arithmetic."""

from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.core.concurrency import InFlight


def settle(policy: InFlight, latency_s: float, service_s: float, answers: int = 600) -> int:
    """Little's law: *latency_s* of waiting that many can share, *service_s* one after another."""
    for _ in range(answers):
        policy.answered(max(latency_s + service_s, policy.limit * service_s))
    return policy.limit


def test_a_slow_server_gets_as_many_as_help() -> None:
    """300 ms away and 10 ms of work an answer: thirty-one keep it busy, twice as many only wait."""
    assert 31 <= settle(InFlight(first=4, most=200), 0.3, 0.01) <= 62


def test_a_near_server_gets_a_few() -> None:
    """When answers are all work and no waiting, more in flight only queue."""
    assert 2 <= settle(InFlight(first=4, most=64), 0.0, 0.01) <= 12


def test_a_far_server_gets_them_soon() -> None:
    """Without a queue, four round trips make more than a hundred of eight."""
    assert settle(InFlight(first=8, most=200), 0.3, 0.0001, answers=8 + 16 + 32 + 64) > 100


def test_workers_is_the_most() -> None:
    """However far the server is away, the given number isn't passed."""
    assert settle(InFlight(first=4, most=10), 3.0, 0.001) == 10


def test_a_server_that_slows_down_gets_fewer() -> None:
    """What helped before is given back when answers queue."""
    policy = InFlight(first=4, most=64)
    before = settle(policy, 0.3, 0.01)
    assert settle(policy, 0.3, 0.1, answers=2000) < before


@given(
    st.lists(st.floats(min_value=-1, max_value=1e6, allow_nan=False), max_size=200),
    st.integers(-5, 100),
    st.integers(-5, 100),
)
def test_the_limit_stays_within_its_bounds(times: list[float], first: int, most: int) -> None:
    """Whatever the times, it's between the first number and *most*, and moves by one."""
    policy = InFlight(first=first, most=most)
    for took_s in times:
        before = policy.limit
        least = min(max(1, first), max(1, most))
        assert least <= policy.answered(took_s) <= max(1, most)
        assert abs(policy.limit - before) <= 1
