"""The limiter's memory across restarts: read before the first request, written at each long pause.

Owns when it is written. If the database can't be reached, the crawl goes on without it.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from scrapy.utils.asyncio import run_in_thread

from datasync_crawler.store.connection import STORE_ERRORS

if TYPE_CHECKING:
    from datasync_crawler.ratelimit.limiter import Limiter
    from datasync_crawler.store.rate_limits import LimitMemory

logger = logging.getLogger(__name__)

#: Seconds. A pause of this length is stored when it begins, so that the run after a SIGKILL doesn't
#: send into the closed window.
WRITTEN_PAUSE_S: Final = 2.0


class Memory:
    """Reads once; writes when a pause begins or grows, and when the spider closes."""

    def __init__(self, limiter: "Limiter", store: "LimitMemory") -> None:
        self._limiter = limiter
        self._store = store
        self._written_until = 0.0  # monotonic s: the pause's end as the database knows it
        self._recalling: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    async def recalled(self) -> None:
        """Waits until the limiter has what the last run stored. Needs an open database."""
        if self._recalling is None:
            self._recalling = asyncio.ensure_future(self._recall())
        if not self._recalling.done():
            await asyncio.shield(self._recalling)

    def paused(self, pause_s: float) -> None:
        """All requests wait for *pause_s* from now."""
        now = time.monotonic()
        known_until = max(self._written_until, now)
        is_idle = self._writing is None or self._writing.done()
        if is_idle and now + pause_s >= known_until + WRITTEN_PAUSE_S:
            self._written_until = now + pause_s
            self._writing = asyncio.ensure_future(self._write())

    async def close(self) -> None:
        """Writes once more, unless nothing was read."""
        if self._writing is not None:
            await self._writing
        if self._recalling is not None:
            await self._write()

    async def _recall(self) -> None:
        try:
            stored = await run_in_thread(self._store.recall)
        except STORE_ERRORS as error:
            logger.warning("The stored rate limit couldn't be read (%s).", error)
            return
        for message in self._limiter.restore(
            time.monotonic(), stored.learned, age_s=stored.age_s, paused_for_s=stored.paused_for_s
        ):
            logger.info("%s", message)

    async def _write(self) -> None:
        now = time.monotonic()
        learned, pause_s = self._limiter.snapshot(now), self._limiter.paused_for_s(now)
        try:
            await run_in_thread(self._store.remember, learned, paused_for_s=pause_s)
        except STORE_ERRORS as error:
            logger.warning("The learned rate limit couldn't be stored (%s).", error)
