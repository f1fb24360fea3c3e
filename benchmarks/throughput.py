"""Events per second from the API to the database, held against raw COPY and what else one would do.

    python benchmarks/throughput.py [--events 1000000] [--rounds 5] [--plot FILE.svg]
                                    [--variant NAME=value …] [--only WORD …]

Everything in one run, in alternating rounds on one machine, each load into a fresh database: so the
ratios hold where the figures don't. Rates count from the opening of the spider (or of the first
connection) to the last commit and, for the crawl, the proof; a process's start is shown apart. The
API is the mock, warmed, from memory; its own rate, with nothing behind it, stands in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests"), str(PROJECT / "tests" / "support")]

import psycopg2  # noqa: E402
from mockapi_rate import rate as mock_pages_s  # noqa: E402
from mockserver import MockProcess  # noqa: E402
from plot import bars  # noqa: E402

from datasync_crawler.events import copyrows  # noqa: E402
from datasync_crawler.events.decoding import PageDecoder  # noqa: E402
from datasync_crawler.events.timestamps import normalize_timestamps  # noqa: E402
from datasync_crawler.local_postgres.embedded import EmbeddedServer, ensure_running  # noqa: E402
from datasync_crawler.store import schema  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 5_000
#: Small pages and an item per event are slow: they get this share of the events.
SHARES = {5_000: 1.0, 1_000: 1.0, 100: 0.2}
PER_EVENT_SHARE = 0.1
FLOOR = "raw COPY, one connection"
#: Settings that a developer's own environment may hold.
OURS = ("API_", "DB_", "DATABASE_URL", "WORKERS", "BULK_", "BATCH_", "DATA_DIR", "PG", "DASHBOARD_")


@dataclass
class Loaded:
    """One load: seconds, events, and (of a process) CPU seconds and the most memory in MB."""

    seconds: float
    events: int
    cpu_s: float = 0.0
    peak_mb: float = 0.0

    @property
    def rate(self) -> float:
        return self.events / self.seconds


@dataclass
class Bench:
    """Mock, server and prepared rows of one run."""

    mock: MockProcess
    server: EmbeddedServer
    events: int
    folder: Path
    settings: list[str]
    chunks: list[int] = field(default_factory=list)
    database: str = ""

    # --- before ---------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Warms the mock and writes the rows that raw COPY loads."""
        decoder = PageDecoder()
        with (self.folder / "rows").open("wb") as rows:
            for offset in range(0, self.events, LIMIT):
                status, body = self.mock.get("/events/bulk", offset=offset, limit=LIMIT)
                assert status == 200, status
                page = decoder.decode(body)
                assert not normalize_timestamps(page.events)
                self.chunks.append(rows.write(copyrows.encode(page.events, plain=page.plain)))

    def fresh(self) -> None:
        """A new database with the crawler's tables, and nothing left to write of the last one."""
        self.drop()
        self.database = f"bench_{uuid.uuid4().hex[:8]}"
        self.execute(f"CREATE DATABASE {self.database}", database="postgres")
        with closing(psycopg2.connect(self.dsn())) as connection:
            schema.migrate(connection, "public")
        self.execute("CHECKPOINT")

    def drop(self) -> None:
        """Drops the last database."""
        if self.database:
            self.execute(f"DROP DATABASE {self.database} WITH (FORCE)", database="postgres")
            self.database = ""

    def dsn(self, database: str = "") -> str:
        return " ".join(
            f"{name}={value}"
            for name, value in self.server.conninfo(database or self.database).items()
        )

    def execute(self, statement: str, database: str = "") -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self.dsn(database))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    # --- one load each --------------------------------------------------------------------------

    def share(self, share: float, limit: int) -> int:
        """Events of a load; the mock is set to as many."""
        pages = max(2, round(self.events * share / limit))
        self.mock.config(events=pages * limit)
        return pages * limit

    def load(self, script: str, *args: str, share: float = 1.0, limit: int = LIMIT) -> Loaded:
        """A baseline."""
        events = self.share(share, limit)
        self.fresh()
        job = {
            "dsn": self.dsn(), "rows": str(self.folder / "rows"), "chunks": self.chunks,
            "url": self.mock.url, "key": self.mock.key, "events": events, "limit": limit,
        }  # fmt: skip
        text, cpu_s, peak_mb = run([PROJECT / "benchmarks" / script, *args], told=json.dumps(job))
        self.check(events)
        return Loaded(float(text.split()[-1]), events, cpu_s, peak_mb)

    def crawl(self, limit: int, *settings: str) -> Loaded:
        """The crawl, all of it: ledger, heartbeat, progress, proof."""
        events = self.share(SHARES[limit], limit)
        self.fresh()
        return self.crawl_again(limit, events, *settings)

    def crawl_again(self, limit: int, events: int, *settings: str) -> Loaded:
        """The crawl into the database as it is. Timed by the run's own row, on the server."""
        command = ["-m", "scrapy", "crawl", "events", *self.crawl_args(limit, *settings)]
        _, cpu_s, peak_mb = run(command, self.environment())
        self.check(events)
        lasted = self.execute(
            "SELECT extract(epoch FROM finished_at - started_at)::float8, finish_reason "
            "FROM crawl_runs ORDER BY id DESC LIMIT 1"
        )
        assert lasted[0][1] == "finished", lasted
        return Loaded(lasted[0][0], events, cpu_s, peak_mb)

    def crawl_over(self) -> Loaded:
        """The ledger is lost, every id a conflict."""
        events = self.share(1.0, LIMIT)
        self.execute("TRUNCATE checkpoint")
        return self.crawl_again(LIMIT, events)

    def profile(self) -> dict[str, float]:
        """CPU of one crawl by step, in µs an event; the server's too."""
        events = self.share(1.0, LIMIT)
        self.fresh()
        before = self.server_cpu_s()
        script = PROJECT / "benchmarks" / "profiled_crawl.py"
        text, _, _ = run([script, *self.crawl_args(LIMIT)], self.environment())
        spent: dict[str, float] = json.loads(text.strip().splitlines()[-1])
        spent["PostgreSQL"] = self.server_cpu_s() - before
        return {step: seconds / events * 1e6 for step, seconds in spent.items()}

    def first_rows_s(self) -> float:
        """Seconds from the command to the first committed rows, seen by another connection."""
        self.share(1.0, LIMIT)
        self.fresh()
        with closing(psycopg2.connect(self.dsn())) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            began = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "scrapy", "crawl", "events", *self.crawl_args(LIMIT)],
                cwd=PROJECT, env=self.environment(), stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while process.poll() is None:
                cursor.execute("SELECT EXISTS (SELECT FROM checkpoint)")
                if cursor.fetchone() == (True,):
                    break
                time.sleep(0.005)
            seconds = time.perf_counter() - began
        process.terminate()
        process.wait()
        return seconds

    # --- small ones -----------------------------------------------------------------------------

    def crawl_args(self, limit: int, *settings: str) -> list[str]:
        args = ["-s", f"BULK_PAGE_SIZE={limit}", "-s", "PROGRESS_INTERVAL=1"]
        for setting in (*self.settings, *settings):
            args += ["-s", setting]
        return args

    def environment(self) -> dict[str, str]:
        conninfo = self.server.conninfo(self.database)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        return kept | {
            "API_BASE_URL": self.mock.url, "API_KEY": self.mock.key,
            "DB_HOST": conninfo["host"], "DB_PORT": conninfo["port"], "DB_USER": conninfo["user"],
            "DB_PASSWORD": conninfo["password"], "DB_NAME": self.database,
        }  # fmt: skip

    def check(self, events: int) -> None:
        """A load that lost something is no load."""
        stored = self.execute("SELECT count(*) FROM events")[0][0]
        if stored != events:
            raise RuntimeError(f"{stored} rows of {events}")

    def server_cpu_s(self) -> float:
        """CPU seconds of all server processes, ended ones too (Linux)."""
        pid = int((self.server.home / "data" / "postmaster.pid").read_text().split()[0])
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended meanwhile
            own = stat.parent.name == str(pid)
            if own or int(fields[1]) == pid:
                ticks += sum(map(int, fields[11 : 15 if own else 13]))
        return ticks / os.sysconf("SC_CLK_TCK")


