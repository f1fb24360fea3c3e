"""What it costs to show a crawl: throughput and processor time with and without, in paired rounds.

    python benchmarks/dashboard_cost.py [--rounds 8] [--events 500000]

Arms, in an order that changes each round, each a crawl of the mock API into a schema of its own:

- bare: no progress, one heartbeat
- page: heartbeat every second, live page with a reader connected (what DASHBOARD_PORT costs)
- panel: the same, and the live panel in a pseudo-terminal

Last comes the share of the crawl's processor time that showing it takes, by clocks around panel,
heartbeat and the page's readings (profiled_crawl.py). Wall times differ by more than that from
round to round.

First said is what one drawing of the panel and one turn of the page cost of processor time, in this
process: other load doesn't disturb that. The panel is drawn once a second, the page's turn comes
once, with everything read anew (the ledger of the crawl before, 400 points of its series).

Then said is the median over rounds of each arm's ratio to the bare crawl of the same round, and its
spread (quartiles): of the wall time that the crawl itself says, and of its processor time, which
other load on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import pty
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from crawling import PROJECT, environment
from databases import Database, Server
from mockserver import MockProcess
from ports import free_port

from datasync_crawler.extensions.progress import PANEL_INTERVAL_S
from datasync_crawler.local_postgres.embedded import ensure_running
from datasync_crawler.monitor import progress
from datasync_crawler.monitor.feed import INTERVAL_S, Feed, _Costly
from datasync_crawler.monitor.panel import Panel
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.reader import DashboardReader
from datasync_crawler.store.targets import ServerTarget

ARMS = {
    "bare": ("-s", "PROGRESS_INTERVAL=0", "-s", "HEARTBEAT_INTERVAL=3600"),
    "page": (),
    "panel": (),
}
CRAWL = ("-m", "scrapy", "crawl", "events")
#: Steps of profiled_crawl.py that show a crawl.
SHOWING = ("panel or lines", "heartbeat", "page")


def read_page(port: int, ended: threading.Event) -> None:
    """A reader of the page's events, as a browser is one."""
    while not ended.is_set():
        with (
            contextlib.suppress(OSError),
            urlopen(f"http://127.0.0.1:{port}/events", timeout=30) as stream,
        ):
            for _ in stream:
                pass
        time.sleep(0.05)


def measure(
    arm: str, mock: MockProcess, database: Database, schema: str, *, profiled: bool = False
) -> tuple[float, float, str]:
    """Events per second of wall time, and processor time in seconds, of one crawl; what it said."""
    port = free_port()
    env = {**environment(mock, database), "DB_SCHEMA": schema, "TERM": "xterm"}
    env["PYTHONPATH"] = str(PROJECT)
    crawl = [str(PROJECT / "benchmarks" / "profiled_crawl.py")]
    command = [sys.executable, *(crawl if profiled else CRAWL), *ARMS[arm]]
    ended = threading.Event()
    if arm != "bare":
        command += ["-s", f"DASHBOARD_PORT={port}"]
        threading.Thread(target=read_page, args=(port, ended), daemon=True).start()
    ours, theirs = pty.openpty() if arm == "panel" else os.pipe()
    process = subprocess.Popen(command, cwd=PROJECT, env=env, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError), os.fdopen(ours, "rb", buffering=0) as output:
        while data := output.read(65536):
            said += data
    _, status, usage = os.wait4(process.pid, 0)
    ended.set()
    assert status == 0, said.decode()
    said = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", said)
    rate = re.findall(rb"events/s +([\d,]+)", said)[-1]
    return float(rate.replace(b",", b"")), usage.ru_utime + usage.ru_stime, said.decode()


class Tty(io.StringIO):
    """A terminal that swallows."""

    def isatty(self) -> bool:
        return True


def panel_share() -> float:
    """Processor time of drawing, as a share of the time."""
    figures = progress.Figures(
        3_000_000, 812_000, 3, 61_234.5, 60_000.1, 36.4, 1,
        progress.Traffic(8, 20, 3, 7.5, 4.2, "rate limit"),
    )  # fmt: skip
    panel = Panel(Tty())
    panel.start()
    began_s = time.process_time()
    for _ in range(200):
        panel.show(figures)
    took_s = (time.process_time() - began_s) / 200
    panel.stop()
    return took_s / PANEL_INTERVAL_S


async def page_share(database: Database, schema: str) -> float:
    """Processor time of reading and encoding all parts of the page, as a share of the time."""
    feed = Feed(DashboardReader(Connector(ServerTarget(database.params)), schema))
    await feed.parts(None)
    began_s = time.process_time()
    for _ in range(100):
        feed._ledger_rest, feed._rejections_rest, feed._series_rest = _Costly(), _Costly(), {}
        await feed.parts(None, max_age_s=0.0)
    took_s = (time.process_time() - began_s) / 100
    await feed.close()
    return took_s / INTERVAL_S


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--events", type=int, default=500_000)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    running = ensure_running(PROJECT / ".datasync" / "dashboard-cost", port=free_port())
    server = Server(running.conninfo("postgres"))
    with MockProcess("--events", str(options.events), "--cache-mb", "400") as mock:
        for number in range(options.rounds + 1):  # the first warms mock and server up
            server.execute("DROP DATABASE IF EXISTS dashboard_cost WITH (FORCE)")
            server.execute("CREATE DATABASE dashboard_cost")
            database = Database({**server.params, "dbname": "dashboard_cost"})
            arms = list(ARMS)
            order = arms[number % 3 :] + arms[: number % 3]
            for arm in order:
                rate, used_s, _ = measure(arm, mock, database, f"cost_{arm}")
                if number == 0 and arm == "page":
                    page = asyncio.run(page_share(database, "cost_page"))
                    print(f"panel {panel_share():.2%}, page {page:.2%} of a core", flush=True)
                if number:
                    rates[arm].append(rate)
                    seconds[arm].append(used_s)
        _, _, said = measure("panel", mock, database, "cost_profiled", profiled=True)
    spent: dict[str, float] = json.loads(said.strip().splitlines()[-1])
    server.execute("DROP DATABASE dashboard_cost WITH (FORCE)")
    running.release()
    for arm in ARMS:
        wall = [ours / bare for ours, bare in zip(rates[arm], rates["bare"], strict=True)]
        used = [ours / bare for ours, bare in zip(seconds[arm], seconds["bare"], strict=True)]
        print(
            f"{arm:6} {statistics.median(rates[arm]):9,.0f} events/s   throughput × {_spread(wall)}"
            f"   processor time {statistics.median(seconds[arm]):.2f} s × {_spread(used)}"
        )
    shares = {step: spent[step] / sum(spent.values()) for step in SHOWING}
    named = ", ".join(f"{step} {share:.2%}" for step, share in shares.items())
    print(f"of the crawl's processor time: {named}; in all {sum(shares.values()):.2%}")


def _spread(values: list[float]) -> str:
    # A single round has no quartiles.
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:.3f} ({low:.3f}–{high:.3f})"


if __name__ == "__main__":
    main()
