"""Ranges of offsets: what is missing, and how it is cut into requests.

Pure arithmetic. Offsets and counts are in events; a range is [first, first + count).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """*count* events from offset *first* on."""

    first: int
    count: int

    @property
    def stop(self) -> int:
        """The first offset behind it."""
        return self.first + self.count


def split(ranges: Iterable[Range], page_size: int) -> Iterator[Range]:
    """Cuts *ranges* lazily into pieces of at most *page_size* events, in their order."""
    for whole in ranges:
        for first in range(whole.first, whole.stop, page_size):
            yield Range(first, min(page_size, whole.stop - first))


def union(ranges: Iterable[Range]) -> list[Range]:
    """The same offsets as *ranges* as the fewest ranges, sorted; empty ones vanish."""
    merged: list[Range] = []
    for piece in sorted(ranges):
        if piece.count <= 0:
            continue
        if merged and piece.first <= merged[-1].stop:
            last = merged.pop()
            merged.append(Range(last.first, max(last.stop, piece.stop) - last.first))
        else:
            merged.append(piece)
    return merged


def holes(committed: Iterable[Range], total: int, *, after: int = 0) -> list[Range]:
    """What *committed* ranges, in any order and overlapping, leave out of [after, total).

    The same rule as `Ledger.holes` follows in SQL; that one is held against this one.
    """
    missing: list[Range] = []
    reached = after
    for piece in sorted(committed):
        if piece.count <= 0:
            continue
        if piece.first >= total:
            break
        if piece.first > reached:
            missing.append(Range(reached, piece.first - reached))
        reached = max(reached, piece.stop)
    if reached < total:
        missing.append(Range(reached, total - reached))
    return missing


def widen(ranges: Iterable[Range], by: int, total: int) -> list[Range]:
    """*ranges*, each longer by *by* events on either side, within [0, total).

    When *by* events came in before them, what used to lie at offset n lies at n + by now; when
    as many went away, at n - by.
    """
    return union(
        Range(max(piece.first - by, 0), min(piece.stop + by, total) - max(piece.first - by, 0))
        for piece in ranges
    )


def around(positions: Iterable[int], page_size: int) -> list[Range]:
    """The fewest ranges of at most *page_size* events that hold all *positions* (sorted)."""
    found: list[Range] = []
    for position in positions:
        if found and position < found[-1].first + page_size:
            found[-1] = Range(found[-1].first, position - found[-1].first + 1)
        else:
            found.append(Range(position, 1))
    return found


def next_page_size(asked: int, limit: int | None, received: int, behind: int | None) -> int:
    """The page size that the server really has, learnt from one response.

    *asked*: events asked for; *limit*: what the response says it used (None: it doesn't say);
    *received*: events that came; *behind*: events that the total says lie behind the page's
    offset (None: no total). A server may cap the limit silently: what came counts.
    """
    if limit is not None and 0 < limit < asked:
        return limit
    if limit is None and behind is not None and 0 < received < min(asked, behind):
        return received
    return asked
