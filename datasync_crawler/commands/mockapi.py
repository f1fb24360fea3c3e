"""`scrapy mockapi`: the mock DataSync API on a port of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from datasync_crawler.commands.base import OurCommand

if TYPE_CHECKING:
    import argparse


class Command(OurCommand):
    """Serves the mock API until a signal; `exitcode` 1 when it can't, 2 for an invalid option."""

    usage = "[options]"
    summary = "Serve a mock DataSync API: a data set by seed, rate limits, faults"
    requires_crawler_process = False
    default_settings: ClassVar[dict[str, object]] = {"LOG_ENABLED": False}

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Adds the mock's options to Scrapy's."""
        from datasync_crawler.mockapi import options  # noqa: PLC0415

        super().add_options(parser)
        options.add_arguments(parser)

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Serves."""
        from datasync_crawler.mockapi import cli  # noqa: PLC0415

        if args:  # Scrapy passes unknown options on: a misspelt --rate-limit must not be ignored
            self.fail(f"scrapy mockapi doesn't know {args[0]!r}: see --help.", 2)
        else:
            self.exitcode = cli.run(opts)
