"""``scrapy status``: how far the crawl is, from the database alone. Never asks the API.

Every ``scrapy …`` start imports this module, so the rest is imported when the command was chosen.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from datasync_crawler.commands.base import ConfiguredCommand

if TYPE_CHECKING:
    import argparse


class Command(ConfiguredCommand):
    """Print it; `exitcode` 1 when there is nothing or no database, 2 for a wrong setting."""

    def short_desc(self) -> str:
        """Describe the command in `scrapy --help`."""
        return "Say how far the crawl is: total, done, gaps, rejections, runs"

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

    def act(self, args: list[str], opts: argparse.Namespace) -> None:
        """Print the status."""
        from datasync_crawler.monitor import report  # noqa: PLC0415
        from datasync_crawler.store.connection import Connector  # noqa: PLC0415
        from datasync_crawler.store.verify import ProofReader  # noqa: PLC0415

        self.refuse(args)
        config = self.configured()
        with ProofReader(Connector(config.database), config.schema) as reader:
            figures = reader.figures(*reader.source(), "the last known")
            seen = figures, reader.reasons(), reader.runs()
        if opts.json:
            print(json.dumps(report.status_values(*seen), ensure_ascii=False))
        else:
            print("\n".join(report.status_lines(*seen)))
