"""Processes that share one crawl: pages fetched, time, what troubles cost, the database's part.

    python benchmarks/processes.py [--processes 2 4 8] [--troubles N] [--limit 20/5]
    python benchmarks/processes.py --cost [--programs /usr/lib/postgresql/15/bin]

Each crawl has a PostgreSQL of its own. With --troubles, so many things happen at random: SIGKILL,
SIGSTOP past the lease, `pg_ctl restart -m immediate`, no network past the lease for every second
process, one more process. The table must equal what was served. With --cost, the statements of
leases and quota stand beside all others, by pg_stat_statements, which Debian's PostgreSQL has and
the wheel's hasn't.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests"), str(PROJECT / "tests" / "support")]

from clusters import Cluster  # noqa: E402
from crawling import assert_equals_truth  # noqa: E402
from faults.truth import truths  # noqa: E402
from mockserver import MockProcess  # noqa: E402
from proxy import CuttingProxy  # noqa: E402
from several import TROUBLES, Crawls, Troubles, most_pages  # noqa: E402

if TYPE_CHECKING:
    from databases import Database

#: Beyond the 15 s of a lease.
PAST_THE_LEASE_S = 18.0
WORKERS = 4


def crawl(options: argparse.Namespace, number: int, seed: int) -> str:
    """One crawl by *number* processes; a line of the table."""
    limit = []
    if options.limit:
        requests, window_s = options.limit.split("/")
        limit = ["--rate-limit", requests, "--rate-window", window_s,
                 "--limiter", options.limiter]  # fmt: skip
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(Cluster())
        proxy = stack.enter_context(CuttingProxy("127.0.0.1", cluster.port))
        mock = stack.enter_context(
            MockProcess(
                "--events", str(options.events), "--latency-ms", str(options.latency_ms), *limit
            )
        )
        crawls = stack.enter_context(
            Crawls(mock, cluster.database, folder, "-s", f"BULK_PAGE_SIZE={options.page_size}",
                   "-s", f"WORKERS={WORKERS}", "-s", "DB_WRITERS=1")
        )  # fmt: skip
        chance = random.Random(seed)
        troubles = Troubles(
            crawls, cluster, proxy, chance, stopped_s=PAST_THE_LEASE_S, apart_s=PAST_THE_LEASE_S
        )
        for _ in range(number):
            troubles.start()
        if options.troubles:
            crawls.wait_until(lambda: int(mock.stats()["pages"]) > 20, "nothing is fetched")
        for at in range(options.troubles):
            troubles.happen(TROUBLES[at] if at < len(TROUBLES) else chance.choice(TROUBLES))
            time.sleep(chance.uniform(0.2, 2))
        deadline = time.monotonic() + 400
        statuses = [one.wait(max(1, deadline - time.monotonic())) for one in crawls.all]
        stats = mock.stats()
        assert_equals_truth(cluster.database, truths(1, 0, options.events))
        # A process that starts without a network ends, as it would without a server.
        failed = [
            one
            for one in crawls.all
            if one.returncode not in (0, -9)
            and "Closing spider (database_unreachable)" not in crawls.log(one)
        ]
        assert not failed, "".join(crawls.log(one)[-1500:] for one in failed)
        assert 0 in statuses
        most = most_pages(
            crawls, events=options.events, page_size=options.page_size, in_hand=2 * WORKERS + 8,
            victims=troubles.victims,
        )  # fmt: skip
        offered = crawls.chunks_offered()
        fenced = sum("was away for longer" in crawls.log(one) for one in crawls.all)
    times = [entry["time"] for entry in stats["entries"]]
    refused = stats["by_status"].get("429", 0)
    ideal = ""
    if limit:
        ideal = f"{(stats['by_status']['200'] - 1) // int(limit[1]) * float(limit[3]):.1f}"
    cells = (
        number, " ".join(f"{name} {count}" for name, count in troubles.happened.items()),
        f"{options.events / (options.page_size - 1):.0f}", stats["pages"], f"{most:.0f}", offered,
        fenced, refused, f"{times[-1] - times[0]:.1f}", ideal,
    )  # fmt: skip
    assert stats["pages"] <= most, cells
    return "| " + " | ".join(map(str, cells)) + " |"


def cost(options: argparse.Namespace) -> None:
    """Eight processes without and with a limit: the calls a second and the time of each statement
    of leases and quota, their share of the time of all, and the size of their tables.
    """
    settings = (
        "shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track_utility=on",
        "pg_stat_statements.max=1000",
    )  # fmt: skip
    for limit in ((), ("--rate-limit", "1000", "--rate-window", "10")):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            cluster = stack.enter_context(Cluster(programs=options.programs, settings=settings))
            mock = stack.enter_context(
                MockProcess("--events", str(options.events), "--latency-ms", "100", *limit)
            )
            crawls = stack.enter_context(
                Crawls(mock, cluster.database, folder, "-s", f"BULK_PAGE_SIZE={options.page_size}",
                       "-s", "WORKERS=4", "-s", "DB_WRITERS=1")
            )  # fmt: skip
            cluster.database.execute("CREATE EXTENSION pg_stat_statements")
            for _ in range(max(options.processes)):
                crawls.start()
            assert [one.wait(300) for one in crawls.all] == [0] * len(crawls.all)
            times = [entry["time"] for entry in mock.stats()["entries"]]
            show(cluster.database, times[-1] - times[0], " ".join(limit) or "no limit")


def show(database: Database, seconds: float, title: str) -> None:
    """The table of one crawl."""
    of_leases = "query !~ 'CREATE' AND (query ~ 'leases' OR query ~ 'take_permits')"
    ((all_ms,),) = database.execute(
        "SELECT sum(total_exec_time) FROM pg_stat_statements WHERE query !~ 'CREATE'"
    )
    rows = database.execute(
        "SELECT query, calls, total_exec_time"
        f" FROM pg_stat_statements WHERE {of_leases} ORDER BY total_exec_time DESC LIMIT 12"
    )
    print(f"\n{title}, {seconds:.1f} s, all statements {all_ms:,.0f} ms\n")
    print("| statement | calls/s | mean ms | of all time |\n|---|---:|---:|---:|")
    for query, calls, ms in rows:
        text = " ".join(line for line in query.splitlines() if not line.startswith("--"))[:80]
        print(
            f"| `{text}` | {calls / seconds:.1f} | {ms / calls:.3f} | {100 * ms / all_ms:.2f} % |"
        )
    ((calls, ms),) = database.execute(
        f"SELECT sum(calls)::float8, sum(total_exec_time) FROM pg_stat_statements WHERE {of_leases}"
    )
    print(
        f"| all of these | {calls / seconds:.1f} | {ms / calls:.3f} | {100 * ms / all_ms:.2f} % |"
    )
    for table in ("leases", "rate_limits"):
        size, updates, hot, dead = database.execute(
            "SELECT pg_total_relation_size(relid), n_tup_upd, n_tup_hot_upd, n_dead_tup"
            " FROM pg_stat_user_tables WHERE relname = %s", (table,)
        )[0]  # fmt: skip
        print(f"{table}: {size / 1024:.0f} kB, updates {updates}, of them HOT {hot}, dead {dead}")


def main() -> None:
    """Prints a line a crawl."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--page-size", type=int, default=100)
    parser.add_argument("--latency-ms", type=float, default=100)
    parser.add_argument("--troubles", type=int, default=0)
    parser.add_argument("--limit", help="of the mock, as 20/5: requests and seconds")
    parser.add_argument("--limiter", default="fixed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--programs", type=Path, help="folder of a PostgreSQL's programs")
    options = parser.parse_args()
    if options.cost:
        cost(options)
        return
    print(
        "| processes | troubles | pages needed | fetched | allowed | chunks | fenced | 429 | s "
        "| ideal s |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for number in options.processes:
        for seed in options.seeds:
            print(crawl(options, number, seed), flush=True)


if __name__ == "__main__":
    main()
