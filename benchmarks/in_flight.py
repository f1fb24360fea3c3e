"""Whether the number of requests in flight that is learnt is as good as the best fixed one.

    python benchmarks/in_flight.py [--rounds 3]

Real crawls against the mock, without a rate limit: a slow API (300 ms an answer) and one on this
machine that answers at once. Each round runs every variant once, so that the ratios are of crawls
under the same load. Printed: events a second (median; first request to last answer), and the
median of the rounds' ratios to the learnt one. "fixed n" is Scrapy's CONCURRENT_REQUESTS without
the throttle.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median

from real_crawl import crawl_once, database_server

#: Name: events, events a page, latency in ms, numbers in flight to compare with.
APIS = {
    "slow: 300 ms": (60_000, 1_000, 300, (1, 4, 16, 32, 64)),
    "fast: 0 ms": (300_000, 5_000, 0, (4, 8, 16)),
}


def variant(fixed: int | None) -> list[str]:
    """The settings of a learnt or a fixed number in flight."""
    if fixed is None:
        return []
    return ["-sAUTOTHROTTLE_ENABLED=0", f"-sCONCURRENT_REQUESTS={fixed}"]


def main() -> int:
    """Prints a table for each API."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--api", choices=APIS, action="append", help="not all of them")
    arguments = parser.parse_args()
    with database_server() as server:
        for name in arguments.api or APIS:
            events, page, latency_ms, numbers = APIS[name]
            mock = ["--events", str(events - 1), "--latency-ms", str(latency_ms)]
            rates: dict[int | None, list[float]] = {fixed: [] for fixed in (None, *numbers)}
            for _ in range(arguments.rounds):
                for fixed, seen in rates.items():
                    settings = [f"-sBULK_PAGE_SIZE={page}", "-sPROGRESS_INTERVAL=0"]
                    journal = crawl_once(server, mock, *settings, *variant(fixed))
                    seen.append(events / journal.seconds)
            print(f"{name}, {events} events, {page} a page\nin flight  events/s  to learnt")
            for fixed, seen in rates.items():
                ratio = median(one / learnt for one, learnt in zip(seen, rates[None], strict=True))
                label = "learnt" if fixed is None else f"fixed {fixed}"
                print(f"{label:9s} {median(seen):9,.0f} {ratio:10.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
