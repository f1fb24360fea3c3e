"""``scrapy ingest``, which ``run-ingestion.sh`` runs: the configured API, or a demonstration.

Owns the lines before and after a crawl, and that nothing is left behind however it ends. Must not
know how a crawl works: ``scrapy crawl events`` runs as a process of its own.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar

from datasync_crawler.commands.base import ConfiguredCommand, Options
from datasync_crawler.errors import STOPPED_EARLY

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from types import FrameType

    from scrapy.settings import BaseSettings

    from datasync_crawler.commands.demonstration import Mock
    from datasync_crawler.config import Config

# Seconds that the other processes have to end after the first one.
_END_S = 30.0
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
    description = (
        "Crawls the configured API, or with nothing configured a mock API into a database of its "
        "own. sh run-ingestion.sh runs this, after it has prepared the Python environment; sh "
        "run-ingestion.sh --docker does the same in containers (docker-compose.yml)."
    )
    options: ClassVar[Options] = {
        "--events": {
            "metavar": "N",
            "help": "demonstration: events to generate (as many as last time; 100000)",
        },
        "--mock-port": {
            "metavar": "PORT",
            "help": "demonstration: port of the mock API (that of last time; 8763)",
        },
        "--processes": {
            "metavar": "N",
            "help": "processes that share the crawl on this machine (1); the first one shows it, "
            "the others log to DATA_DIR/processes",
        },
    }

    def act(self, args: list[str], opts: argparse.Namespace) -> None:
        """Runs the crawl and takes over its exit status."""
        from datasync_crawler.commands.demonstration import MOST_EVENTS, Mock, last  # noqa: PLC0415
        from datasync_crawler.errors import ConfigError  # noqa: PLC0415

        psql = _psql_command(opts.set)
        self.check_no_arguments(args)
        processes = _whole(opts.processes, "--processes", 1, 64)
        assert self.settings is not None  # Scrapy sets it before run()
        before = last(self.settings) or Mock()
        mock = Mock(
            port=_whole(opts.mock_port, "--mock-port", before.port, 65535),
            events=_whole(opts.events, "--events", before.events, MOST_EVENTS),
        )
        if self.is_demonstration:
            crawls = _Crawls(_commands(opts, self.settings), processes, self.configured().data_dir)
            self.exitcode = _Demonstration(self.settings, self.configured(), mock).run(crawls, psql)
            return
        if opts.events or opts.mock_port:
            raise ConfigError(
                "--events and --mock-port are for the demonstration, and an API or a database "
                "is configured (.env, environment or -s): leave them out."
            )
        config = self.configured(require_api=True)
        _say(f"To look at the stored events, now or later: {psql}")
        commands = _commands(opts, self.settings)
        if processes > 1:
            self.exitcode = _Crawls(commands, processes, config.data_dir).run(os.environ)
            return
        os.execv(sys.executable, commands.first)  # noqa: S606 - ourselves, no shell


@dataclass(frozen=True)
class _Commands:
    """The command line of the first process of a crawl, and that of each other one."""

    first: list[str]
    other: list[str]


class _Crawls:
    """Processes that share one crawl. The first one has the terminal; each of the others has a log
    file. Signals are passed on to them from the beginning, and none outlives `run`.
    """

    def __init__(self, commands: _Commands, number: int, data_dir: Path) -> None:
        self._commands, self._number = commands, number
        self._logs = data_dir / "processes"
        self._running: list[subprocess.Popen[bytes]] = []
        self.stop_signal: signal.Signals | None = None
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, self._pass_signal_on)

    def run(self, environment: Mapping[str, str]) -> int:
        """Returns the crawl's exit status: 0 when one of them has proved it complete."""
        if self.stop_signal is not None:
            _say(f"datasync-crawler: {STOPPED_EARLY}")
            return 1
        try:
            return self._run(environment)
        finally:
            for process in self._running:
                process.terminate()
            for process in self._running:
                process.wait()

    def _run(self, environment: Mapping[str, str]) -> int:
        first = self._start(environment, None)
        if self._number > 1:
            self._logs.mkdir(parents=True, exist_ok=True)
            _say(f"{self._number} processes share this crawl; logs of the others: {self._logs}")
        for number in range(2, self._number + 1):
            with (self._logs / f"{number}.log").open("wb") as log:
                self._start(environment, log)
        if self.stop_signal is not None:  # it came while they were being started
            self._send(signal.SIGTERM)
        status = first.wait()
        if status in {0, 2}:  # complete: the others have the same verdict; 2: none can do better
            statuses = [self._end(one) for one in self._running[1:]]
        else:
            statuses = [one.wait() for one in self._running[1:]]
        if 0 in statuses:
            return 0
        return status if status >= 0 else 128 - status

    def _start(
        self, environment: Mapping[str, str], log: IO[bytes] | None
    ) -> subprocess.Popen[bytes]:
        tied = [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid())]
        process = subprocess.Popen(  # noqa: S603 - ourselves
            [*tied, *(self._commands.other if log else self._commands.first)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C that reached it twice would stop it uncleanly
        )
        self._running.append(process)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            return process.wait()

    def _pass_signal_on(self, number: int, frame: FrameType | None) -> None:
        """Passes the first signal on, and each Ctrl-C: a second one stops a crawl uncleanly."""
        del frame
        is_first = self.stop_signal is None
        self.stop_signal = signal.Signals(number)
        if is_first or number == signal.SIGINT:
            self._send(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    def _send(self, sig: signal.Signals) -> None:
        for process in self._running:
            process.send_signal(sig)


class _Demonstration:
    """One crawl of the mock API into a database of its own."""

    def __init__(self, settings: BaseSettings, config: Config, mock: Mock) -> None:
        self._settings, self._config, self._mock = settings, config, mock

    def run(self, crawls: _Crawls, psql: str) -> int:
        """Returns the crawl's exit status. Every process that it started has ended by then.

        *psql*: the command that shows the events. Raises CrawlError.
        """
        from datasync_crawler.commands import demonstration  # noqa: PLC0415
        from datasync_crawler.local_postgres.embedded import ensure_running  # noqa: PLC0415
        from datasync_crawler.store.targets import EmbeddedTarget  # noqa: PLC0415

        _say(
            f"This is a demonstration: {self._mock.events:,} generated events from a mock API on "
            "this machine. To ingest a real API, run install -m 600 .env.example .env, set "
            "API_BASE_URL and API_KEY in it, and run this command again."
        )
        target = self._config.database
        assert isinstance(target, EmbeddedTarget)  # a demonstration has no server configured
        with (
            ensure_running(target.data_dir, port=target.port),
            demonstration.serving(self._mock) as url,
        ):
            demonstration.remember(self._settings, self._mock)
            status = crawls.run(demonstration.environment(os.environ, url))
        if crawls.stop_signal is None:
            _say(f"To look at the demonstration's events: {psql}")
        return status


def _whole(text: str | None, name: str, default: int, most: int) -> int:
    from datasync_crawler.errors import ConfigError  # noqa: PLC0415

    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 12 or not 1 <= int(text) <= most:
        raise ConfigError(f"{name} is {text!r}: give it a whole number between 1 and {most:,}.")
    return int(text)


def _commands(opts: argparse.Namespace, settings: BaseSettings) -> _Commands:
    """Of the options of `ingest`. The other processes leave the log file and the page's port to the
    first one: their log is their output, and their page has any free port of this machine.
    """
    crawl = [sys.executable, "-m", "scrapy", "crawl", "events"]
    level = [f"--loglevel={opts.loglevel}"] if opts.loglevel else []
    level += ["--nolog"] if opts.nolog else []
    file = [f"--logfile={opts.logfile}"] if opts.logfile else []
    own = [pair for pair in opts.set if not pair.startswith("LOG_FILE=")]
    if settings.get("DASHBOARD_PORT"):  # an empty value wouldn't hide that of .env
        own += ["DASHBOARD_PORT=0", "DASHBOARD_HOST=127.0.0.1"]
    return _Commands(
        first=[*crawl, *_set(opts.set), *level, *file], other=[*crawl, *_set(own), *level]
    )


def _set(pairs: list[str]) -> list[str]:
    return [word for pair in pairs for word in ("-s", pair)]


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
