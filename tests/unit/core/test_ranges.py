"""Ranges: what is missing, held against plain sets of offsets."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.core import ranges
from datasync_crawler.core.ranges import Range

ANY_RANGES = st.lists(st.builds(Range, st.integers(0, 60), st.integers(0, 30)), max_size=12)
TOTALS = st.integers(0, 80)


def offsets(pieces):
    return [offset for piece in pieces for offset in range(piece.first, piece.stop)]


@given(ANY_RANGES, st.integers(1, 40))
def test_split_keeps_every_offset_in_order(pieces, page_size):
    """Split pieces hold the same offsets in the same order, none longer than a page."""
    cut = list(ranges.split(pieces, page_size))
    assert offsets(cut) == offsets(pieces)
    assert all(0 < piece.count <= page_size for piece in cut)


def test_split_is_lazy():
    """A range of a million million events is cut as it is asked for."""
    assert next(ranges.split([Range(5, 10**12)], 5000)) == Range(5, 5000)


@given(ANY_RANGES)
def test_union_is_the_same_offsets_in_the_fewest_ranges(pieces):
    """A union holds each offset once, sorted, and no two of its ranges touch."""
    merged = ranges.union(pieces)
    assert offsets(merged) == sorted(set(offsets(pieces)))
    assert all(left.stop < right.first for left, right in pairwise(merged))


@given(ANY_RANGES, TOTALS, st.integers(0, 90))
def test_holes_are_what_is_left_out(pieces, total, after):
    """Holes are the offsets of [after, total) that no range holds, in the fewest ranges."""
    missing = ranges.holes(pieces, total, after=after)
    assert offsets(missing) == sorted(set(range(after, total)) - set(offsets(pieces)))
    assert missing == ranges.union(missing)


@given(ANY_RANGES, st.integers(0, 20), TOTALS)
def test_widen_adds_what_came_in_or_went_away_before_it(pieces, by, total):
    """Widened ranges hold each of their offsets' places before and after the shift."""
    wide = set(offsets(ranges.widen(pieces, by, total)))
    wanted = {
        offset
        for piece in pieces
        for offset in range(max(piece.first - by, 0), min(piece.stop + by, total))
    }
    assert wide == wanted


@pytest.mark.parametrize(
    ("asked", "limit", "received", "behind", "size"),
    [
        (5000, 1000, 1000, 90_000, 1000),  # it says so
        (5000, None, 1000, 90_000, 1000),  # it doesn't, but the total does
        (5000, None, 1000, 1000, 5000),  # the last page is short by right
        (5000, None, 1000, None, 5000),  # no total: a short page says nothing
        (5000, 5000, 1000, 90_000, 5000),  # a short page, not a capped one
        (5000, 0, 1000, 90_000, 5000),
        (5000, 9000, 5000, 90_000, 5000),
        (5000, None, 0, 90_000, 5000),
        (1, None, 1, 90_000, 1),
    ],
)
def test_next_page_size_learns_a_cap(asked, limit, received, behind, size):
    """A silent cap is learnt from what came; a page that is short for another reason isn't one."""
    assert ranges.next_page_size(asked, limit, received, behind) == size


@given(st.sets(st.integers(0, 200)), st.integers(1, 40))
def test_around_holds_every_position_in_pages(positions, page_size):
    """Positions come back in ranges of a page at most, that begin and end at one of them."""
    found = ranges.around(sorted(positions), page_size)
    assert positions <= set(offsets(found))
    assert all(piece.count <= page_size for piece in found)
    assert all(piece.first in positions and piece.stop - 1 in positions for piece in found)
    assert all(left.first + page_size <= right.first for left, right in pairwise(found))
