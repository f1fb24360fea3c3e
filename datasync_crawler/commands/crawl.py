"""``scrapy crawl`` with exit statuses: 0 complete, 1 stopped or incomplete, 2 invalid settings.

Replaces Scrapy's command of that name. Must not know how a crawl works.
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from scrapy.commands.crawl import Command as ScrapyCrawl
from scrapy.exceptions import UsageError
from scrapy.settings import SETTINGS_PRIORITIES, default_settings
from w3lib.url import file_uri_to_path

from datasync_crawler import stats as stat
from datasync_crawler.api.secrets import without_password
from datasync_crawler.commands.base import OurCommand, open_to_others
from datasync_crawler.errors import STOPPED_EARLY, ConfigError, CrawlError
from datasync_crawler.monitor.log import WithoutPasswords
from datasync_crawler.monitor.progress import ended

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scrapy.crawler import Crawler
    from scrapy.settings import Settings

    from datasync_crawler.config import Config

#: Finish reasons of a crawl that never began because of its configuration.
CONFIGURATION_REASONS: Final = {"configuration", "database_refused", "schema_conflict"}
#: What the spider takes by -a.
SPIDER_ARGUMENTS: Final = {"redrive"}
#: Scrapy's loggers whose lines at every start don't help a user of ours.
NOISE: Final = (
    "scrapy.addons", "scrapy.crawler", "scrapy.extensions", "scrapy.middleware",
    "py.warnings.scrapy",
)  # fmt: skip


class Command(OurCommand, ScrapyCrawl):
    """Scrapy's, but the configuration is checked first and the exit status is the crawl's."""

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        """Checks Scrapy's own settings, and sets up logging."""
        super().process_options(args, opts)
        assert self.settings is not None
        if warning := open_to_others(str(self.settings.get("PROJECT_DIR"))):
            print(f"datasync-crawler: {warning}", file=sys.stderr)
        level = self.settings.get("LOG_LEVEL")
        if level not in logging.getLevelNamesMapping() and not isinstance(level, int):
            raise UsageError(
                f"LOG_LEVEL is {level!r}: set it to DEBUG, INFO, WARNING, ERROR or CRITICAL."
            )
        _check_scrapys(self.settings)
        logging.getLogger("scrapy.extensions.feedexport").addFilter(WithoutPasswords())
        if level != "DEBUG":
            # The versions are listed before run(); levels set here wouldn't outlive that.
            logging.getLogger("scrapy.utils.log").addFilter(_is_warning)

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Runs the crawl and sets the exit status."""
        _check_words(args)
        assert self.settings is not None  # Scrapy sets both before run()
        assert self.crawler_process is not None
        from datasync_crawler.commands import demonstration  # noqa: PLC0415  # as in _checked

        try:
            _check_spider(args[0], self.crawler_process.spider_loader.list())
            with demonstration.lent(self.settings) as mock:
                if mock is not None:
                    print(
                        "Nothing is configured: this is the demonstration, whose mock API serves "
                        f"{mock.events:,} generated events while this runs.",
                        file=sys.stderr,
                    )
                self._crawl(args[0], opts.spargs)
        except CrawlError as error:
            print(f"datasync-crawler: {error}", file=sys.stderr)
            if self.settings.get("LOG_FILE"):  # under Scrapyd the only place that is read
                logging.getLogger(__name__).error("%s", error)
            self.exitcode = error.exit_status
        except KeyboardInterrupt:  # later ones are Scrapy's
            print(f"datasync-crawler: {STOPPED_EARLY}", file=sys.stderr)
            self.exitcode = 1

    def _crawl(self, spider: str, arguments: "dict[str, Any]") -> None:
        """Raises CrawlError for what is wrong before the crawl has begun."""
        from datasync_crawler.commands.scrapyd_secrets import check_secrets  # noqa: PLC0415  # as in _checked

        assert self.settings is not None
        assert self.crawler_process is not None
        config = _checked(self.settings)
        check_secrets(self.settings, arguments)
        _check_arguments(arguments)
        if self.settings.get("LOG_LEVEL") != "DEBUG":
            for name in NOISE:
                logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger(__name__).info("%s", config.route)
        if self.settings.getdict("FEEDS"):
            logging.getLogger(__name__).info(
                "The export holds the events that this run fetches. scrapy export FILE writes all "
                "that are stored."
            )
        crawler = self._create_crawler(spider)
        self.crawler_process.crawl(crawler, **arguments)
        self.crawler_process.start()
        self.exitcode = exit_status(crawler)
        stats = crawler._stats  # as in exit_status
        if stats is None or stats.get_value("finish_reason") is None:
            # A signal while the database was connected to: no component knows of an end.
            print(f"datasync-crawler: {STOPPED_EARLY}", file=sys.stderr)


def _check_scrapys(settings: "Settings") -> None:
    """Raises UsageError for an invalid one of Scrapy's settings; Scrapy prints a traceback."""
    for name, default in vars(default_settings).items():
        if (settings.getpriority(name) or 0) < SETTINGS_PRIORITIES["cmdline"]:
            continue
        kind = "True or False" if isinstance(default, bool) else "a number"
        try:
            if isinstance(default, bool):
                settings.getbool(name)
            elif isinstance(default, int | float):
                settings.getfloat(name)
        except ValueError:
            raise UsageError(f"{name} is {settings.get(name)!r}: set it to {kind}.") from None
    if file := settings.get("LOG_FILE"):
        try:
            Path(file).open("ab").close()
        except OSError as error:
            raise UsageError(
                f"LOG_FILE is {file!r}, which can't be written ({error.strerror}): name a file in "
                "a folder that is there and that this user may write to."
            ) from None


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def _check_words(words: list[str]) -> None:
    """Raises UsageError unless there is one word, the spider's name."""
    if not words:
        raise UsageError("scrapy crawl takes the spider's name: scrapy crawl events")
    if len(words) > 1:
        wrong = next((word for word in words if word.startswith("-") or "=" in word), words[1])
        raise UsageError(
            f"{wrong!r} isn't an option: a setting is given as -s NAME=value, such as -s WORKERS=4."
        )


