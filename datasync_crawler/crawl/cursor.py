"""Reading by cursor, one page after another, for APIs without offsets.

The API's own chain of cursors takes the place of the seams.
"""

import logging

from datasync_crawler.crawl.extent import RepeatWatch
from datasync_crawler.crawl.front import EVERY_LIMIT
from datasync_crawler.crawl.planner import MOST_PASSES
from datasync_crawler.crawl.reader import Reader
from datasync_crawler.crawl.values import (
    Ask,
    CursorExpired,
    Empty,
    Failed,
    LimitRefused,
    Outcome,
    Page,
    Proof,
    Verdict,
)
from datasync_crawler.crawl.verdict import Evidence, judge, nothing_served

logger = logging.getLogger(__name__)


async def read_by_cursor(reader: Reader, *, redrive: bool = False) -> Verdict:
    """Reads to the end and proves the set; starts over if the cursor has expired."""
    ledger = reader.world.ledger
    state = await ledger.state()
    reader.recall(state.page_limit, 1)
    cursor, position = "", 0
    if state.open_pass is not None and not redrive:
        cursor, position = await ledger.cursor(state.open_pass)
    known = None if redrive or cursor else state.proof
    verdict = Verdict(complete=False)
    for _ in range(MOST_PASSES):
        reader.begin(state.pass_no if cursor else state.pass_no + 1)
        if cursor:
            logger.info("Resuming at the cursor behind event %d.", position)
        figures = await ledger.figures(reader.pass_no)
        reader.world.covered(figures.covered)
        verdict = await _pass(reader, cursor, position, known)
        if not verdict.again:
            break
        logger.info("Everything is read again: %s.", verdict.sentences[0])
        cursor, position, known = "", 0, None
        state = await ledger.state()
    return verdict


async def _pass(reader: Reader, cursor: str, position: int, known: Proof | None) -> Verdict:
    """One pass from *cursor* on."""
    watch, head, tail = RepeatWatch(), "", ""
    while True:
        page = await _fetch(reader, position, cursor)
        if isinstance(page, Empty):
            break
        if not isinstance(page, Page):
            return _failure(page, position)
        if _leads_back(page, position, cursor, watch):
            return _incomplete(
                f"the cursor leads to the same page again (behind event {position}): check "
                "CURSOR_PARAM and CURSOR_PATH"
            )
        head, tail = head or page.ids[0], page.ids[-1]
        if known is not None and known.head_id in page.ids:
            served = position + page.ids.index(known.head_id) + known.count
            if reader.extent.total == served:
                return await _prove(reader, head, known.tail_id, served, known.short)
            known = None  # the set changed elsewhere: read to the end
        position += page.stored
        if _is_open_end(page, position, reader.extent.total):
            return _incomplete(
                f"behind event {position} the API names neither a cursor (pagination.nextCursor) "
                "nor a total, and doesn't say that this is the end: check PAGINATION, NEXT_KEY and "
                "TOTAL_KEY"
            )
        if not page.next_cursor or page.has_more is False:
            break
        cursor = page.next_cursor
    if not tail:  # an empty answer to a stored cursor doesn't prove the end
        return _nothing(reader, position)
    first_id = (await reader.world.ledger.figures(reader.pass_no)).first_id
    return await _prove(reader, first_id, tail, position, 0)


def _nothing(reader: Reader, position: int) -> Verdict:
    """No event came, from the front or from a stored cursor."""
    if position:
        return _incomplete("a stored cursor brings no events", again=True, rerun=True)
    return nothing_served(reader.extent.total, is_first=reader.pass_no == 1)


async def _fetch(reader: Reader, position: int, cursor: str) -> Outcome:
    """The page at a cursor, with the largest limit that the API accepts."""
    while True:
        asked = Ask(reader.pass_no, position, reader.sizes.size, cursor=cursor)
        page = await reader.world.fetch(asked)
        reader.learn(page)
        smaller = reader.sizes.smaller_than(asked.count)
        if not isinstance(page, LimitRefused) or smaller is None:
            return page
        reader.sizes = smaller
        await reader.world.ledger.remember(page_limit=smaller.size)


def _leads_back(page: Page, position: int, cursor: str, watch: RepeatWatch) -> bool:
    again = watch.repeats(position, page.ids)
    return again or bool(page.next_cursor and page.next_cursor == cursor)


def _failure(outcome: Outcome, position: int) -> Verdict:
    """The verdict after an answer that isn't a page."""
    if isinstance(outcome, CursorExpired):
        logger.info("The cursor has expired: starting over; nothing is stored twice.")
        return _incomplete("the cursor has expired", again=True, rerun=True)
    cause = outcome.cause if isinstance(outcome, Failed) else EVERY_LIMIT
    return _incomplete(f"the page behind event {position} couldn't be fetched: {cause}", rerun=True)


def _incomplete(sentence: str, *, again: bool = False, rerun: bool = False) -> Verdict:
    return Verdict(complete=False, sentences=(sentence,), again=again, rerun=rerun)


async def _prove(reader: Reader, head: str, tail: str, served: int, short: int) -> Verdict:
    ledger, total = reader.world.ledger, reader.extent.total
    figures = await ledger.figures(reader.pass_no)
    if total is not None and total > served:
        cause = f"the cursor leads to {served:,} of {total:,} events only"
        return _incomplete(cause, again=True, rerun=True)
    verdict = judge(
        Evidence(figures=figures, served=served, total=total, short=short,
                 is_second=reader.pass_no > 1)
    )  # fmt: skip
    if verdict.complete:
        left = 0 if total is None else max(total - figures.distinct, 0)
        await ledger.prove(Proof(reader.pass_no, head, tail, served, total, left, "cursor"))
    return verdict


def _is_open_end(page: Page, position: int, total: int | None) -> bool:
    """Whether a page without a next cursor may not be the end: `hasMore` is true, or it is the
    only page, a full one, and there is no total.
    """
    if page.next_cursor or page.has_more is False:
        return False
    only_page = position == page.stored >= page.ask.count
    return bool(page.has_more) or (total is None and only_page)
