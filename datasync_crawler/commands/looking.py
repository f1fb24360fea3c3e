"""Scrapy's own commands that look at single pages: shell, fetch, view, parse, bench.

They send requests to the API with the key, but without rate limiter, database or run.
"""

import atexit
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from datasync_crawler.commands.base import OurCommand

if TYPE_CHECKING:
    import argparse

_HANDLER: Final = "datasync_crawler.handlers.keyed.KeyedHandler"
SETTINGS: Final[dict[str, Any]] = {
    "ITEM_PIPELINES": {},
    "EXTENSIONS": {},
    "SCHEDULER": "scrapy.core.scheduler.Scheduler",
    "DOWNLOAD_HANDLERS": {"http": _HANDLER, "https": _HANDLER},
}


class LookingCommand(OurCommand):
    """The first base of a command of Scrapy's."""

    __module__ = "datasync_crawler.commands"

    def process_options(self, args: list[str], opts: "argparse.Namespace") -> None:
        """Checks the settings as a crawl does; lends the demonstration's API when it is meant."""
        from datasync_crawler.commands import demonstration  # noqa: PLC0415  # as in base.py
        from datasync_crawler.config import Config  # noqa: PLC0415
        from datasync_crawler.errors import CrawlError  # noqa: PLC0415

        super().process_options(args, opts)
        assert self.settings is not None
        for name, value in SETTINGS.items():
            self.settings.set(name, value, priority="cmdline")
        lending = ExitStack()
        atexit.register(lending.close)  # the command runs after this, and has no end of its own
        try:
            lending.enter_context(demonstration.lent(self.settings))
            Config.from_settings(self.settings)
        except CrawlError as error:
            print(f"datasync-crawler: {error}", file=sys.stderr)
            raise SystemExit(error.exit_status) from None
