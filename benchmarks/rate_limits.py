"""How near a real crawl comes to the ideal of a limiter: `scrapy crawl events` against the mock.

    python benchmarks/rate_limits.py [--limit 10] [--window 20] [--windows 5] [--latency-ms 50]
                                     [--only fixed] [--at-once 6]
    python benchmarks/rate_limits.py --others [--company none] [--only express-draft-8] …

Every limiter with every style of headers, each with a mock, a process and a database of its own,
several at a time: they wait far more than they work. Printed for each: the time by the mock's
journal against the ideal for that limiter, 429s, and how many came in each burst.

With --others the limiters are those that people run (`other_limiters.py`), in front of the mock:
alone, with one foreign request three seconds before the crawl, and with a client that takes a third
of the quota. Refusals are counted by the crawl's own stats: the mock doesn't see them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlsplit

import other_limiters
from real_crawl import Journal, MockProcess, crawl, crawl_once, database_server, own_database

if TYPE_CHECKING:
    from databases import Server

LIMITERS = ("fixed", "sliding", "token-bucket")
# Issue "Rate limits": above the ideal, as a share of it, and seconds on top.
GOALS = {"full": (0.05, 1), "ietf": (0.05, 1), "retry-after": (0.15, 0), "none": (0.40, 0)}
PAGE = 100
HEAD = "limiter       headers      seconds   ideal  share  429s  requests  bursts of 429s"


def events_of(requests: int) -> int:
    """As many events as that many requests take: pages overlap by one, and the last asks for the
    end.
    """
    return PAGE + (requests - 2) * (PAGE - 1)


def ideal_s(limiter: str, limit: int, window_s: float, pages: int) -> float:
    """The least time in which `pages` requests can go through."""
    if limiter == "token-bucket":
        return max(0, pages - limit) * window_s / limit
    return (math.ceil(pages / limit) - 1) * window_s


def verdict(style: str, seen: Journal, ideal: float) -> str:
    """What the issue asks of this cell and isn't met; empty: all is."""
    share, extra_s = GOALS[style]
    missed = []
    if seen.seconds > ideal * (1 + share) + extra_s:
        missed.append(f"slower than {ideal * (1 + share) + extra_s:.1f} s")
    if style in {"full", "ietf"} and seen.refused_at:
        missed.append("a 429 with full headers")
    sizes = [size for _, size in seen.bursts()]
    if style == "retry-after" and any(later > before for before, later in pairwise(sizes)):
        missed.append("bursts grow")
    return "MISSED: " + ", ".join(missed) if missed else "met"


def run_cell(server: Server, arguments: argparse.Namespace, limiter: str, style: str) -> Journal:
    """One crawl. The last page is short: nobody has to look behind the end, a request a page."""
    pages = arguments.limit * arguments.windows
    options = {
        "--events": events_of(pages), "--rate-limit": arguments.limit, "--limiter": limiter,
        "--rate-window": arguments.window, "--rate-headers": style,
        "--latency-ms": arguments.latency_ms,
    }  # fmt: skip
    texts = [str(text) for pair in options.items() for text in pair]
    settings = {"BULK_PAGE_SIZE": PAGE, "DB_WRITERS": 1, "PROGRESS_INTERVAL": 0}
    return crawl_once(server, texts, *(f"-s{name}={value}" for name, value in settings.items()))


