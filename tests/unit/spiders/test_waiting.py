"""The bridge between the planner's await and Scrapy's callbacks: each outcome arrives, once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from datasync_crawler.crawl.values import Ask, Empty, Failed, Outcome
from datasync_crawler.spiders.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Coroutine

ASKS = [Ask(1, 0, 10), Ask(1, 10, 10)]


def run(scenario: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


async def taken(waiting: Waiting, planning: asyncio.Future[None]) -> tuple[int, Ask | None]:
    """The next request, when there is room."""
    waiting.room(is_idle=False)
    return await waiting.next(planning)


def test_an_outcome_reaches_who_waits_for_it() -> None:
    """In any order; a second one changes nothing."""

    async def scenario() -> None:
        waiting = Waiting()
        planning: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        fetches = [asyncio.ensure_future(waiting.fetch(ask)) for ask in ASKS]
        await asyncio.sleep(0)
        numbers = [(await taken(waiting, planning))[0] for _ in ASKS]
        assert not waiting.are_alone
        outcomes: list[Outcome] = [Empty(ASKS[0]), Failed(ASKS[1], "HTTP 503")]
        waiting.resolve(numbers[1], outcomes[1])
        waiting.resolve(numbers[0], outcomes[0])
        waiting.resolve(numbers[0], outcomes[1])
        assert [await fetch for fetch in fetches] == outcomes
        waiting.resolve(numbers[0], outcomes[0])
        planning.set_result(None)
        assert await waiting.next(planning) == (0, None)

    run(scenario())


def test_a_request_that_is_nowhere_has_failed() -> None:
    """Dropped by a middleware that tells nobody: noticed at the second idle moment."""

    async def scenario() -> None:
        waiting = Waiting()
        planning: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        fetch = asyncio.ensure_future(waiting.fetch(ASKS[0]))
        await asyncio.sleep(0)
        waiting.room(is_idle=True)  # not sent yet: it can't be lost
        await waiting.next(planning)
        waiting.room(is_idle=True)
        await asyncio.sleep(0)
        assert not fetch.done()
        waiting.room(is_idle=True)
        assert await fetch == Failed(ASKS[0], "a middleware dropped the request")

    run(scenario())


def test_what_the_planner_has_given_up_isnt_sent() -> None:
    """A round that ends early cancels what it has asked for."""

    async def scenario() -> None:
        waiting = Waiting()
        planning: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        fetches = [asyncio.ensure_future(waiting.fetch(ask)) for ask in ASKS]
        await asyncio.sleep(0)
        fetches[0].cancel()
        await asyncio.gather(fetches[0], return_exceptions=True)
        assert (await taken(waiting, planning))[1] == ASKS[1]

    run(scenario())