def run(
    command: list[Any], env: dict[str, str] | None = None, told: str = ""
) -> tuple[str, float, float]:
    """Runs Python with *command*: what it printed, its CPU seconds, its most memory in MB."""
    search = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=PROJECT, stdin=subprocess.PIPE,
            env={**(env or os.environ), "PYTHONPATH": search},
            stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(told)
        process.stdin.close()
        text = process.stdout.read()
        process.stdout.close()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            raise RuntimeError(f"{command[:4]} ended with {process.returncode}: {errors.read()}")
    return text, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000


# --- the run --------------------------------------------------------------------------------------


def contestants(bench: Bench, variants: list[str]) -> dict[str, Callable[[], Loaded]]:
    """What a round consists of, in this order; of each variant, the crawls."""
    found: dict[str, Callable[[], Loaded]] = {
        FLOOR: lambda: bench.load("loaders.py", "copy"),
        "COPY, temporary table, ON CONFLICT": lambda: bench.load("loaders.py", "merge"),
        "crawl, 5,000 a page": lambda: bench.crawl(5_000),
        "crawl again, every id a conflict": bench.crawl_over,
    }
    for limit in (1_000, 100):
        found[f"crawl, {limit:,} a page"] = lambda limit=limit: bench.crawl(limit)
    for variant in variants:
        for limit in SHARES:
            found[f"crawl, {limit:,} a page, {variant}"] = lambda limit=limit, variant=variant: (
                bench.crawl(limit, *variant.split())
            )
    for limit, share in SHARES.items():
        found[f"asyncio loader, {limit:,} a page"] = lambda limit=limit, share=share: bench.load(
            "loaders.py", "asyncio", limit=limit, share=share
        )
        found[f"Scrapy, item per event, {limit:,} a page"] = lambda limit=limit: bench.load(
            "per_event.py", limit=limit, share=PER_EVENT_SHARE
        )
    return found


