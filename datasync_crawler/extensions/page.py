"""The live page while crawling, on DASHBOARD_PORT.

Settings: DASHBOARD_HOST, DASHBOARD_PORT, DASHBOARD_PASSWORD, and the database's. It reads what the
heartbeat writes, as `scrapy dashboard` does. A taken port is a warning: the crawl continues.
"""

import logging
from typing import TYPE_CHECKING

from scrapy import signals
from scrapy.exceptions import NotConfigured

from datasync_crawler.app import App, Component

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

    from datasync_crawler.monitor.server import Dashboard as Server

logger = logging.getLogger(__name__)


class Dashboard(Component):
    """Serves from the opening of the spider until everything has ended."""

    def __init__(self, crawler: "Crawler") -> None:
        self._config = App.of(crawler).config
        if self._config.dashboard_port is None:
            raise NotConfigured  # without a reason, as no page is the default
        self._server: Server | None = None
        crawler.signals.connect(self._engine_started, signals.engine_started)
        # After spider_closed, whose handlers write the run's end.
        crawler.signals.connect(self._engine_stopped, signals.engine_stopped)

    async def _engine_started(self) -> None:
        from datasync_crawler.monitor import serving  # noqa: PLC0415  # aiohttp only if wanted

        server = serving.server(self._config)
        try:
            await server.start()
        except OSError as error:
            logger.warning(
                "%s The crawl continues without it.", serving.sentence(error, self._config)
            )
            await server.stop()
            return
        self._server = server
        logger.info("The live page: %s", server.url)

    async def _engine_stopped(self) -> None:
        if self._server is not None:
            await self._server.stop()
