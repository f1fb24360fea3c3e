"""Requests that the planner awaits: the bridge between its `await` and Scrapy's callbacks."""

import asyncio
from collections import deque
from typing import Any

from datasync_crawler.crawl.values import Ask, Failed, Outcome


class Waiting:
    """Gives each request a number and a future, which is resolved once with its outcome."""

    def __init__(self) -> None:
        self._last = 0
        self._asked: deque[tuple[int, Ask]] = deque()
        self._futures: dict[int, asyncio.Future[Outcome]] = {}
        self._asks: dict[int, Ask] = {}
        self._room = asyncio.Event()
        self._more = asyncio.Event()
        self._was_idle: set[int] = set()

    @property
    def are_alone(self) -> bool:
        """Whether exactly one request is in flight."""
        return len(self._futures) == 1

    async def fetch(self, ask: Ask) -> Outcome:
        """For the planner: sends a request, returns its outcome."""
        self._last += 1
        number = self._last
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._futures[number], self._asks[number] = future, ask
        self._asked.append((number, ask))
        self._more.set()
        try:
            return await future
        finally:
            self._futures.pop(number, None)
            self._asks.pop(number, None)

    def resolve(self, number: int, outcome: Outcome) -> None:
        """For the spider: sets the outcome of a request."""
        future = self._futures.get(number)
        if future is not None and not future.done():
            future.set_result(outcome)

    async def next(self, planning: "asyncio.Future[Any]") -> tuple[int, Ask | None]:
        """The next request, once there is room for it; (0, None) when *planning* has ended."""
        while True:
            while self._asked and self._asked[0][0] not in self._futures:
                self._asked.popleft()  # the planner has cancelled it
            if self._asked:
                await self._until(self._room, planning)
                self._room.clear()
                if self._asked:
                    return self._asked.popleft()
            elif planning.done():
                return 0, None
            else:
                self._more.clear()
                await self._until(self._more, planning)

    def room(self, *, is_idle: bool) -> bool:
        """Lets the next request be sent. *is_idle*: Scrapy has nothing in flight.

        A request that was sent, but is without an outcome at two idle calls in a row, has been
        dropped: it fails. Returns whether there is one that may have been dropped.
        """
        self._room.set()
        queued = {number for number, _ in self._asked}
        sent = set(self._futures) - queued if is_idle else set()
        for number in sent & self._was_idle:
            self.resolve(number, Failed(self._asks[number], "a middleware dropped the request"))
        self._was_idle = sent
        return bool(sent)

    async def _until(self, event: asyncio.Event, planning: "asyncio.Future[Any]") -> None:
        waiting = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait({waiting, planning}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
