"""``scrapy ingest``, which ``run-ingestion.sh`` runs: the configured API, or a demonstration.

Owns the lines before and after a crawl, and the start and end of the demonstration's mock API and
crawl. Must not know how a crawl works: ``scrapy crawl events`` runs as a process of its own.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar

from datasync_crawler.commands.base import ConfiguredCommand, Options

if TYPE_CHECKING:
    import argparse
    from types import FrameType

    from datasync_crawler.config import Config

_MOCK_GREETING = "mock API listening on "
_MOCK_STOP_S = 10.0
# Settings that select a database or schema.
_LEADING = {"API_BASE_URL", "DATA_DIR", "DB_HOST", "DB_NAME", "DB_PORT", "DB_SCHEMA", "DB_USER"}

# Runs a command that gets SIGTERM when its parent dies, even by SIGKILL: PR_SET_PDEATHSIG (prctl 1)
# survives exec. Linux only: elsewhere the crawl of a killed `ingest` goes on by itself.
_TIED_TO_PARENT = """
import ctypes, os, sys
parent, *command = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)
    if os.getppid() != int(parent):
        sys.exit(1)
os.execv(command[0], command)
"""


class Command(ConfiguredCommand):
    """Runs a crawl; `exitcode` is the crawl's."""

    summary = "Ingest the configured API, or a demonstration when nothing is configured"
    options: ClassVar[Options] = {
        "--events": {"metavar": "N", "help": "demonstration: events to generate (100000)"},
        "--mock-port": {"metavar": "PORT", "help": "demonstration: port of the mock API (8763)"},
    }

    def act(self, args: list[str], opts: argparse.Namespace) -> None:
        """Runs the crawl and takes over its exit status."""
        from datasync_crawler.commands import demonstration  # noqa: PLC0415
        from datasync_crawler.errors import ConfigError  # noqa: PLC0415

        extra = [word for pair in opts.set for word in ("-s", pair)]
        logging = {"logfile": opts.logfile, "loglevel": opts.loglevel}
        extra += [f"--{name}={value}" for name, value in logging.items() if value]
        if opts.nolog:
            extra.append("--nolog")
        psql = _psql_command(opts.set)
        self.refuse(args)
        events = _whole(opts.events, "--events", demonstration.EVENTS, 1_000_000_000)
        port = _whole(opts.mock_port, "--mock-port", demonstration.MOCK_PORT, 65535)
        if self.is_demonstration:
            self.exitcode = _Demonstration(self.configured(), events, port, extra, psql).run()
            return
        if opts.events or opts.mock_port:
            raise ConfigError(
                "--events and --mock-port are for the demonstration, and an API or a database "
                "is configured (.env, environment or -s): leave them out."
            )
        self.configured(require_api=True)
        _say(f"To look at the stored events, now or later: {psql}")
        os.execv(sys.executable, _crawl_command(extra))  # noqa: S606 - ourselves, no shell


