"""Puts reader, feed and server together, for the extension and the command alike."""

import asyncio
import time
from dataclasses import replace
from typing import Final

from datasync_crawler.config import Config
from datasync_crawler.monitor.feed import MOST_SHARE, Feed
from datasync_crawler.monitor.server import Dashboard, explain
from datasync_crawler.store.connection import STORE_ERRORS, Connector
from datasync_crawler.store.freshness import Freshness, read_freshness, read_newest_event
from datasync_crawler.store.reader import DashboardReader

#: The command's port when none is set.
DEFAULT_PORT: Final = 8765


class Ages:
    """Reads the freshness for requests that need it.

    Reading the newest event can take seconds, so it takes at most MOST_SHARE of the time. The
    page's reader, not this class, keeps an embedded server running.
    """

    def __init__(self, connector: Connector, schema: str) -> None:
        self._connector, self._schema = connector, schema
        self._one_at_a_time = asyncio.Lock()
        self._newest_event_at: float | None = None
        self._next_at = 0.0

    async def read(self, *, newest: bool) -> Freshness | None:
        """The freshness; None when the database can't be read."""
        async with self._one_at_a_time:
            try:
                fresh = await asyncio.to_thread(read_freshness, self._connector, self._schema)
                if newest and time.monotonic() >= self._next_at:
                    began = time.monotonic()
                    self._newest_event_at = await asyncio.to_thread(
                        read_newest_event, self._connector, self._schema
                    )
                    took_s = max(time.monotonic() - began, 0.05)
                    self._next_at = time.monotonic() + took_s / MOST_SHARE
            except STORE_ERRORS:
                return None
            return replace(fresh, newest_event_at=self._newest_event_at)


def server(config: Config) -> Dashboard:
    """A server for the configured database and address; not started yet."""
    connector = Connector(config.database)
    reader = DashboardReader(connector, config.schema)
    return Dashboard(
        Feed(reader),
        host=config.dashboard_host,
        port=DEFAULT_PORT if config.dashboard_port is None else config.dashboard_port,
        password=config.dashboard_password,
        ages=Ages(connector, config.schema).read,
    )


def sentence(error: OSError, config: Config) -> str:
    """Why the page can't listen at that address, and what to do."""
    port = DEFAULT_PORT if config.dashboard_port is None else config.dashboard_port
    return explain(error, config.dashboard_host, port)
