"""Whether compressed answers pay, by the rate of the link: whole crawls through a throttled link.

    python benchmarks/compression.py [--rounds 3] [--events 100000]

The mock compresses at level 1 on the same machine, which a real API doesn't cost us: the row
without a limit shows that. The link is a TCP proxy that lets so many bits a second through towards
the crawler, all connections together. Printed: seconds of a crawl (median), plain and compressed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import threading
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

from real_crawl import MockProcess, crawl, database_server, own_database

#: Mbit/s; None: no limit, and no proxy.
LINKS = (10, 100, 1000, None)
#: So much is let through at once: 20 ms at 10 Mbit/s.
CHUNK_BYTES = 1 << 15


class Link:
    """A proxy to *port* on this machine, on a thread of its own, while the process lives."""

    def __init__(self, port: int, mbit_s: float) -> None:
        self._upstream = port
        self._bytes_s = mbit_s * 1e6 / 8
        self._free_at = 0.0
        self.port = 0
        started = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True).start()
        started.wait()

    async def _serve(self, started: threading.Event) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await server.serve_forever()

    async def _connected(self, asked: asyncio.StreamReader, down: asyncio.StreamWriter) -> None:
        said, up = await asyncio.open_connection("127.0.0.1", self._upstream)
        await asyncio.gather(self._pump(asked, up), self._pump(said, down, slow=True))

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, slow: bool = False
    ) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                if slow:
                    now = time.monotonic()
                    self._free_at = max(now, self._free_at) + len(data) / self._bytes_s
                    await asyncio.sleep(self._free_at - now)
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()


def main() -> int:
    """Prints a line for each link."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=100_000)
    options = parser.parse_args()
    memory = str(options.events * 400 // 1_000_000 + 64)
    print("link         plain, s  gzip, s  plain / gzip")
    with (
        database_server() as server,
        MockProcess("--events", str(options.events), "--cache-mb", memory, "--gzip") as mock,
    ):
        for mbit_s in LINKS:
            url = mock.url
            if mbit_s is not None:
                port = Link(mock.port, mbit_s).port
                url = urlsplit(url)._replace(netloc=f"127.0.0.1:{port}").geturl()
            api = SimpleNamespace(url=url, key=mock.key)
            seconds: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(options.rounds + (mbit_s is LINKS[0])):  # the first warms the mock
                for gzip, taken in seconds.items():
                    with own_database(server) as database:
                        done = crawl(api, database, f"-sCOMPRESSION_ENABLED={gzip}")
                        if done.status != 0:
                            raise RuntimeError(done.log)
                        lasted = database.value(
                            "SELECT extract(epoch FROM finished_at - started_at)::float8"
                            " FROM crawl_runs"
                        )
                        taken.append(lasted)
            plain, packed = (
                statistics.median(taken[-options.rounds :]) for taken in seconds.values()
            )
            name = "no limit" if mbit_s is None else f"{mbit_s:,} Mbit/s"
            print(f"{name:12s} {plain:8.2f} {packed:8.2f} {plain / packed:9.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