def medians(results: dict[str, list[Loaded]]) -> list[str]:
    """The table, as Markdown."""
    floor = [loaded.rate for loaded in results[FLOOR]]
    lines = ["| load | events | events/s | of raw COPY | CPU, µs an event | peak memory |",
             "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name, loads in results.items():
        # Of each round's own floor: what else the machine did then slowed both.
        ratios = [loaded.rate / base for loaded, base in zip(loads, floor, strict=True)]
        cpu_us = statistics.median(loaded.cpu_s / loaded.events for loaded in loads) * 1e6
        lines.append(
            f"| {name} | {loads[0].events:,} | "
            f"{statistics.median(loaded.rate for loaded in loads):,.0f} | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) | "
            f"{cpu_us:.1f} | {max(loaded.peak_mb for loaded in loads):.0f} MB |"
        )
    return lines


def measure(bench: Bench, options: argparse.Namespace) -> None:
    """All rounds, the profile and the start; prints what is known so far on standard error."""
    print("The mock alone, read and thrown away, 4 connections:")
    for limit, share in SHARES.items():
        events = bench.share(share, limit)
        pages_s = mock_pages_s(bench.mock, events, 1, 4, limit)
        print(f"- {limit:,} a page: {pages_s:,.0f} pages/s = {pages_s * limit:,.0f} events/s")
    chosen = {
        name: load
        for name, load in contestants(bench, options.variant).items()
        if name == FLOOR or not options.only or any(word in name for word in options.only)
    }
    results: dict[str, list[Loaded]] = {name: [] for name in chosen}
    for number in range(options.rounds):
        for name, load in chosen.items():
            loaded = load()
            results[name].append(loaded)
            print(f"round {number + 1}: {name}: {loaded.rate:,.0f}/s", file=sys.stderr)
    print(f"\nMedians of {options.rounds} rounds, and the rounds' least and greatest ratio:\n")
    print("\n".join(medians(results)))
    rates = {
        name: statistics.median(loaded.rate for loaded in loads) for name, loads in results.items()
    }
    print("\n" + bars(rates))
    if options.plot:
        options.plot.write_text(bars(rates, svg=True))
    if options.only:
        return
    starts = [bench.first_rows_s() for _ in range(options.rounds)]
    print(f"\nFirst rows committed after the command: {statistics.median(starts):.2f} s")
    print("\nCPU of the crawl at 5,000 a page, µs an event:\n")
    for step, cost_us in sorted(bench.profile().items(), key=lambda item: -item[1]):
        print(f"- {step}: {cost_us:.2f}")


def main() -> None:
    """Makes the place, runs, cleans up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="write the bars as SVG")
    parser.add_argument("--only", nargs="*", help="loads whose name holds one of these words")
    parser.add_argument(
        "--variant", action="append", default=[], metavar="NAME=value",
        help="the crawls once more, with this setting (several in one: separated by spaces)",
    )  # fmt: skip
    parser.add_argument("-s", dest="settings", action="append", default=[], metavar="NAME=value")
    parser.add_argument("--folder", type=Path, default=PROJECT / ".datasync" / "benchmark")
    options = parser.parse_args()
    events = max(1, options.events // LIMIT) * LIMIT
    with opened(options.folder, events, options.settings) as bench:
        bench.prepare()
        measure(bench, options)


@contextmanager
def opened(folder: Path, events: int, settings: list[str]) -> Iterator[Bench]:
    """Server and mock below *folder*; what was made there but the server is gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    # 350 bytes an event: all of it, so that no page is made up while it is asked for.
    memory = str(events * 400 // 1_000_000 + 64)
    with (
        ensure_running(folder, port=free_port()) as server,
        MockProcess("--events", str(events), "--cache-mb", memory) as mock,
    ):
        bench = Bench(mock, server, events, folder, settings)
        try:
            yield bench
        finally:
            bench.drop()
            (folder / "rows").unlink(missing_ok=True)


def free_port() -> int:
    """A port that was free a moment ago: another benchmark may run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
