"""``scrapy dashboard``: the page by itself, for crawls anywhere: running, finished or crashed."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from datasync_crawler.commands.base import ConfiguredCommand

if TYPE_CHECKING:
    import argparse

    from datasync_crawler.config import Config


class Command(ConfiguredCommand):
    """Serves until a signal; `exitcode` 1 when the address is taken, 2 for an invalid setting."""

    summary = "Serve the live page of crawls: running, finished or crashed"
    description = (
        "Serves the live page, /metrics and /healthz from the configured database (or the "
        "demonstration's when nothing is configured) on DASHBOARD_HOST and DASHBOARD_PORT "
        "(127.0.0.1, 8765). Read-only. Ctrl-C ends it."
    )

    def act(self, args: list[str], opts: argparse.Namespace) -> None:
        """Serves."""
        del opts
        self.check_no_arguments(args)
        config = self.configured()
        config.check_dashboard()
        self.exitcode = asyncio.run(_serve(config))


async def _serve(config: Config) -> int:
    from datasync_crawler.monitor import serving  # noqa: PLC0415

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    server = serving.server(config)
    try:
        await server.start()
    except OSError as error:
        print(f"datasync-crawler: {serving.sentence(error, config)}", file=sys.stderr)
        await server.stop()
        return 1
    refusal = await server.refusal()
    if refusal is not None:
        print(f"datasync-crawler: {refusal}", file=sys.stderr)
        await server.stop()
        return refusal.exit_status
    print(f"The dashboard: {server.url} (Ctrl-C ends it)", flush=True)
    await ended.wait()
    await server.stop()
    return 0
