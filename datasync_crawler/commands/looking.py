"""Scrapy's own commands that look at single pages: shell, fetch, view, parse, bench.

They send requests to the API with the key, but without rate limiter, database or run.
"""

import sys
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
        """Checks the settings as a crawl does."""
        from datasync_crawler.config import Config  # noqa: PLC0415  # commands load at every start
        from datasync_crawler.errors import ConfigError  # noqa: PLC0415

        super().process_options(args, opts)
        assert self.settings is not None
        for name, value in SETTINGS.items():
            self.settings.set(name, value, priority="cmdline")
        try:
            Config.from_settings(self.settings)
        except ConfigError as error:
            print(f"datasync-crawler: {error}", file=sys.stderr)
            raise SystemExit(error.exit_status) from None
