"""One table `events` against 16 partitions by hash of id, and what a row and a page take.

    python benchmarks/partitions.py [--events 1000000] [--rounds 3]

Each round crawls the mock into both, one after the other, into new databases, and then once more
with every id a conflict. Ratios are of the same round. The bytes, the processor time and the time
of the statements that read the whole table are what docs/scale.md calculates with.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests"), str(PROJECT / "tests" / "support")]

import psycopg2  # noqa: E402
from partitioned_events import documented_sql  # noqa: E402
from throughput import LIMIT, Bench, opened  # noqa: E402

from datasync_crawler.store import queries  # noqa: E402


@dataclass
class Figures:
    """Of one crawl. Rates in rows a second, bytes and µs a row unless their name says otherwise."""

    rows_s: float
    conflicts_rows_s: float
    crawler_us: float
    server_us: float
    heap: float
    index: float
    wal: float
    ledger_rows_a_page: float
    count_us: float
    distinct_us: float


def measure(bench: Bench, *, partitioned: bool) -> Figures:
    """A crawl into a new database, another one over it, and what is there then."""
    events = bench.share(1.0, LIMIT)
    bench.fresh()
    if partitioned:
        bench.execute("DROP TABLE events")
        bench.execute(documented_sql())
    position, cpu_s = wal(bench), bench.server_cpu_s()
    loaded = bench.crawl_again(LIMIT, events)
    cpu_s, written = bench.server_cpu_s() - cpu_s, wal(bench) - position
    heap, indexes = sizes(bench)
    ranges = bench.execute("SELECT count(*) FROM checkpoint")[0][0]
    texts = {**queries.load("verify", "public"), **queries.load("ledger", "public")}
    bench.execute("VACUUM ANALYZE")  # as autovacuum does, sooner or later
    return Figures(
        rows_s=loaded.rate,
        crawler_us=loaded.cpu_s / events * 1e6,
        server_us=cpu_s / events * 1e6,
        heap=heap / events,
        index=indexes / events,
        wal=written / events,
        ledger_rows_a_page=ranges / (events / LIMIT),
        count_us=timed(bench, texts["distinct_ids"]) / events * 1e6,
        distinct_us=timed(bench, texts["stored"]) / events * 1e6,
        conflicts_rows_s=bench.crawl_over().rate,
    )


def wal(bench: Bench) -> int:
    """Bytes of WAL that the server has written so far."""
    return int(bench.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0])


def sizes(bench: Bench) -> tuple[int, int]:
    """Bytes of the table with its TOAST, and of its indexes."""
    with closing(psycopg2.connect(bench.dsn())) as connection, connection.cursor() as cursor:
        cursor.execute(queries.load("dashboard", "public")["sizes"], {"schema": "public"})
        heap, indexes, _ = cursor.fetchone()
    return heap, indexes


def timed(bench: Bench, statement: str) -> float:
    """Seconds that a statement takes."""
    with closing(psycopg2.connect(bench.dsn())) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        began = time.perf_counter()
        cursor.execute(statement)
        cursor.fetchall()
        return time.perf_counter() - began


def ledger_bytes(bench: Bench) -> float:
    """Of a row of the ledger with its indexes, over a million ranges with ids of 36 characters."""
    bench.fresh()
    bench.execute(
        "INSERT INTO checkpoint (pass, first_offset, requested, received, inserted, duplicates,"
        " changed, rejected, repeated, before_id, first_id, last_id, total, run_id)"
        " SELECT 1, n * 4999::bigint, 5000, 5000, 5000, 0, 0, 0, 0, gen_random_uuid(),"
        " gen_random_uuid(), gen_random_uuid(), 1000000000, 1 FROM generate_series(1, 1000000) AS n"
    )
    return int(bench.execute("SELECT pg_total_relation_size('checkpoint')")[0][0]) / 1e6


def main() -> None:
    """Prints a table with a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=PROJECT / ".datasync" / "benchmark")
    options = parser.parse_args()
    events = max(1, options.events // LIMIT) * LIMIT
    pairs = []
    with opened(options.folder, events, []) as bench:
        for offset in range(0, events, LIMIT):  # the mock makes each page up once
            bench.mock.get("/events/bulk", offset=offset, limit=LIMIT)
        for number in range(options.rounds):
            order = (False, True) if number % 2 == 0 else (True, False)
            found = {partitioned: measure(bench, partitioned=partitioned) for partitioned in order}
            pairs.append((found[False], found[True]))
            print(f"round {number + 1}: {pairs[-1]}", file=sys.stderr, flush=True)
        print(f"A row of the ledger with its indexes: {ledger_bytes(bench):.0f} bytes\n")
    print("| figure | one table | 16 partitions | ratio (least–greatest) |\n|---|---:|---:|---:|")
    for name in (field.name for field in fields(Figures)):
        one, many = ([getattr(side, name) for side in sides] for sides in zip(*pairs, strict=True))
        ratios = [after / before for before, after in zip(one, many, strict=True)]
        print(
            f"| {name} | {statistics.median(one):,.2f} | {statistics.median(many):,.2f} | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) |"
        )


if __name__ == "__main__":
    main()
