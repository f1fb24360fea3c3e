"""Base classes of the commands: their texts, the configuration, errors as a sentence.

Every `scrapy …` start imports all commands, and so this module: what a command needs is imported
when it runs.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from scrapy.commands import ScrapyCommand

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from scrapy.settings import BaseSettings

    from datasync_crawler.config import Config


#: Settings that hold a key or a password.
SECRETS = ("API_KEY", "DB_PASSWORD", "DATABASE_URL", "DASHBOARD_PASSWORD")
_SECRET = re.compile(rf"^\s*(?:export\s+)?(?:{'|'.join(SECRETS)})\s*=[ \t]*[^\s#]", re.MULTILINE)


def without_empty(pairs: list[str]) -> list[str]:
    """The `-s NAME=value` pairs without those that have an empty value, which counts as unset.

    Split at the first "=", because a key may end with one. Scrapy rejects a pair without any.
    """
    return [pair for pair in pairs if "=" not in pair or pair.split("=", 1)[1].strip()]


def given(pairs: list[str], settings: BaseSettings | None) -> list[str]:
    """`without_empty`, or a sentence and exit 2 for a name that is nearly one of our settings."""
    from datasync_crawler.settings import similar  # noqa: PLC0415

    assert settings is not None  # Scrapy sets it before process_options()
    for pair in pairs:
        name = pair.split("=", 1)[0].strip()
        meant = similar(name, 0.75) if settings.getpriority(name) is None else None
        if meant is not None:
            print(
                f"datasync-crawler: -s {name} isn't a setting: did you mean {meant}?",
                file=sys.stderr,
            )
            raise SystemExit(2)
    return without_empty(pairs)


def open_to_others(folder: str) -> str | None:
    """A warning when other users can read a secret in the folder's .env; None when they can't."""
    file = Path(folder, ".env")
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        holds_secret = _SECRET.search(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):  # settings.py reports it
        return None
    if not (mode & 0o044 and holds_secret):
        return None
    return (
        f"{file} holds a key or a password, and other users of this machine can read it (mode "
        f"{mode:o}): run chmod 600 {shlex.quote(str(file))}"
    )


Options = dict[str, dict[str, Any]]


def _printable(line: str) -> str:
    from datasync_crawler.events.scan import printable  # noqa: PLC0415  # commands load at every start

    return printable(line)


class OurCommand(ScrapyCommand):
    """A command with its help as class attributes; an empty `-s NAME=` counts as unset.

    A subclass of one of Scrapy's commands names this class first; where an attribute is empty,
    Scrapy's text is used.
    """

    __module__ = "datasync_crawler.commands"  # Scrapy lists no class of another module

    usage: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    description: ClassVar[str] = ""
    #: Options by name, with argparse's keywords.
    options: ClassVar[Options] = {}

    def syntax(self) -> str:
        """The arguments, for the usage line."""
        return self.usage or super().syntax()

    def short_desc(self) -> str:
        """The text in `scrapy --help`."""
        return self.summary or super().short_desc()

    def long_desc(self) -> str:
        """The text in `scrapy COMMAND --help`."""
        return self.description or super().long_desc()

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Adds `options` to Scrapy's."""
        super().add_options(parser)
        for name, keywords in self.options.items():
            parser.add_argument(name, **keywords)

    def process_options(self, args: list[str], opts: argparse.Namespace) -> None:
        """Drops empty settings and rejects misspelt ones."""
        opts.set = given(opts.set, self.settings)
        super().process_options(args, opts)

    def say(self, lines: Iterable[str]) -> None:
        """Prints lines, without the control characters that an id or another role's text may hold:
        a terminal would carry them out.
        """
        print("\n".join(map(_printable, lines)))

    def fail(self, sentence: object, status: int) -> None:
        """Prints the sentence on standard error and sets the exit status."""
        print(f"datasync-crawler: {_printable(str(sentence))}", file=sys.stderr)
        self.exitcode = status


class ConfiguredCommand(OurCommand):
    """A command for the configured database, or the demonstration's when nothing is configured.

    `exitcode` is 2 for an invalid setting, 1 when there is no database; both with a sentence.
    """

    __module__ = "datasync_crawler.commands"

    usage = "[options]"
    requires_project = True
    requires_crawler_process = False
    default_settings: ClassVar[dict[str, object]] = {"LOG_ENABLED": False}

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Calls `act`; prints an error as a sentence."""
        from datasync_crawler.errors import CrawlError  # noqa: PLC0415
        from datasync_crawler.local_postgres.errors import EmbeddedError  # noqa: PLC0415

        if isinstance(sys.stdout, io.TextIOWrapper):
            # As on standard error: a terminal that can't show a dash must not end the command.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            self.act(args, opts)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has closed the pipe, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except CrawlError as error:
            self.fail(str(error), error.exit_status)
        except EmbeddedError as error:
            self.fail(str(error), 1)

    def act(self, args: list[str], opts: argparse.Namespace) -> None:
        """Does the command's work. Raises CrawlError or EmbeddedError."""
        raise NotImplementedError

    @property
    def is_demonstration(self) -> bool:
        """Whether nothing is configured."""
        from datasync_crawler.commands import demonstration  # noqa: PLC0415

        assert self.settings is not None  # Scrapy sets it before run()
        return demonstration.is_meant(self.settings)

    def configured(self, *, require_api: bool = False) -> Config:
        """The checked configuration. Raises ConfigError."""
        from datasync_crawler.commands import demonstration  # noqa: PLC0415
        from datasync_crawler.config import Config  # noqa: PLC0415

        assert self.settings is not None  # Scrapy sets it before run()
        if self.is_demonstration:
            # Above environment and .env, which are for other databases; below an explicit -s.
            self.settings.set("DB_NAME", demonstration.DATABASE, "spider")
        return Config.from_settings(self.settings, require_api=require_api)

    def check_no_arguments(self, args: list[str]) -> None:
        """Raises ConfigError if there are arguments; for a command that takes none."""
        from datasync_crawler.errors import ConfigError  # noqa: PLC0415

        if args:
            name = type(self).__module__.rpartition(".")[2]
            raise ConfigError(f"scrapy {name} doesn't know {args[0]!r}: see --help.")
