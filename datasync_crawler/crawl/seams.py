"""Seams: whether two neighbouring responses join. Pure.

Each response is a contiguous slice of the set at its moment. If two of them share an event, each
event that was there all the time stands before it in the one, or behind it in the other. This holds
as long as the order is stable; `compare` detects where it isn't.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from datasync_crawler.crawl.values import Joined, Page

#: The overlap from which on a disorder of less than half of it can be told from chance.
LEAST_WIDE: Final = 8
#: Pages whose edges are kept until their neighbours have come.
MOST_REMEMBERED: Final = 512


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two responses join: exact, deep, overlap, or doubt.

    `depth`: by how many events the set moved towards its end between them. `disorder`: they share
    events, in another order: a wider overlap may join them.
    """

    kind: str
    overlap: int
    depth: int = 0
    disorder: bool = False


def compare(before: Sequence[str], behind: Sequence[str], overlap: int) -> Comparison:
    """Compares the ids of two responses; *overlap*: offsets requested by both (at least 1).

    Deep: both hold the same events in the same order around the seam, at other offsets, and more
    than half of the overlap. Overlap: their order differs at the ends of the overlap, by less than
    half of it in sum; events that move at one end are all in one response, those at the other end
    in the other.
    """
    width = min(overlap, len(before), len(behind))
    if width == overlap and before[-width:] == behind[:width]:
        return Comparison("exact", overlap)
    at = _index(behind, before[-1])
    shared = 0 if at is None else at + 1
    if (
        shared
        and shared <= len(before)
        and 2 * shared > overlap
        and (before[-shared:] == behind[:shared])
    ):
        return Comparison("deep", overlap, shared - overlap)
    known, seen = set(before), set(behind)
    left = [place for place, one in enumerate(before[-width:], 1) if one not in seen]
    right = [width - place for place, one in enumerate(behind[:width]) if one not in known]
    taken = max(left, default=0) + max(right, default=0)
    if width >= LEAST_WIDE and 2 * taken < width:
        return Comparison("overlap", overlap)
    return Comparison("doubt", overlap, disorder=not seen.isdisjoint(known))


def agree(one: Page, other: Page, seam: int) -> bool:
    """Whether two readings around the offset *seam* hold the same events there.

    Where the order isn't stable, their edges differ; the differences must not reach the seam.
    """
    early, late = sorted((one, other), key=lambda page: page.ask.offset)
    start, stop = late.ask.offset, early.ask.offset + len(early.ids)
    before, behind = early.ids[start - early.ask.offset :], late.ids[: stop - start]
    in_early, in_late = set(early.ids), set(late.ids)
    left = [place for place, one_id in enumerate(before, 1) if one_id not in in_late]
    right = [place for place, one_id in enumerate(behind) if one_id not in in_early]
    return start + max(left, default=0) <= seam < start + min(right, default=len(behind) + 1)


def joined(first: int, comparison: Comparison) -> Joined | None:
    """The seam as it is stored; None if it is in doubt, or exact, which the ledger shows.

    A wide overlap is stored also when it is exact, since the ledger doesn't show that.
    """
    if comparison.kind == "deep":
        return Joined(first, "deep", comparison.depth)
    wide = comparison.kind == "exact" and comparison.overlap >= LEAST_WIDE
    return Joined(first, "overlap") if wide or comparison.kind == "overlap" else None


def _index(ids: Sequence[str], wanted: str) -> int | None:
    try:
        return ids.index(wanted)
    except ValueError:
        return None


class SeamMatcher:
    """Compares each page with its neighbours as they come. Keeps the edges of pages only.

    It only saves requests: seams that it can't compare are read again.
    """

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._heads: OrderedDict[int, tuple[int, Sequence[str]]] = OrderedDict()
        self._tails: OrderedDict[int, Sequence[str]] = OrderedDict()

    def add(self, page: Page) -> list[tuple[int, Comparison]]:
        """The comparisons that *page* makes possible, with the offsets of their seams."""
        ids, ask = page.ids, page.ask
        keep = max(64, 4 * (ask.overlap + 1))
        found = []
        if ask.seam is not None:
            overlap = ask.seam - ask.first + ask.overlap
            keep = max(keep, 4 * overlap)
            if (tail := self._tails.pop(ask.seam, None)) is not None:
                found.append((ask.first, compare(tail, ids, overlap)))
            else:
                self._remember(self._heads, ask.seam, (ask.first, ids[: keep + overlap]))
        if (head := self._heads.pop(page.stop, None)) is not None:
            first, behind = head
            overlap = page.stop - first + 1
            found.append((first, compare(ids, behind, overlap)))
        else:
            self._remember(self._tails, page.stop, ids[-keep:])
        return found

    def _remember(self, where: "OrderedDict[int, Any]", place: int, what: object) -> None:
        where[place] = what
        if len(where) > self._most:
            where.popitem(last=False)
