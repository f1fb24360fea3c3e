"""`scrapy mockapi`: the fake DataSync API on a port of this machine.

Owns the command alone. Every `scrapy …` start imports this module, so the mock itself is imported
only when this command was chosen.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, ClassVar

from scrapy.commands import ScrapyCommand

if TYPE_CHECKING:
    import argparse


class Command(ScrapyCommand):
    """Serve the fake API until told to end; `exitcode` 1 when it can't, 2 for a wrong option."""

    requires_project = False
    requires_crawler_process = False
    default_settings: ClassVar[dict[str, object]] = {"LOG_ENABLED": False}

    def syntax(self) -> str:
        """Name the arguments in the usage line."""
        return "[options]"

    def short_desc(self) -> str:
        """Describe the command in `scrapy --help`."""
        return "Serve a fake DataSync API: a data set by seed, rate limits, faults"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Give the command the mock's options."""
        from datasync_crawler.mockapi import options  # noqa: PLC0415

        super().add_options(parser)
        options.add_arguments(parser)

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Serve."""
        if args:  # Scrapy hands on what it doesn't know: a misspelt --rate-limit isn't none
            print(f"scrapy mockapi doesn't know {args[0]!r}: see --help.", file=sys.stderr)
            self.exitcode = 2
            return
        from datasync_crawler.mockapi import cli  # noqa: PLC0415

        self.exitcode = cli.run(opts)
