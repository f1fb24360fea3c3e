"""How near a real crawl comes to the ideal of a limiter: `scrapy crawl events` against the mock.

    python benchmarks/rate_limits.py [--limit 10] [--window 20] [--windows 5] [--latency-ms 50]
                                     [--only fixed] [--at-once 6]

Every limiter with every style of headers, each with a mock, a process and a database of its own,
several at a time: they wait far more than they work. Printed for each: the time by the mock's
journal against the ideal for that limiter, 429s, and how many came in each burst.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

from real_crawl import Journal, crawl_once, database_server

if TYPE_CHECKING:
    from databases import Server

LIMITERS = ("fixed", "sliding", "token-bucket")
# Issue "Rate limits": above the ideal, as a share of it, and seconds on top.
GOALS = {"full": (0.05, 1), "ietf": (0.05, 1), "retry-after": (0.15, 0), "none": (0.40, 0)}
PAGE = 100
HEAD = "limiter       headers      seconds   ideal  share  429s  requests  bursts of 429s"


def ideal_s(limiter: str, limit: int, window_s: float, pages: int) -> float:
    """The least time in which `pages` requests can go through."""
    if limiter == "token-bucket":
        return max(0, pages - limit) * window_s / limit
    return (math.ceil(pages / limit) - 1) * window_s


def verdict(style: str, seen: Journal, ideal: float, window_s: float) -> str:
    """What the issue asks of this cell and isn't met; empty: all is."""
    share, extra_s = GOALS[style]
    missed = []
    if seen.seconds > ideal * (1 + share) + extra_s:
        missed.append(f"slower than {ideal * (1 + share) + extra_s:.1f} s")
    if style in {"full", "ietf"} and seen.refused_at:
        missed.append("a 429 with full headers")
    if style == "retry-after":
        windows = Counter(int(at // window_s) for at, _ in seen.bursts())
        if max(windows.values(), default=0) > 1:
            missed.append(f"{max(windows.values())} bursts in a window")
        sizes = [size for _, size in seen.bursts()]
        if any(later > before for before, later in pairwise(sizes)):
            missed.append("bursts grow")
    return "MISSED: " + ", ".join(missed) if missed else "met"


def run_cell(server: Server, arguments: argparse.Namespace, limiter: str, style: str) -> Journal:
    """One crawl. The last page is short: nobody has to look behind the end, a request a page."""
    pages = arguments.limit * arguments.windows
    options = {
        "--events": pages * PAGE - 1, "--rate-limit": arguments.limit, "--limiter": limiter,
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
            said = verdict(style, seen, ideal, arguments.window)
            all_met &= said == "met"
            bursts = "+".join(str(size) for _, size in seen.bursts()) or "-"
            print(
                f"{limiter:13s} {style:11s} {seen.seconds:8.1f} {ideal:7.1f}"
                f" {seen.seconds / ideal:6.3f} {len(seen.refused_at):5d} {seen.requests:9d}"
                f"  {bursts:14s}  {said}",
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
    parser.add_argument("--only", choices=LIMITERS, action="append", help="not all limiters")
    parser.add_argument("--at-once", type=int, default=6, help="crawls side by side (6)")
    return 0 if measure(parser.parse_args()) else 1


if __name__ == "__main__":
    sys.exit(main())
