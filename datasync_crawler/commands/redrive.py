"""``scrapy redrive``: a crawl that first fetches again what was rejected. Must not crawl itself.

It is ``scrapy crawl events -a redrive=1``, with the crawl's settings and exit status.
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

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Runs the crawl and sets the exit status."""
        opts.spargs = {**opts.spargs, "redrive": "1"}
        super().run([*args, "events"], opts)
