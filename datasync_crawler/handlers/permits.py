"""Permits of the key's row in the database: asked for on a thread, one call at a time.

Owns the calls. `ratelimit.shared` decides when one is needed and what it says.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from scrapy.utils.asyncio import run_in_thread

from datasync_crawler.errors import DatabaseRefused
from datasync_crawler.ratelimit.shared import Asked, SharedQuota
from datasync_crawler.store.connection import STORE_ERRORS
from datasync_crawler.store.rate_limits import LimitMemory

logger = logging.getLogger(__name__)

#: Between two attempts to reach the row, in seconds.
RETRY_S: Final = 1.0


class Permits:
    """Calls *changed* after each call."""

    def __init__(self, quota: SharedQuota, store: LimitMemory, changed: Callable[[], None]) -> None:
        self._quota = quota
        self._store = store
        self._changed = changed
        self._calling: asyncio.Task[None] | None = None
        self._is_lost = False

    def ask(self, waiting: int, waiting_bytes: int) -> None:
        """Asks for permits, unless a call is under way."""
        if self._calling is None or self._calling.done():
            asked = self._quota.ask(time.monotonic(), waiting, waiting_bytes)
            if asked is not None:
                self._calling = asyncio.ensure_future(self._call(asked))

    async def close(self) -> None:
        """Reports the last answers, so that other processes don't wait for them."""
        if self._calling is not None:
            self._calling.cancel()
            await asyncio.wait([self._calling])
            asked = self._quota.ask(time.monotonic(), 0, 0)
            if asked is not None and not self._is_lost:
                await self._take(asked)

    async def _call(self, asked: Asked) -> None:
        if not await self._take(asked):
            await asyncio.sleep(RETRY_S)
        asyncio.get_running_loop().call_soon(self._changed)

    async def _take(self, asked: Asked) -> bool:
        try:
            answer = await run_in_thread(self._store.take, asked)
        except STORE_ERRORS as error:
            # Requests wait: their pages couldn't be stored now, and other processes go on, so that
            # ours could exceed the limit. Beyond DB_MAX_WAIT the own limiter decides alone; the
            # writer, which can't store the pages, then ends the crawl and says why.
            for_good = isinstance(error, DatabaseRefused)
            self._quota.lost(time.monotonic(), for_good=for_good)
            if not self._is_lost:
                logger.warning("The quota shared with other processes isn't available: %s", error)
            self._is_lost = True
            return False
        self._quota.granted(time.monotonic(), answer)
        self._is_lost = False
        return True
