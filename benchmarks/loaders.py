"""The baselines that the crawl is held against, each in a process of its own: see throughput.py.

    python benchmarks/loaders.py copy|merge|asyncio < JOB

JOB (not an argument: it holds a password) is a JSON object: `dsn` (an empty database with the
crawler's tables), `rows` (a file of COPY lines), `chunks` (bytes of each 5,000 of them), and for
`asyncio` `url`, `key`, `events`, `limit`.
Prints the seconds from the first connection to the last commit.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg2

from datasync_crawler.events.copyrows import COLUMNS

COPY_BUFFER_BYTES = 1 << 20
IN_FLIGHT = 8
WRITERS = 2
BATCH_ROWS = 5_000
NAMES = ", ".join(f'"{name}"' for name in COLUMNS)


def raw_copy(job: dict[str, Any]) -> None:
    """The floor: rows prepared beforehand, one connection, one COPY, one commit."""
    with psycopg2.connect(job["dsn"]) as connection, connection.cursor() as cursor:
        with Path(job["rows"]).open("rb") as rows:
            cursor.copy_expert(f"COPY events ({NAMES}) FROM STDIN", rows, COPY_BUFFER_BYTES)
        connection.commit()


def merge(job: dict[str, Any]) -> None:
    """Rows prepared beforehand, through a temporary table, a commit every 5,000."""
    with psycopg2.connect(job["dsn"]) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMP TABLE incoming (LIKE events INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
        )
        with Path(job["rows"]).open("rb") as rows:
            for size in job["chunks"]:
                part = io.BytesIO(rows.read(size))
                cursor.copy_expert(f"COPY incoming ({NAMES}) FROM STDIN", part, COPY_BUFFER_BYTES)
                cursor.execute("INSERT INTO events SELECT * FROM incoming ON CONFLICT DO NOTHING")
                connection.commit()


# --- what a good engineer writes in an afternoon --------------------------------------------------


def instant(value: object) -> str:
    """ISO 8601 with or without T, epoch seconds or milliseconds."""
    if isinstance(value, int):
        moment = datetime.fromtimestamp(value / 1000 if value > 10**11 else value, UTC)
    else:
        moment = datetime.fromisoformat(str(value))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.isoformat()


def escape(value: object) -> str:
    """A value in COPY's text format."""
    if value is None:
        return r"\N"
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def line(event: dict[str, Any]) -> str:
    """An event's row, without what the crawl keeps beside it."""
    return "\t".join(
        (
            event["id"],
            escape(event.get("sessionId")),
            escape(event.get("userId")),
            escape(event.get("type")),
            escape(event.get("name")),
            escape(event.get("properties")),
            instant(event["timestamp"]),
            escape(event.get("session")),
        )
    )


def copy_events(connection: Any, events: list[dict[str, Any]]) -> None:
    """One COPY, one commit."""
    rows = "".join([line(event) + "\n" for event in events])
    names = NAMES.removesuffix(', "extra"')
    with connection, connection.cursor() as cursor:
        cursor.copy_expert(
            f"COPY events ({names}) FROM STDIN", io.BytesIO(rows.encode()), COPY_BUFFER_BYTES
        )


async def asyncio_loader(job: dict[str, Any]) -> None:
    """Aiohttp, msgspec, COPY on two threads. No ledger, no retries, no proof."""
    import aiohttp  # noqa: PLC0415  # the other loaders need none

    offsets = iter(range(0, job["events"], job["limit"]))
    decode = msgspec.json.Decoder().decode
    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(WRITERS)
    connections: asyncio.Queue[Any] = asyncio.Queue()
    for _ in range(WRITERS):
        connections.put_nowait(psycopg2.connect(job["dsn"]))
    waiting: list[dict[str, Any]] = []

    async def write(rows: list[dict[str, Any]]) -> None:
        connection = await connections.get()
        await loop.run_in_executor(threads, copy_events, connection, rows)
        connections.put_nowait(connection)

    async def fetch() -> None:
        for offset in offsets:
            url = f"{job['url']}/events/bulk?offset={offset}&limit={job['limit']}"
            async with session.get(url) as response:
                response.raise_for_status()
                waiting.extend(decode(await response.read())["data"])
            if len(waiting) >= BATCH_ROWS:
                rows = waiting[:]
                waiting.clear()
                await write(rows)

    headers = {"X-API-Key": job["key"], "Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(headers=headers) as session:
        await asyncio.gather(*(fetch() for _ in range(IN_FLIGHT)))
    await write(waiting)
    while not connections.empty():
        connections.get_nowait().close()


def main() -> None:
    """Runs one loader."""
    name, job = sys.argv[1], json.load(sys.stdin)
    began = time.perf_counter()
    if name == "asyncio":
        asyncio.run(asyncio_loader(job))
    else:
        {"copy": raw_copy, "merge": merge}[name](job)
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