def _check_spider(spider: str, spiders: list[str]) -> None:
    if spider not in spiders:
        raise ConfigError(
            f"There is no spider {spider!r}: run scrapy crawl {' or '.join(spiders)}."
        )


def _checked(settings: Any) -> "Config":
    """The configuration. Raises ConfigError for it, for JOBDIR and for a feed."""
    from datasync_crawler.config import Config  # noqa: PLC0415  # commands load at every start
    from datasync_crawler.exporters import check_feed  # noqa: PLC0415

    config = Config.from_settings(settings)
    _check_jobdir(settings.get("JOBDIR"))
    for uri, options in settings.getdict("FEEDS").items():
        check_feed(str(uri), options, settings)
        _make_folder(str(uri))
    return config


def _check_arguments(arguments: "Mapping[str, object]") -> None:
    """Raises ConfigError for an unknown -a: Scrapy would set it as an attribute of the spider.

    Scrapyd adds arguments of its own, whose names begin with an underscore.
    """
    for name in arguments:
        if name not in SPIDER_ARGUMENTS and not name.startswith("_"):
            raise ConfigError(
                f"The spider has no argument {name!r}, only redrive=1 and redrive=all. A setting "
                "is given as -s NAME=value, under Scrapyd as setting=NAME=value."
            )


def _make_folder(uri: str) -> None:
    """Makes the folder of a feed that is a file. Raises ConfigError where Scrapy would log."""
    if urlsplit(uri).scheme not in {"", "file"} or "%(" in uri:  # the name is made later
        return
    path = Path(file_uri_to_path(uri))
    cause: object = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            cause = "it is a folder, or this user may not write there"
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
    if cause:
        raise ConfigError(
            f"{without_password(uri)} can't be written ({cause}). Export to a file in a folder "
            "that this user may write to, such as -O events.jsonl."
        )


def _check_jobdir(jobdir: str | None) -> None:
    """Makes the folder, as Scrapy would. Raises ConfigError when it can't."""
    if jobdir:
        try:
            Path(jobdir, "requests.queue").mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"JOBDIR is {jobdir!r}, where no folder can be made ({cause}). Set it to a folder "
                "that this user may write to, or leave it out: crawls go on without it, too."
            ) from None


def exit_status(crawler: "Crawler") -> int:
    """The exit status of a run that has ended; 0 only for a crawl that is proved complete."""
    stats = crawler._stats  # None when the crawl ended before it was set
    if stats is None:
        return 1
    reason = ended(str(stats.get_value("finish_reason")), stats.get_stats())
    if reason in CONFIGURATION_REASONS:
        return 2
    complete = reason == "finished" and stats.get_value(stat.COMPLETE) is True
    return 0 if complete and _is_exported(crawler, stats.get_stats()) else 1


def _is_exported(crawler: "Crawler", stats: dict[str, Any]) -> bool:
    """Whether each feed has been stored. One that couldn't be opened isn't counted by Scrapy."""
    failed = [name for name in stats if name.startswith("feedexport/failed")]
    stored = sum(number for name, number in stats.items() if name.startswith("feedexport/success"))
    wanted = len(crawler.settings.getdict("FEEDS")) if stats.get(stat.PAGES_COMMITTED) else 0
    return not failed and stored >= wanted
