"""How ranges are asked for, and how a server that repeats itself is noticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.core.paging import Paging, RepeatWatch, Wanted
from datasync_crawler.core.ranges import Range


def paging(numbered_from: int | None = None) -> Paging:
    return Paging(
        "http://x/bulk", "http://x/events", "_start", "_limit", "after", numbered_from=numbered_from
    )


@pytest.mark.parametrize(
    ("numbered_from", "wanted", "url"),
    [
        (None, Wanted(1, Range(400, 100)), "http://x/bulk?_start=400&_limit=100"),
        (0, Wanted(1, Range(400, 100)), "http://x/bulk?_start=4&_limit=100"),
        (1, Wanted(1, Range(400, 100)), "http://x/bulk?_start=5&_limit=100"),
        (None, Wanted(1, Range(0, 100), ""), "http://x/events?_limit=100"),
        (None, Wanted(1, Range(9, 100), "a=/?"), "http://x/events?_limit=100&after=a%3D%2F%3F"),
    ],
)
def test_each_kind_of_pagination_has_its_address(
    numbered_from: int | None, wanted: Wanted, url: str
) -> None:
    """Offsets, pages numbered from 0 or 1, and cursors, each under the server's own names."""
    assert paging(numbered_from).url(wanted) == url


@given(st.integers(0, 10**6), st.integers(1, 5000), st.integers(1, 5000))
def test_a_numbered_page_holds_the_range_s_beginning(first: int, count: int, size: int) -> None:
    """Numbered pages begin at multiples of their size; offsets are taken as they are."""
    page = paging(1).aligned(Range(first, count), size)
    assert page.first % size == 0
    assert page.first <= first < page.stop
    assert page.count == size
    assert paging().aligned(Range(first, count), size) == Range(first, count)


def test_a_server_that_ignores_the_offset_is_noticed_at_the_third_repetition() -> None:
    """One page at four offsets, and never another: the offset is ignored."""
    watch = RepeatWatch()
    assert not watch.repeats(0, "a", "z", 100)
    assert not watch.repeats(0, "a", "z", 100)  # the same offset again is no repetition
    for number, offset in enumerate((100, 200, 300), start=1):
        assert watch.repeats(offset, "a", "z", 100)
        assert watch.offset_is_ignored == (number == 3)


def test_a_page_repeated_among_others_is_a_mishap() -> None:
    """A server that has served two different pages knows its offsets."""
    watch = RepeatWatch()
    watch.repeats(0, "a", "z", 100)
    watch.repeats(100, "b", "y", 100)
    assert all(watch.repeats(offset, "a", "z", 100) for offset in (200, 300, 400))
    assert not watch.offset_is_ignored


def test_pages_that_say_nothing_are_let_pass() -> None:
    """A single event, or a page without any good one, may well come twice."""
    watch = RepeatWatch()
    assert not any(watch.repeats(offset, "a", "a", 1) for offset in range(9))
    assert not any(watch.repeats(offset, None, None, 5) for offset in range(9))


def test_the_first_and_the_latest_pages_are_remembered() -> None:
    """A server that goes round, and one that stays at its last page; memory is bounded."""
    watch = RepeatWatch(most=2)
    assert not any(watch.repeats(offset, f"a{offset}", "z", 2) for offset in range(9))
    for offset, again in ((0, True), (1, True), (7, True), (8, True), (4, False)):
        assert watch.repeats(100 + offset, f"a{offset}", "z", 2) is again


def test_behind_a_short_numbered_page_stands_the_next_one() -> None:
    """Offsets look at the end itself; numbered pages at the last one again, and the next."""
    offsets = Paging("", "", "offset", "limit", "cursor")
    numbered = Paging("", "", "page", "size", "cursor", numbered_from=1)
    assert offsets.behind(12, 5) == [Range(12, 5)]
    assert numbered.behind(15, 5) == [Range(15, 5)]
    assert numbered.behind(12, 5) == [Range(12, 5), Range(17, 5)]
