"""``scrapy export FILE``: the stored events as CSV, JSON Lines or Parquet. Sends no requests.

Owns the file: it appears under its name when it is complete, or not at all.
"""

from __future__ import annotations

import gzip
import os
import shlex
import signal
import sys
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar, cast

from datasync_crawler.commands.base import ConfiguredCommand, Options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from datetime import datetime

    from datasync_crawler.store.export import Advance, EventExport

#: Format by ending, and whether it is compressed by gzip.
FORMATS = {
    ".csv": ("csv", False),
    ".csv.gz": ("csv", True),
    ".jsonl": ("jsonl", False),
    ".jsonl.gz": ("jsonl", True),
    ".parquet": ("parquet", False),
}


class Command(ConfiguredCommand):
    """Writes the file; `exitcode` 1 when it can't, or there is no database; 2 for an invalid name,
    option or setting.
    """

    usage = "[options] FILE"
    summary = "Write stored events to a .csv, .jsonl or .parquet file"
    description = (
        "Writes all stored events of the configured database (or the demonstration's when "
        "nothing is configured) to FILE. Its ending selects the format: .csv, .jsonl, both also "
        "with .gz, or .parquet. All events are of one snapshot, in no particular order. An "
        "existing file is replaced when the new one is complete."
    )
    options: ClassVar[Options] = {
        "--since": {
            "metavar": "TIMESTAMP",
            "help": "only events with this timestamp or a later one, such as 2026-11-24 or "
            "2026-11-24T12:00:00Z (UTC if it has no zone)",
        }
    }

    def act(self, args: list[str], opts: argparse.Namespace) -> None:
        """Writes the file."""
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
            was = ", in place of an earlier file" if replaced else ""
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
        raise ConfigError(f"{path} has no known ending: end its name in {endings}.")
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"{path} can't be written: name a file in a folder that exists.")
    kind, is_compressed = FORMATS[found]
    if kind == "parquet" and find_spec("pyarrow") is None:
        raise ConfigError(
            "Parquet needs the package pyarrow, which isn't installed: run "
            f"{shlex.quote(sys.executable)} -m pip install pyarrow, or export to .csv or .jsonl."
        )
    return path, kind, is_compressed


def _since(text: str | None) -> datetime | None:
    """The instant that *text* names. Raises ConfigError."""
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
    """A gzip file over *file*, without a name or a time in its header."""
    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as out:
        yield cast("IO[bytes]", out)


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file beside *path* that is renamed to it at the end, and removed after an error."""
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
    """Makes SIGTERM and SIGHUP raise KeyboardInterrupt, so that the unfinished file is removed."""

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
