"""Whether the rate holds to ten million events, and whose fault it is where it doesn't.

    python benchmarks/scale.py [--events 10000000] [--only-ledger]

The same events, each load into a new database: raw COPY without an index, raw COPY with the primary
key, and the crawl with everything on. Printed: rows a second over each million (of COPY by what it
has read, of the crawl by the ledger's commits), the last million against the first, and the crawl's
most memory. Before that, how soon a crawl with a million ranges in its ledger asks for the first
gap: from the command, and from the first answer, which is what the planning takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests"), str(PROJECT / "tests" / "support")]

import psycopg2  # noqa: E402
from loaders import COPY_BUFFER_BYTES, NAMES  # noqa: E402
from throughput import LIMIT, Bench, opened, run  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable

MILLION = 1_000_000


class Watched:
    """A file of rows that notes when each million of them has been read."""

    def __init__(self, path: Path, chunks: list[int], step: int) -> None:
        self._file = path.open("rb")
        sizes = [sum(chunks[at : at + step]) for at in range(0, len(chunks), step)]
        self._marks = [sum(sizes[: number + 1]) for number in range(len(sizes))]
        self._read = 0
        self.times = [time.perf_counter()]

    def read(self, size: int) -> bytes:
        """Psycopg2 asks for the next part when the server has taken the last one."""
        part = self._file.read(size)
        self._read += len(part)
        while (
            len(self.times) <= len(self._marks) and self._read >= self._marks[len(self.times) - 1]
        ):
            self.times.append(time.perf_counter())
        return part


def raw_copy(bench: Bench, *, index: bool) -> list[float]:
    """When each million was in, by one COPY on one connection; the last one is the commit."""
    bench.fresh()
    if not index:
        bench.execute("ALTER TABLE events DROP CONSTRAINT events_pkey")
    rows = Watched(bench.folder / "rows", bench.chunks, MILLION // LIMIT)
    with closing(psycopg2.connect(bench.dsn())) as connection, connection.cursor() as cursor:
        cursor.copy_expert(f"COPY events ({NAMES}) FROM STDIN", rows, COPY_BUFFER_BYTES)
        connection.commit()
    return [*rows.times[:-1], time.perf_counter()]


def crawl(bench: Bench) -> tuple[list[float], float]:
    """When each million was committed, from the spider's opening; the most memory in MB."""
    loaded = bench.crawl(LIMIT)
    times = bench.execute(
        "WITH committed AS (SELECT extract(epoch FROM committed_at)::float8 AS at,"
        " sum(received) OVER (ORDER BY committed_at, pass, first_offset) AS rows FROM checkpoint)"
        f" SELECT min(at) FROM committed GROUP BY ceil(rows / {MILLION}.0) ORDER BY 1"
    )
    begun = bench.execute("SELECT extract(epoch FROM min(started_at))::float8 FROM crawl_runs")
    last = bench.execute("SELECT extract(epoch FROM max(committed_at))::float8 FROM checkpoint")
    return [begun[0][0], *(at for (at,) in times[1:]), last[0][0]], loaded.peak_mb


def plan_first_hole(bench: Bench) -> tuple[float, float]:
    """Seconds from the command, and from the first answer, to the request for the first gap."""
    gap = MILLION // 2
    bench.mock.config(events=MILLION)
    bench.fresh()
    bench.execute(
        "INSERT INTO source (api_base_url, pagination, total)"
        f" VALUES ('{bench.mock.url}', 'auto', {MILLION})"
    )
    bench.execute(
        "INSERT INTO checkpoint (pass, first_offset, requested, received, inserted, duplicates,"
        " changed, rejected, run_id) SELECT 1, n, 1, 1, 1, 0, 0, 0, 0"
        f" FROM generate_series(0, {MILLION - 1}) AS n WHERE n <> {gap}"
    )
    # The first page is known, else all new events at the front would be read.
    first = json.loads(bench.mock.get("/events/bulk", offset=0, limit=1)[1])["data"][0]["id"]
    bench.execute(f"INSERT INTO events (id) VALUES ('{first}')")
    began = time.time()
    run(["-m", "scrapy", "crawl", "events", *bench.crawl_args(1)], bench.environment())
    asked = [entry for entry in bench.mock.stats()["entries"] if entry["time"] > began]
    for_gap = next(entry["time"] for entry in asked if entry["offset"] == gap)
    return for_gap - began, for_gap - asked[0]["time"]


def rates(times: list[float]) -> list[float]:
    """Rows a second over each million."""
    return [MILLION / (end - begin) for begin, end in pairwise(times)]


def table(loads: dict[str, list[float]]) -> Iterable[str]:
    """A line a million, as Markdown."""
    yield "| million | " + " | ".join(loads) + " |"
    yield "|---:|" + "---:|" * len(loads)
    for number, row in enumerate(zip(*loads.values(), strict=True), 1):
        yield f"| {number} | " + " | ".join(f"{rate:,.0f}" for rate in row) + " |"
    shares = (f"{per[-1] / per[0]:.2f}" for per in loads.values())
    yield "| last / first | " + " | ".join(shares) + " |"


def main() -> None:
    """Makes the place, runs, cleans up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=10 * MILLION, help="whole millions")
    parser.add_argument("--only-ledger", action="store_true", help="just the million ranges")
    parser.add_argument("--folder", type=Path, default=PROJECT / ".datasync" / "benchmark")
    options = parser.parse_args()
    events = max(2, options.events // MILLION) * MILLION
    with opened(options.folder, events, []) as bench:
        command_s, plan_s = plan_first_hole(bench)
        print(
            "A ledger of a million ranges, to the first gap's request: "
            f"{plan_s:.2f} s from the first answer, {command_s:.2f} s from the command"
        )
        if options.only_ledger:
            return
        bench.mock.config(events=events)
        bench.prepare()
        print("prepared", file=sys.stderr, flush=True)
        loads = {"raw COPY, no index": rates(raw_copy(bench, index=False))}
        loads["raw COPY"] = rates(raw_copy(bench, index=True))
        times, peak_mb = crawl(bench)
        loads["crawl"] = rates(times)
    print("\n".join(table(loads)))
    print(f"\nThe crawl's most memory: {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
