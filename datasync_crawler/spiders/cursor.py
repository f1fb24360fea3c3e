"""The second road: by cursor, one page after another, where offsets lead nowhere.

Owns the order of its pages and its starting over. Must not know of requests and responses.
"""

import logging
from collections.abc import AsyncIterator
from typing import Final

from datasync_crawler.core.paging import RepeatWatch, Wanted
from datasync_crawler.core.ranges import Range
from datasync_crawler.items import EventPage
from datasync_crawler.spiders.asking import Asking
from datasync_crawler.spiders.heard import Incomplete
from datasync_crawler.store.ledger import LedgerState

logger = logging.getLogger(__name__)

#: Times that a crawl by cursor starts over (expired cursors, an early end).
MOST_CURSOR_PASSES: Final = 3


async def pages(plan: Asking, state: LedgerState) -> AsyncIterator[Wanted]:
    """One page after another, each named by the one before; the same ledger and proof."""
    cursor, position = await plan.in_thread(plan.ledger.live_cursor)
    known = not plan.redrive and await _is_known(plan)
    if plan.redrive or known:  # rejected events can only be had by reading all; new ones are first
        cursor, position = "", 0
    plan.pass_no = state.last_pass if cursor else plan.pass_no + bool(plan.unusable)
    if cursor:
        logger.info("Going on at the cursor behind event %d.", position)
    for _ in range(MOST_CURSOR_PASSES):
        # A stored cursor that leads nowhere, or to itself, proves nothing of the end.
        proves, followed, watch = not cursor, {cursor}, RepeatWatch()
        while True:
            plan.last_page, plan.empty_at, plan.expired = None, None, False
            yield Wanted(plan.pass_no, plan.hand_out(Range(position, plan.page_size)), cursor)
            await plan.settled()
            page = plan.last_page
            if page is None:
                break
            stands = plan.total is not None and not plan.changed_total
            if known and stands and not page.inserted:
                await plan.say_where(state, page)
                return
            known = False
            if watch.repeats(position, page.first_id, page.last_id, page.received):
                raise Incomplete(
                    f"the cursor leads to the same page again (behind event {position}): check "
                    "CURSOR_PARAM and CURSOR_PATH"
                )
            position += page.received
            cursor = page.next_cursor or ""
            proves = proves or cursor not in followed
            if not cursor or cursor in followed:
                _refuse_an_open_end(plan, page, position)
                break
            followed.add(cursor)
        if proves and _reached_the_end(plan, position):
            plan.total = position if plan.total is None else plan.total
            return
        plan.pass_no += 1
        led_to, cursor, position = position, "", 0
    total = "an unknown number of" if plan.total is None else plan.total
    raise Incomplete(f"the cursor leads to {led_to} of {total} events only")


async def _is_known(plan: Asking) -> bool:
    """Whether an earlier run has read all of a set whose total is said.

    Then a first page without a new event, of a total that stands, says that nothing was added:
    the newest come first (api.md).
    """
    all_there = plan.total_before is not None and not plan.left_before
    return all_there and await plan.in_thread(plan.ledger.standing_doubt) is None


def _refuse_an_open_end(plan: Asking, page: EventPage, position: int) -> None:
    """Without a total, no cursor onwards is the end, unless the answer speaks against it.

    Raises Incomplete where the API says that there is more, where its cursor leads back, and where
    its only page was a full one and nothing is said.
    """
    only_page = position == page.received >= page.requested
    goes_on = page.has_more or page.next_cursor or only_page
    if plan.total is None and page.has_more is not False and goes_on:
        raise Incomplete(
            f"behind event {position} the API names neither a cursor (pagination.nextCursor) nor "
            "a total, and doesn't say that this is the end: check PAGINATION and TOTAL_KEY"
        )


def _reached_the_end(plan: Asking, position: int) -> bool:
    if plan.expired or (plan.last_page is None and plan.empty_at is None):
        return False
    return plan.total is None or position >= plan.total
