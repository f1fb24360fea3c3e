"""Arithmetic of offset ranges: gaps, and pages around positions. Pure."""

from collections.abc import Iterable, Iterator

from datasync_crawler.crawl.values import Gap, Range


def gaps(committed: Iterable[Range], total: int, *, after: int = 0) -> list[Gap]:
    """The gaps that *committed* ranges leave in [after, total); they may be unsorted and overlap.

    The SQL statement `gaps` has the same rule, and is tested against this function.
    """
    missing: list[Gap] = []
    reached, floor = after, 0
    for piece in sorted(committed):
        if piece.count <= 0:
            continue
        if piece.first >= total:
            break
        if piece.first > reached:
            missing.append(Gap(reached, piece.first, floor))
        reached, floor = max(reached, piece.stop), piece.first
    if reached < total:
        missing.append(Gap(reached, total, floor))
    return missing


def around(positions: Iterable[int], page_size: int) -> Iterator[Range]:
    """The fewest ranges of at most *page_size* events that hold all *positions* (sorted)."""
    found: Range | None = None
    for position in positions:
        if found is not None and position < found.first + page_size:
            found = Range(found.first, position - found.first + 1)
        else:
            if found is not None:
                yield found
            found = Range(position, 1)
    if found is not None:
        yield found


def in_words(missing: list[Gap]) -> str:
    """The first five gaps, as first–last, for a message."""
    shown = ", ".join(f"{gap.first}–{gap.stop - 1}" for gap in missing[:5])
    return f"offsets {shown}{', …' if len(missing) > 5 else ''}"
