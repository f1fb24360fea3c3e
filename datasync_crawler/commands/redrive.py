"""``scrapy redrive``: a crawl that first fetches again what was rejected. Must not crawl itself.

It is ``scrapy crawl events -a redrive=1``, or with ``--all`` ``-a redrive=all``, with the crawl's
settings and exit status.
"""

import argparse

from datasync_crawler.commands.crawl import Command as CrawlCommand


class Command(CrawlCommand):
    """Events that are good now leave rejected_events; what is missing is fetched, too."""

    def syntax(self) -> str:
        """Name the arguments in the usage line."""
        return "[options]"

    def short_desc(self) -> str:
        """Describe the command in `scrapy --help`."""
        return "Fetch rejected events and missing ranges again"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Ours beside Scrapy's."""
        super().add_options(parser)
        parser.add_argument(
            "--all",
            action="store_true",
            help="read everything again: events that came late into the middle of the set are "
            "stored, edited ones are counted, and overwritten with -s ON_DUPLICATE=update",
        )

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Runs the crawl and sets the exit status."""
        opts.spargs = {**opts.spargs, "redrive": "all" if opts.all else "1"}
        super().run([*args, "events"], opts)