def measure(arguments: argparse.Namespace) -> bool:
    """Run every cell, print the table as it grows; whether all goals are met."""
    pages = arguments.limit * arguments.windows
    cells = [(limiter, style) for limiter in arguments.only or LIMITERS for style in GOALS]
    print(f"{pages} pages, {arguments.limit} in {arguments.window:g} s, a real crawl\n{HEAD}")
    all_met = True
    with database_server() as server, ThreadPoolExecutor(arguments.at_once) as threads:
        running = [threads.submit(run_cell, server, arguments, *cell) for cell in cells]
        for (limiter, style), journal in zip(cells, running, strict=True):
            seen = journal.result()
            ideal = ideal_s(limiter, arguments.limit, arguments.window, pages)
            said = verdict(style, seen, ideal)
            all_met &= said == "met"
            bursts = "+".join(str(size) for _, size in seen.bursts()) or "-"
            print(
                f"{limiter:13s} {style:11s} {seen.seconds:8.1f} {ideal:7.1f}"
                f" {seen.seconds / ideal:6.3f} {len(seen.refused_at):5d} {seen.requests:9d}"
                f"  {bursts:14s}  {said}",
                flush=True,
            )
    return all_met


# --- limiters from other hands ----------------------------------------------------------------

COMPANY = ("none", "before", "third")
#: A foreign request comes so long before the crawl's first one, in seconds, of which a start takes
#: about so many.
BEFORE_S, START_UP_S = 3.0, 1.5
#: What the answers of each say, and so the goal: time over the ideal.
SAYS = {
    "express-none": "none", "nginx": "none", "nginx-429": "none", "nginx-burst": "none",
    "haproxy": "none", "flask-silent": "none", "django": "retry-after",
}  # fmt: skip
OTHERS_GOALS = {"headers": 1.05, "retry-after": 1.15, "none": 1.4}
OTHERS_HEAD = "limiter          company  seconds   ideal  share  refused  foreign let through"


@dataclass(frozen=True)
class Seen:
    """A crawl through a limiter: seconds, refusals, and of the other client's requests how many
    were sent and how many let through.
    """

    seconds: float
    refused: int
    foreign: tuple[int, int]


