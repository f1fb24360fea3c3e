"""The page size is learned from what comes, not from accidents."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.crawl.sizes import COMMON_LIMITS, PROBE_EVERY, PageSize


def test_a_capped_limit_is_believed_when_it_was_seen_twice() -> None:
    """One short page changes nothing: it may have been cut by accident."""
    once = PageSize.of(5000).observe(5000, 300, 300)
    assert once.size == 5000
    assert once.observe(5000, 300, 5300).size == 300
    assert once.observe(5000, 5000, 10_000).observe(5000, 300, 5300).size == 5000


def test_a_truncated_first_page_and_a_short_last_one_change_nothing() -> None:
    """Three events of 5,000 once, and 17 at the end, are no page size."""
    size = PageSize.of(5000).observe(5000, 3, 3).observe(5000, 5000, 5002)
    assert size.observe(5000, 17, 5019).observe(5000, 17, 5019).size == 5000


def test_a_lowered_size_rises_again() -> None:
    """One request in so many asks for what the user wants."""
    low = PageSize.of(5000).observe(5000, 300, 300).observe(5000, 300, 5300)
    assert [low.ask(number) for number in range(1, PROBE_EVERY + 1)] == [300] * 15 + [5000]
    assert low.observe(5000, 5000, 10_000).size == 5000


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(1, 120)), max_size=30))
def test_the_size_stays_within_what_was_wanted_or_came(answers: list[tuple[int, int]]) -> None:
    """Never 0, never more than wanted, but for a server that serves more than it is asked for."""
    size = PageSize.of(100)
    for asked, received in answers:
        size = size.observe(asked, received, received)
        assert 1 <= size.size <= max(100, *(came for _, came in answers))


def test_a_limit_that_is_refused_is_lowered_to_what_is_common() -> None:
    """Down to ten, then there is no smaller one to try."""
    tried = []
    size: PageSize | None = PageSize.of(5000)
    while size is not None and (size := size.smaller_than(size.size)) is not None:
        tried.append(size.size)
    assert tried == list(COMMON_LIMITS)
