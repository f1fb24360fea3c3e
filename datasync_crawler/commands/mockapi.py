"""`scrapy mockapi`: the mock DataSync API on a port of this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, ClassVar

from scrapy.commands import ScrapyCommand

if TYPE_CHECKING:
    import argparse


class Command(ScrapyCommand):
    """Serves the mock API until a signal; `exitcode` 1 when it can't, 2 for an invalid option."""

    requires_project = False
    requires_crawler_process = False
    default_settings: ClassVar[dict[str, object]] = {"LOG_ENABLED": False}

    def syntax(self) -> str:
        """The arguments, for the usage line."""
        return "[options]"

    def short_desc(self) -> str:
        """The text in `scrapy --help`."""
        return "Serve a mock DataSync API: a data set by seed, rate limits, faults"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Adds the mock's options to Scrapy's."""
        from datasync_crawler.mockapi import options  # noqa: PLC0415

        super().add_options(parser)
        options.add_arguments(parser)

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Serves."""
        if args:  # Scrapy passes unknown options on: a misspelt --rate-limit must not be ignored
            print(f"scrapy mockapi doesn't know {args[0]!r}: see --help.", file=sys.stderr)
            self.exitcode = 2
            return
        from datasync_crawler.mockapi import cli  # noqa: PLC0415

        self.exitcode = cli.run(opts)
