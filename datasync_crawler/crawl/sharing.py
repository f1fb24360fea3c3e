"""One process's part in a crawl that any number of processes share.

Whoever holds the lease of the proof runs the planner, which offers chunks; everybody claims them.
The others wait for the verdict, or claim the proof when its holder is gone.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from datasync_crawler.crawl.reader import Reader, Round
from datasync_crawler.crawl.values import Ask, Fenced, Lease, LeaseLost, Outcome, Standing, Verdict

logger = logging.getLogger(__name__)

#: Seconds between two looks at what the others do.
POLL_S: Final = 0.5


async def share(
    reader: Reader,
    plan: Callable[[Lease], Awaitable[Verdict]],
    *,
    own: bool = False,
    fresh_s: float = 0.0,
) -> Verdict:
    """Takes part until there is a verdict.

    *plan*: comes to it while the proof is held. *own*: only a plan of this process counts.
    *fresh_s*: a verdict of this age or less is taken over at once.
    """
    leases, now = reader.world.leases, Round()
    while True:
        standing = await leases.look()
        if standing.is_held:
            verdict = await _help(reader, standing, now, own=own)
        else:
            verdict = standing.verdict if standing.ago_s < fresh_s and not own else None
            verdict = verdict or await _prove(reader, plan)
        if verdict is not None:
            return verdict


async def _help(reader: Reader, held: Standing, now: Round, *, own: bool) -> Verdict | None:
    """Fetches chunks while another process holds the proof; returns its verdict."""
    leases = reader.world.leases
    logger.info("Another process plans this crawl: this one helps it to fetch.")
    ledger, standing = reader.world.ledger, held
    reader.world.covered((await ledger.figures((await ledger.state()).pass_no)).covered)
    while standing.is_held and standing.epoch == held.epoch:
        if not now.is_over:  # else this process's requests fail
            await reader.take_chunks(now)
        await reader.world.pause(POLL_S)
        standing = await leases.look()
    decided = standing.decided >= held.epoch and not own
    return standing.verdict if decided else None


async def _prove(reader: Reader, plan: Callable[[Lease], Awaitable[Verdict]]) -> Verdict | None:
    """Claims the proof and plans; None if another process was faster."""
    leases = reader.world.leases
    lease = await leases.claim_proof()
    if lease is None:
        return None
    try:
        await reader.withdraw()  # those of the process that planned before
        verdict = await plan(lease)
        await leases.decide(lease, verdict)
    except LeaseLost:
        logger.warning(
            "This process was away for longer than its lease: another one plans the crawl now."
        )
        await leases.let_go()
        return None
    return verdict


def under(
    lease: Lease, fetch: Callable[[Ask], Awaitable[Outcome]]
) -> Callable[[Ask], Awaitable[Outcome]]:
    """*fetch* for the holder of the proof: pages that belong to no chunk are committed under its
    lease. Raises LeaseLost.
    """

    async def fetch_under(ask: Ask) -> Outcome:
        if ask.lease is not None:
            return await fetch(ask)
        outcome = await fetch(replace(ask, lease=lease))
        if isinstance(outcome, Fenced):
            raise LeaseLost
        return outcome

    return fetch_under
