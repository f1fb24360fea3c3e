"""What the limiter knows, over a restart: read before the first request, written when all wait.

Owns the times at which it is written. A database that is away costs the memory, not the crawl.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from scrapy.utils.asyncio import run_in_thread

from datasync_crawler.store.connection import STORE_ERRORS
from datasync_crawler.store.rate_limits import LimitMemory

if TYPE_CHECKING:
    from datasync_crawler.app import App
    from datasync_crawler.ratelimit.limiter import Limiter

logger = logging.getLogger(__name__)

#: A pause of this length is written down when it begins, in seconds: a process that is killed
#: during it must not run into the closed window again.
WRITTEN_PAUSE_S: Final = 2.0


class Memory:
    """Reads once, writes when a pause begins or grows, and at the end."""

    def __init__(self, limiter: "Limiter", app: "App") -> None:
        self._limiter = limiter
        self._store = LimitMemory(app.database, app.config.schema, app.config.api_key)
        self._written_until = 0.0  # monotonic s: the pause's end as the database knows it
        self._recalling: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    async def recalled(self) -> None:
        """Returns when the limiter knows what the run before knew. The database is open by then."""
        if self._recalling is None:
            self._recalling = asyncio.ensure_future(self._recall())
        if not self._recalling.done():
            await asyncio.shield(self._recalling)

    def paused(self, pause_s: float) -> None:
        """All wait for so long from now."""
        now = time.monotonic()
        known_until = max(self._written_until, now)
        is_idle = self._writing is None or self._writing.done()
        if is_idle and now + pause_s >= known_until + WRITTEN_PAUSE_S:
            self._written_until = now + pause_s
            self._writing = asyncio.ensure_future(self._write())

    async def close(self) -> None:
        """The last word."""
        if self._writing is not None:
            await self._writing
        if self._recalling is not None:
            await self._write()

    async def _recall(self) -> None:
        try:
            said = await run_in_thread(self._store.recall)
        except STORE_ERRORS as error:
            logger.warning("What was learned of the limits can't be read (%s).", error)
            return
        for message in self._limiter.restore(
            time.monotonic(), said.learned, age_s=said.age_s, paused_for_s=said.paused_for_s
        ):
            logger.info("%s", message)

    async def _write(self) -> None:
        now = time.monotonic()
        learned, pause_s = self._limiter.snapshot(now), self._limiter.paused_for_s(now)
        try:
            await run_in_thread(self._store.remember, learned, paused_for_s=pause_s)
        except STORE_ERRORS as error:
            logger.warning("What was learned of the limits can't be written (%s).", error)