class _Demonstration:
    """One crawl of the mock API into a database of its own."""

    def __init__(self, config: Config, events: int, port: int, extra: list[str], psql: str) -> None:
        self._config = config
        self._events = events
        self._port = port
        self._extra = extra
        self._psql = psql
        self._crawl: subprocess.Popen[bytes] | None = None
        self._stop_signal: signal.Signals | None = None

    def run(self) -> int:
        """Returns the crawl's exit status. Every process that it started has ended by then."""
        from datasync_crawler.local_postgres.embedded import ensure_running  # noqa: PLC0415
        from datasync_crawler.store.targets import EmbeddedTarget  # noqa: PLC0415

        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, self._pass_signal_on)
        _say(
            f"This is a demonstration: {self._events:,} generated events from a mock API on this "
            "machine. To ingest a real API, run install -m 600 .env.example .env, set API_BASE_URL "
            "and API_KEY in it, and run this command again."
        )
        target = self._config.database
        assert isinstance(target, EmbeddedTarget)  # a demonstration has no server configured
        with ensure_running(target.data_dir, port=target.port), ExitStack() as stack:
            url = self._start_mock(stack)
            if url is None:
                return 1
            status = self._run_crawl(url)
        if self._stop_signal is None:
            _say(f"To look at the demonstration's events: {self._psql}")
        return status

    def _start_mock(self, stack: ExitStack) -> str | None:
        """The mock's address; None when it couldn't start, which it has reported by then.

        The mock ends when its standard input does.
        """
        errors = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        mock = subprocess.Popen(  # noqa: S603 - our own module
            [
                *(sys.executable, "-m", "datasync_crawler.mockapi", "--stop-with-stdin"),
                *("--port", str(self._port), "--events", str(self._events)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C must not reach it before the crawl has ended
        )
        stack.callback(_end_mock, mock, errors)
        assert mock.stdout is not None
        greeting = mock.stdout.readline().decode().strip()
        if greeting.startswith(_MOCK_GREETING):
            return greeting.removeprefix(_MOCK_GREETING)
        mock.wait(_MOCK_STOP_S)
        errors.seek(0)
        if b"Address already in use" in errors.read():
            errors.truncate(0)  # the remedy in it is for `scrapy mockapi`
            print(
                f"datasync-crawler: The demonstration's mock API can't listen on port {self._port},"
                " which another program uses: end that program, or pass --mock-port PORT, with "
                "the same port each time.",
                file=sys.stderr,
            )
        return None

    def _run_crawl(self, url: str) -> int:
        from datasync_crawler.commands import demonstration  # noqa: PLC0415

        if self._stop_signal is not None:
            return 1
        command = _crawl_command(self._extra)
        self._crawl = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), *command],
            env=demonstration.environment(os.environ, url),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C that reached it twice would stop it uncleanly
        )
        if self._stop_signal is not None:  # it came while the crawl was being started
            self._crawl.send_signal(signal.SIGTERM)
        status = self._crawl.wait()
        return status if status >= 0 else 128 - status

    def _pass_signal_on(self, number: int, frame: FrameType | None) -> None:
        """Passes the first signal on, and each Ctrl-C: a second one stops a crawl uncleanly."""
        del frame
        first = self._stop_signal is None
        self._stop_signal = signal.Signals(number)
        if self._crawl is not None and (first or number == signal.SIGINT):
            self._crawl.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


def _end_mock(mock: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    """Ends the mock, and prints its standard error."""
    for pipe in (mock.stdin, mock.stdout):
        if pipe is not None:
            pipe.close()
    try:
        mock.wait(_MOCK_STOP_S)
    except subprocess.TimeoutExpired:
        mock.kill()
        mock.wait()
    errors.seek(0)
    sys.stderr.write(errors.read().decode(errors="replace"))


def _whole(text: str | None, name: str, default: int, most: int) -> int:
    from datasync_crawler.errors import ConfigError  # noqa: PLC0415

    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 12 or not 1 <= int(text) <= most:
        raise ConfigError(f"{name} is {text!r}: give it a whole number between 1 and {most:,}.")
    return int(text)


def _crawl_command(extra: list[str]) -> list[str]:
    return [sys.executable, "-m", "scrapy", "crawl", "events", *extra]


def _psql_command(pairs: list[str]) -> str:
    """The command that opens the events in psql, to be pasted into a terminal in any directory.

    It keeps the `-s` *pairs* that select a database, without a secret.
    """
    here = Path.cwd()
    scrapy = Path(sys.executable).with_name("scrapy")
    shown = scrapy.relative_to(here) if scrapy.is_relative_to(here) else scrapy
    words = [str(shown), "psql"]
    for pair in pairs:
        if pair.split("=", 1)[0] in _LEADING:
            words += ["-s", pair]
        elif pair.startswith("DATABASE_URL="):  # may hold a password
            words += ["-s", "DATABASE_URL=…"]
    return f"cd {shlex.quote(str(here))} && {shlex.join(words)}"


def _say(sentence: str) -> None:
    try:
        print(sentence, flush=True)
    except BrokenPipeError:  # `| head`: the exit status must stay the crawl's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