class OtherClient:
    """Sends a request now and then with the same key, and counts what is let through."""

    def __init__(self, address: str, key: str) -> None:
        url = f"{address}/api/v1/events/bulk?offset=0&limit=1"
        self._request = urllib.request.Request(url, headers={"X-API-Key": key})
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._ended = threading.Event()
        self.sent = self.let_through = 0

    def ask(self) -> None:
        self.sent += 1
        try:
            with self._open(self._request, timeout=30) as answer:
                self.let_through += answer.status == 200
        except HTTPError as error:
            error.close()

    def every(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            self.ask()

    def end(self) -> None:
        self._ended.set()


def other_ideal_s(kind: str, limit: int, window_s: float, pages: int, company: str) -> float:
    """The least time in which `pages` requests can go through, with what is left to us."""
    pages += company == "before"
    mine = limit * 2 // 3 if company == "third" else limit
    if kind.startswith("nginx"):
        at_once = limit if kind == "nginx-burst" else 1
        return max(0, pages - at_once) * window_s / mine
    if kind == "haproxy":
        return (pages - 1) * window_s / mine
    if kind in {"express-two", "flask-two"}:  # 3 x limit in 4 x window_s under limit in window_s
        long = (math.ceil(pages / (3 * mine)) - 1) * 4 * window_s
        return long + (math.ceil((pages % (3 * mine) or 3 * mine) / mine) - 1) * window_s
    return (math.ceil(pages / mine) - 1) * window_s


def run_other(server: Server, arguments: argparse.Namespace, kind: str, company: str) -> Seen:
    """One crawl through one limiter."""
    pages, window_s = arguments.limit * arguments.windows, int(arguments.window)
    options = ["--events", events_of(pages), "--latency-ms", arguments.latency_ms]
    settings = {"BULK_PAGE_SIZE": PAGE, "DB_WRITERS": 1, "PROGRESS_INTERVAL": 0}
    with MockProcess(*map(str, options)) as mock, own_database(server) as database:
        upstream = f"http://{urlsplit(mock.url).netloc}"
        with other_limiters.in_front(kind, upstream, arguments.limit, window_s) as address:
            client = OtherClient(address, mock.key)
            thread = threading.Thread(
                target=client.every, args=(3 * window_s / arguments.limit,), daemon=True
            )
            if company == "before":
                client.ask()
                time.sleep(BEFORE_S - START_UP_S)
            if company == "third":
                thread.start()
            done = crawl(
                mock, database, *(f"-s{name}={value}" for name, value in settings.items()),
                *(f"-s{setting}" for setting in arguments.setting),
                env={"API_BASE_URL": f"{address}/api/v1"}, timeout_s=3600,
            )  # fmt: skip
            client.end()
        if done.status != 0:
            raise RuntimeError(f"The crawl ended with {done.status}:\n{done.log}")
        stats = json.loads(database.value("SELECT stats::text FROM crawl_runs"))
        times = [entry["time"] for entry in mock.stats()["entries"] if entry["limit"] != 1]
    refused = sum(stats.get(f"rate_limit/answers_{status}", 0) for status in (403, 429, 503))
    refused += stats.get("retry/reason_count/HTTP 503", 0)
    seconds = times[-1] - times[0] + arguments.latency_ms / 1e3
    return Seen(seconds, refused, (client.sent, client.let_through))


def measure_others(arguments: argparse.Namespace) -> bool:
    """Run every limiter in every company, print the table as it grows; whether all is met."""
    pages = arguments.limit * arguments.windows
    kinds = arguments.only or other_limiters.KINDS
    cells = [(kind, company) for kind in kinds for company in arguments.company or COMPANY]
    print(f"{pages} pages, {arguments.limit} in {arguments.window:g} s\n{OTHERS_HEAD}")
    all_met = True
    with database_server() as server, ThreadPoolExecutor(arguments.at_once) as threads:
        running = [threads.submit(run_other, server, arguments, *cell) for cell in cells]
        for (kind, company), crawled in zip(cells, running, strict=True):
            try:
                seen = crawled.result()
            except other_limiters.Missing as missing:
                print(f"{kind:16s} {company:7s} left out: {missing}", flush=True)
                continue
            ideal = other_ideal_s(kind, arguments.limit, arguments.window, pages, company)
            says = SAYS.get(kind, "headers")
            goal = OTHERS_GOALS[says] if company == "none" else 1.5
            missed = []
            if seen.seconds > ideal * goal + 1:
                missed.append(f"slower than {goal:.2f} and a second")
            if says == "headers" and company == "none" and seen.refused:
                missed.append("refused though told")
            all_met &= not missed
            foreign = f"{seen.foreign[1]} of {seen.foreign[0]}" if company == "third" else "-"
            print(
                f"{kind:16s} {company:7s} {seen.seconds:8.1f} {ideal:7.1f}"
                f" {seen.seconds / ideal:6.2f} {seen.refused:8d}  {foreign:10s}"
                f"  {'MISSED: ' + ', '.join(missed) if missed else 'met'}",
                flush=True,
            )
    return all_met


def main() -> int:
    """Exit status 1 when a goal of the rate limits is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=10, help="requests a window (10)")
    parser.add_argument("--window", type=float, default=20, help="its length in seconds (20)")
    parser.add_argument("--windows", type=int, default=5, help="how many it takes (5)")
    parser.add_argument("--latency-ms", type=float, default=50, help="of each answer (50)")
    kinds = (*LIMITERS, *other_limiters.KINDS)
    parser.add_argument("--only", choices=kinds, action="append", help="not all limiters")
    parser.add_argument("--at-once", type=int, default=6, help="crawls side by side (6)")
    parser.add_argument("--others", action="store_true", help="limiters from other hands")
    parser.add_argument("--company", choices=COMPANY, action="append", help="not all companies")
    parser.add_argument("-s", dest="setting", action="append", default=[], metavar="NAME=value",
                        help="a setting of the crawl, with --others")  # fmt: skip
    arguments = parser.parse_args()
    return 0 if (measure_others if arguments.others else measure)(arguments) else 1


if __name__ == "__main__":
    sys.exit(main())
