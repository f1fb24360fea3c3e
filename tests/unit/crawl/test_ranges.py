"""Gaps, and ranges around positions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.crawl.ranges import around, gaps, in_words
from datasync_crawler.crawl.values import Gap, Range

ranges = st.builds(Range, st.integers(0, 60), st.integers(0, 20))


@given(st.lists(ranges, max_size=12), st.integers(0, 80), st.integers(0, 80))
def test_gaps_are_what_is_left_out(pieces: list[Range], total: int, after: int) -> None:
    """Offset by offset, of overlapping and nested ranges in any order."""
    covered = {offset for piece in pieces for offset in range(piece.first, piece.stop)}
    found = gaps(pieces, total, after=after)
    missing = {offset for gap in found for offset in range(gap.first, gap.stop)}
    assert missing == set(range(after, total)) - covered


@given(st.lists(ranges, min_size=1, max_size=12), st.integers(1, 80))
def test_no_range_begins_between_a_gaps_floor_and_the_gap(pieces: list[Range], total: int) -> None:
    """So a wider overlap never begins where a range of the pass does."""
    firsts = [piece.first for piece in pieces if piece.count]
    for gap in gaps(pieces, total):
        assert not [first for first in firsts if gap.floor < first < gap.first]


@given(st.lists(st.integers(0, 200), unique=True).map(sorted), st.integers(1, 30))
def test_around_holds_every_position_in_pages(positions: list[int], page_size: int) -> None:
    """In ranges of a page at most that don't overlap."""
    found = list(around(positions, page_size))
    assert all(piece.count <= page_size for piece in found)
    held = {offset for piece in found for offset in range(piece.first, piece.stop)}
    assert set(positions) <= held


def test_many_gaps_are_named_by_the_first_few() -> None:
    """Five of them, then an ellipsis."""
    some = [Gap(10 * number, 10 * number + 3) for number in range(7)]
    assert in_words(some[:1]) == "offsets 0–2"
    assert in_words(some).endswith("40–42, …")
