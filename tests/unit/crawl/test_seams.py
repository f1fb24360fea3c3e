"""How two responses lie to one another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.crawl.seams import SeamMatcher, agree, compare, joined
from datasync_crawler.crawl.values import Ask, Page

ids = [f"e{number}" for number in range(400)]


def page(first: int, count: int, overlap: int = 0, events: list[str] | None = None) -> Page:
    served = ids[first - overlap : first + count] if events is None else events
    return Page(Ask(1, first, count, overlap, seam=first if overlap else None), served)


@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 30))
def test_a_set_that_stands_still_is_exact_one_that_moved_is_deep(
    at: int, overlap: int, moved: int
) -> None:
    """Whatever the overlap: the depth is by how many events the set has moved."""
    at += overlap + moved
    before, behind = ids[:at], ids[at - overlap - moved : at + 20]
    found = compare(before, behind, overlap)
    assert (found.kind, found.depth) == (("deep", moved) if moved else ("exact", 0))


def test_a_seam_that_a_wide_overlap_holds_half_of_is_none() -> None:
    """An event of the one response that the other should hold, right at the seam: in doubt."""
    assert compare([*ids[:99], "lost"], ids[84:200], 16).kind == "doubt"


def test_events_that_went_away_leave_no_shared_event() -> None:
    """What was deleted before the seam moves events across it: in doubt, no disorder."""
    found = compare(ids[:100], ids[101:200], 1)
    assert (found.kind, found.disorder) == ("doubt", False)


def test_a_little_disorder_in_a_wide_overlap_is_calm_much_is_not() -> None:
    """Half of the overlap has to be free of it."""
    before = [*ids[:83], "e84", "e83", *ids[85:100]]  # where the overlap begins
    assert compare(before, ids[84:200], 16).kind == "overlap"
    mixed = ["x1", "x2", "x3", "x4", *ids[88:92], "x5", "x6", "x7", "x8", *ids[96:200]]
    found = compare(ids[:100], mixed, 16)
    assert (found.kind, found.disorder) == ("doubt", True)


def test_a_narrow_overlap_proves_no_disorder_calm() -> None:
    """Two events in another order may be a matter of a hundred."""
    assert compare([*ids[:98], "e99", "e98"], ids[98:200], 2).kind == "doubt"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1)])
def test_pages_are_compared_as_their_neighbours_come(order: tuple[int, ...]) -> None:
    """In whatever order three pages come, both seams are compared once."""
    pages = [page(0, 100), page(100, 99, 1), page(199, 99, 1)]
    matcher = SeamMatcher()
    found = [seam for place in order for seam in matcher.add(pages[place])]
    assert sorted((first, one.kind) for first, one in found) == [(100, "exact"), (199, "exact")]


def test_what_is_remembered_of_pages_is_bounded() -> None:
    """A neighbour that never comes costs no memory for good."""
    matcher = SeamMatcher(most=3)
    for number in range(1, 50):
        matcher.add(page(2 * number + 100, 10, 1))
    assert len(matcher._heads) == len(matcher._tails) == 3


def test_only_what_the_ledger_cant_see_is_written_down() -> None:
    """An exact seam of one event stands in the ledger; a wide one doesn't."""
    assert joined(5, compare(ids[:100], ids[99:150], 1)) is None
    assert joined(5, compare(ids[:100], ids[105:150], 1)) is None
    wide, deep = joined(5, compare(ids[:100], ids[84:150], 16)), compare(ids[:100], ids[96:150], 1)
    assert wide is not None
    assert wide.kind == "overlap"
    moved = joined(5, deep)
    assert moved is not None
    assert (moved.kind, moved.depth) == ("deep", 3)


def test_two_readings_agree_when_their_edges_dont_reach_the_seam() -> None:
    """Another order at the edges is one thing, at the seam another."""
    early = page(100, 100)
    edges = [*ids[130:133][::-1], *ids[133:230]]
    assert agree(early, page(130, 100, events=edges), 160)
    strange = [*ids[130:155], *(f"x{number}" for number in range(20)), *ids[175:230]]
    assert not agree(early, page(130, 100, events=strange), 160)
