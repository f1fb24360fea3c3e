"""Settles seams in doubt: pages around them are read again until they join."""

from typing import Final

from datasync_crawler.crawl.reader import GAPS_AT_ONCE, Reader
from datasync_crawler.crawl.seams import agree
from datasync_crawler.crawl.values import Doubt, Joined, Page

#: Readings of one seam in doubt. Two in a row that bring nothing new settle it.
MOST_READINGS: Final = 8


async def settle_all(reader: Reader, before: int) -> int:
    """Settles all seams in doubt of the pass before the offset *before*; returns how many stay in
    doubt.
    """
    pass_no, after, ledger = reader.pass_no, -1, reader.world.ledger
    most = 1  # where the order is random, the first seam shows it
    while doubts := await ledger.doubts(pass_no, after=after, before=before, most=most):
        joined = await reader.run_concurrently(_settle(reader, doubt) for doubt in doubts)
        await ledger.join(pass_no, [fact for fact in joined if fact])
        if None in joined:  # one is enough: this pass can't be a proof
            return len(await ledger.doubts(pass_no, before=before, most=GAPS_AT_ONCE))
        after, most = doubts[-1].first, min(2 * most, reader.in_flight)
    return 0


async def _settle(reader: Reader, doubt: Doubt) -> Joined | None:
    """Reads a page around the seam until it holds an event of both sides, and two readings in a
    row agree and bring nothing new. None: still in doubt.
    """
    size = reader.sizes.size
    seam, reach = doubt.first + reader.shift, size // 2
    before: Page | None = None  # the last reading, if it held both sides and nothing new
    for number in range(1, MOST_READINGS + 1):
        page = await reader.check(seam - reach, size)
        reach = (size // 2, size // 3, 2 * size // 3)[number % 3]
        if not isinstance(page, Page):
            continue
        left = [place for place, one in enumerate(page.ids) if one in doubt.left]
        right = [place for place, one in enumerate(page.ids) if one in doubt.right]
        if left and right:
            place = (left[-1] + right[0]) // 2
            seam = page.ask.offset + place
            inside = _is_inside(page, place, size)
            agreed = doubt.same or (before is not None and agree(before, page, seam))
            if agreed and inside and not page.new:
                return Joined(doubt.first, "reread", readings=number)
            before = None if page.new else page
        elif left or right:
            seam += reach if left else -reach
        elif number > 2:
            return None
    return None


def _is_inside(page: Page, place: int, size: int) -> bool:
    """Whether a place is a quarter page away from the response's edges; the front and the end of
    the set don't count as edges.
    """
    return (page.ask.offset == 0 or place >= size // 4) and (
        len(page.ids) < size or place < len(page.ids) - size // 4
    )
