"""Puts reader, feed and server together, for the extension and the command alike."""

from typing import Final

from datasync_crawler.config import Config
from datasync_crawler.monitor.feed import Feed
from datasync_crawler.monitor.server import Dashboard, explain
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.reader import DashboardReader

#: The command's port when none is set.
DEFAULT_PORT: Final = 8765


def server(config: Config) -> Dashboard:
    """A server for the configured database and address; not started yet."""
    reader = DashboardReader(Connector(config.database), config.schema)
    return Dashboard(
        Feed(reader),
        host=config.dashboard_host,
        port=DEFAULT_PORT if config.dashboard_port is None else config.dashboard_port,
        password=config.dashboard_password,
    )


def sentence(error: OSError, config: Config) -> str:
    """Why that address can't be had, and what to do."""
    port = DEFAULT_PORT if config.dashboard_port is None else config.dashboard_port
    return explain(error, config.dashboard_host, port)
