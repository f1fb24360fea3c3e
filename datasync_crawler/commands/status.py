"""``scrapy status``: how far the crawl is, from the database alone. Never asks the API.

Every ``scrapy …`` start imports this module, so the rest is imported when the command was chosen.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, ClassVar

from scrapy.commands import ScrapyCommand

from datasync_crawler.options import without_empty

if TYPE_CHECKING:
    import argparse


class Command(ScrapyCommand):
    """Print it; `exitcode` 1 when there is nothing or no database, 2 for a wrong setting."""

    requires_project = True
    requires_crawler_process = False
    default_settings: ClassVar[dict[str, object]] = {"LOG_ENABLED": False}

    def syntax(self) -> str:
        """Name the arguments in the usage line."""
        return "[options]"

    def short_desc(self) -> str:
        """Describe the command in `scrapy --help`."""
        return "Say how far the crawl is: total, done, holes, rejections, runs"

    def long_desc(self) -> str:
        """Describe the command in `scrapy status --help`."""
        return (
            "Reads the configured database (or the demonstration's when nothing is configured), "
            "never the API. A run without a heartbeat has crashed."
        )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Ours beside Scrapy's."""
        super().add_options(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        """An empty value is an unset one, on the command line too."""
        opts.set = without_empty(opts.set)
        super().process_options(args, opts)

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Print the status."""
        from datasync_crawler import demonstration  # noqa: PLC0415
        from datasync_crawler.config import Config  # noqa: PLC0415
        from datasync_crawler.core import report  # noqa: PLC0415
        from datasync_crawler.errors import ConfigError, CrawlError  # noqa: PLC0415
        from datasync_crawler.store.connection import Connector  # noqa: PLC0415
        from datasync_crawler.store.verify import ProofReader  # noqa: PLC0415

        assert self.settings is not None  # Scrapy sets it before run()
        try:
            if args:
                raise ConfigError(f"scrapy status doesn't know {args[0]!r}: see --help.")
            if demonstration.is_meant(self.settings):
                self.settings.set("DB_NAME", demonstration.DATABASE, "cmdline")
            config = Config.from_settings(self.settings, require_api=False)
            with ProofReader(Connector(config.database), config.schema) as reader:
                figures = reader.figures(*reader.source(), "the last known")
                seen = figures, reader.reasons(), reader.runs()
        except CrawlError as error:
            print(f"datasync-crawler: {error}", file=sys.stderr)
            self.exitcode = error.exit_status
            return
        if opts.json:
            print(json.dumps(report.status_values(*seen), ensure_ascii=False))
        else:
            print("\n".join(report.status_lines(*seen)))
