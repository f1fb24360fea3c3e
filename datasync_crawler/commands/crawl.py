"""``scrapy crawl`` with an honest exit status: 0 complete, 1 stopped or incomplete, 2 bad settings.

Replaces Scrapy's command of that name. Must not know what a crawl does.
"""

import argparse
import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from scrapy.commands.crawl import Command as ScrapyCrawl
from scrapy.exceptions import UsageError

from datasync_crawler.errors import ConfigError

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

#: Finish reasons of a crawl that never began because of its configuration.
CONFIGURATION_REASONS: Final = {"configuration", "database_refused", "schema_conflict"}
#: What Scrapy tells at every start and no user of ours has asked for.
NOISE: Final = (
    "scrapy.addons", "scrapy.crawler", "scrapy.extensions", "scrapy.middleware",
    "scrapy.utils.log", "py.warnings.scrapy",
)  # fmt: skip


class Command(ScrapyCrawl):
    """As Scrapy's, but the configuration is checked first and the exit status tells the truth."""

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        """An empty value is an unset one, on the command line too."""
        opts.set = [pair for pair in opts.set if not pair.endswith("=")]
        super().process_options(args, opts)

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Runs the crawl and sets the exit status."""
        if len(args) != 1:
            raise UsageError("scrapy crawl takes one spider's name: scrapy crawl events")
        try:
            _check(self.settings)
        except ConfigError as error:
            print(f"datasync-crawler: {error}", file=sys.stderr)
            self.exitcode = error.exit_status
            return
        for name in NOISE:
            logging.getLogger(name).setLevel(logging.WARNING)
        assert self.crawler_process is not None  # Scrapy sets it before run()
        crawler = self._create_crawler(args[0])
        self.crawler_process.crawl(crawler, **opts.spargs)
        self.crawler_process.start()
        self.exitcode = exit_status(crawler)


def _check(settings: Any) -> None:
    from datasync_crawler.config import Config  # noqa: PLC0415  # commands load at every start
    from datasync_crawler.exporters import LINE_FORMATS  # noqa: PLC0415

    Config.from_settings(settings)
    for uri, options in settings.getdict("FEEDS").items():
        if options.get("format") not in LINE_FORMATS:
            raise ConfigError(
                f"{uri} asks for the format {options.get('format')!r}, which doesn't hold an event "
                f"a line. Use one of {', '.join(LINE_FORMATS)}, such as -O events.jsonl."
            )


def exit_status(crawler: "Crawler") -> int:
    """What the run's end means to the shell; 0 only for a crawl that is proved complete."""
    stats = crawler._stats  # None when the crawl never got that far
    if stats is None:
        return 1
    reason = stats.get_value("finish_reason")
    if reason in CONFIGURATION_REASONS:
        return 2
    failed_feeds = [name for name in stats.get_stats() if name.startswith("feedexport/failed")]
    complete = reason == "finished" and stats.get_value("crawl/complete") is True
    return 0 if complete and not failed_feeds else 1
