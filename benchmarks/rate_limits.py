"""How near the rate controller comes to the ideal, against the mock API on the wall clock.

    python benchmarks/rate_limits.py [--limit 10] [--window 20] [--windows 5] [--latency-ms 50]

Every limiter with every style of headers, each with a mock of its own, all at the same time: they
wait far more than they work. The client is the smallest that can be: it asks the controller,
sends, tells it the answer. Printed: time against the ideal for that limiter, 429s, requests.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import time
from collections import deque
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from mockserver import MockServer

from datasync_crawler.core.ratelimit import RateController

LIMITERS = ("fixed", "sliding", "token-bucket")
# Above the ideal, as a share of it, and seconds on top.
GOALS = {"full": (0.05, 1), "ietf": (0.05, 1), "retry-after": (0.15, 0), "none": (0.40, 0)}


def ideal_s(limiter: str, limit: int, window_s: float, pages: int) -> float:
    """The least time in which `pages` requests can go through."""
    if limiter == "token-bucket":
        return max(0, pages - limit) * window_s / limit
    return (math.ceil(pages / limit) - 1) * window_s


async def crawl(mock: MockServer, pages: int) -> tuple[float, int, int]:
    """Fetch `pages` pages; give seconds, 429s and requests."""
    rate = RateController(max_in_flight=None, max_wait_s=3600, random=random.random)
    todo = deque(range(pages))
    changed = asyncio.Event()
    refused = requests = 0
    running: set[asyncio.Task[None]] = set()
    begun = time.monotonic()

    async def fetch(page: int, sent_at: float) -> None:
        nonlocal refused, requests
        requests += 1
        params = {"offset": str(page), "limit": "1"}
        async with session.get(f"{mock.url}/events/bulk", params=params) as response:
            body = await response.read()
            headers = {name.lower(): text for name, text in response.headers.items()}
        rate.answered(
            time.monotonic(), time.time(), response.status, headers, body, sent_at=sent_at
        )
        if response.status == 429:
            refused += 1
            todo.appendleft(page)
        changed.set()

    async with aiohttp.ClientSession(headers={"X-API-Key": mock.key}) as session:
        while todo or rate.in_flight:
            changed.clear()
            now = time.monotonic()
            decision = rate.ask(now) if todo else None
            if decision is not None and decision.delay_s == 0:
                task = asyncio.create_task(fetch(todo.popleft(), now))
                running.add(task)
                task.add_done_callback(running.discard)
                continue
            try:
                await asyncio.wait_for(changed.wait(), decision.delay_s if decision else None)
            except TimeoutError:
                continue
        await asyncio.gather(*running)
    return time.monotonic() - begun, refused, requests


async def measure(arguments: argparse.Namespace) -> bool:
    """Run every cell, print the table; whether all goals are met."""
    pages = arguments.limit * arguments.windows
    cells = [(limiter, style) for limiter in LIMITERS for style in GOALS]
    mocks = []
    try:
        for limiter, style in cells:
            options = {
                "--events": pages, "--rate-limit": arguments.limit, "--limiter": limiter,
                "--rate-window": arguments.window, "--rate-headers": style,
                "--latency-ms": arguments.latency_ms,
            }  # fmt: skip
            texts = [str(text) for pair in options.items() for text in pair]
            mocks.append(MockServer(*texts).start())
        results = await asyncio.gather(*(crawl(mock, pages) for mock in mocks))
    finally:
        for mock in mocks:
            mock.stop()
    print(f"{pages} pages, {arguments.limit} in {arguments.window:g} s")
    print("limiter       headers       seconds   ideal  share  429s  requests")
    met = True
    for (limiter, style), (seconds, refused, requests) in zip(cells, results, strict=True):
        ideal = ideal_s(limiter, arguments.limit, arguments.window, pages)
        share, extra_s = GOALS[style]
        good = seconds <= ideal * (1 + share) + extra_s and not (extra_s and refused)
        met &= good
        print(
            f"{limiter:13s} {style:12s} {seconds:8.1f} {ideal:7.1f} {seconds / ideal:6.3f}"
            f" {refused:5d} {requests:9d}  {'' if good else 'GOAL MISSED'}"
        )
    return met


def main() -> int:
    """Exit status 1 when a goal of the rate limits is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--window", type=float, default=20)
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--latency-ms", type=float, default=50)
    return 0 if asyncio.run(measure(parser.parse_args())) else 1


if __name__ == "__main__":
    sys.exit(main())
