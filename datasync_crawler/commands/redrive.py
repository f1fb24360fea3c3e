"""``scrapy redrive``: a crawl that first fetches rejected events again.

It is ``scrapy crawl events -a redrive=1``, or with ``--all`` ``-a redrive=all``, with the crawl's
settings and exit status.
"""

import argparse
from typing import ClassVar

from datasync_crawler.commands.base import Options
from datasync_crawler.commands.crawl import Command as CrawlCommand


class Command(CrawlCommand):
    """A crawl with the spider's argument `redrive`. Events that are valid now leave
    rejected_events; missing ranges are fetched, too.
    """

    usage = "[options]"
    summary = "Fetch rejected events and missing ranges again"
    options: ClassVar[Options] = {
        "--all": {
            "action": "store_true",
            "help": "read everything again: events that came late into the middle of the set are "
            "stored, edited ones are counted, and overwritten with -s ON_DUPLICATE=update",
        }
    }

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Runs the crawl and sets the exit status."""
        opts.spargs = {**opts.spargs, "redrive": "all" if opts.all else "1"}
        super().run(["events", *args], opts)
