"""``scrapy export FILE``: what is stored, as CSV, JSON Lines or Parquet. Never asks the API.

Owns the file: it appears under its name when it is whole, or not at all. Every ``scrapy …`` start
imports this module, so the rest is imported when the command was chosen.
"""

from __future__ import annotations

import gzip
import os
import signal
import sys
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from datasync_crawler.commands.base import ConfiguredCommand

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from datetime import datetime

    from datasync_crawler.store.export import Advance, EventExport

#: Endings and what they mean: the format, and whether it is compressed by gzip.
FORMATS = {
    ".csv": ("csv", False),
    ".csv.gz": ("csv", True),
    ".jsonl": ("jsonl", False),
    ".jsonl.gz": ("jsonl", True),
    ".parquet": ("parquet", False),
}


class Command(ConfiguredCommand):
    """Write the file; `exitcode` 1 when it couldn't be, or there is no database; 2 for a wrong
    name, option or setting.
    """

    def syntax(self) -> str:
        """Name the arguments in the usage line."""
        return "[options] FILE"

    def short_desc(self) -> str:
        """Describe the command in `scrapy --help`."""
        return "Write stored events to a .csv, .jsonl or .parquet file"

    def long_desc(self) -> str:
        """Describe the command in `scrapy export --help`."""
        return (
            "Writes all stored events of the configured database (or the demonstration's when "
            "nothing is configured) to FILE, whose ending says how: .csv, .jsonl, both also with "
            ".gz, or .parquet. They are of one instant, in no particular order. A file that is "
            "there is replaced, when the new one is whole."
        )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Ours beside Scrapy's."""
        super().add_options(parser)
        parser.add_argument(
            "--since",
            metavar="TIMESTAMP",
            help="only events whose timestamp isn't before that, such as 2026-11-24 or "
            "2026-11-24T12:00:00Z (UTC where it names no zone)",
        )

    def act(self, args: list[str], opts: argparse.Namespace) -> None:
        """Write it."""
        from datasync_crawler.store.connection import Connector  # noqa: PLC0415
        from datasync_crawler.store.export import EventExport  # noqa: PLC0415

        path, kind, is_compressed = _target(args)
        since = _since(opts.since)
        config = self.configured()
        replaced = path.exists()
        try:
            with (
                _interruptible(),
                EventExport(Connector(config.database), config.schema, since) as events,
                _whole(path) as file,
                _progress(events) as advance,
                ExitStack() as stack,
            ):
                out = stack.enter_context(_zipped(file)) if is_compressed else file
                number = events.write(kind, out, advance)
        except KeyboardInterrupt:
            self.fail(f"Stopped: {path} wasn't written.", 1)
        except OSError as error:
            self.fail(
                f"{path} can't be written ({error.strerror}): name a file in a folder that this "
                "user may write to and that has room.",
                1,
            )
        else:
            size = f"{path.stat().st_size:,} bytes"
            was = ", in place of the file that was there" if replaced else ""
            print(f"{path}: {number:,} events, {size}{was}.")


def _target(args: list[str]) -> tuple[Path, str, bool]:
    """The file, its format, and whether it is compressed. Raises ConfigError."""
    from datasync_crawler.errors import ConfigError  # noqa: PLC0415

    endings = ".csv, .jsonl (both also with .gz) or .parquet"
    if len(args) != 1:
        raise ConfigError(f"scrapy export takes one file, whose name ends in {endings}.")
    path = Path(args[0]).expanduser()
    found = next((ending for ending in FORMATS if path.name.lower().endswith(ending)), None)
    if found is None:
        raise ConfigError(f"{path} says no format: end its name in {endings}.")
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"{path} can't be written: name a file in a folder that is there.")
    kind, is_compressed = FORMATS[found]
    if kind == "parquet" and find_spec("pyarrow") is None:
        raise ConfigError(
            "Parquet needs the package pyarrow, which isn't installed: run "
            f"{sys.executable} -m pip install pyarrow, or export to .csv or .jsonl."
        )
    return path, kind, is_compressed


def _since(text: str | None) -> datetime | None:
    """The instant. Raises ConfigError."""
    from datasync_crawler.errors import ConfigError  # noqa: PLC0415
    from datasync_crawler.events.timestamps import parse  # noqa: PLC0415

    try:
        return None if text is None else parse(text)
    except ValueError:
        raise ConfigError(
            f"--since is {text!r}: give it a date or a time such as 2026-11-24 or "
            "2026-11-24T12:00:00Z."
        ) from None


@contextmanager
def _zipped(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Compressed by gzip, without a name or a time in it."""
    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as out:
        yield cast("IO[bytes]", out)


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file beside *path* that takes its name at the end, and is removed if that isn't reached."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb", buffering=1 << 20) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end it as Ctrl-C does: nothing is left behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(events: EventExport) -> Iterator[Advance]:
    """A progress bar on standard error, when that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn  # noqa: PLC0415

    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=events.count())
        yield lambda rows: bar.advance(task, rows)
