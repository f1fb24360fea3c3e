"""How fast the mock API serves pages of 5,000 events: warm from memory, and each page for once.

    python benchmarks/mockapi_rate.py

The client only reads and throws away; what it measures is the mock and the loopback.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from mockserver import MockProcess

LIMIT = 5000
BUFFER_BYTES = 4 << 20


def fetch(mock: MockProcess, offsets: range, limit: int = LIMIT) -> None:
    """Read the pages at these offsets over one connection."""
    buffer = bytearray(BUFFER_BYTES)
    with socket.create_connection(("127.0.0.1", mock.port)) as client:
        for offset in offsets:
            client.sendall(
                f"GET /api/v1/events/bulk?offset={offset}&limit={limit} HTTP/1.1\r\n"
                f"Host: mock\r\nX-API-Key: {mock.key}\r\n\r\n".encode()
            )
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(65536)
            head, _, rest = head.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
            left = int(length) - len(rest)
            while left > 0:
                left -= client.recv_into(buffer, min(left, BUFFER_BYTES))


def rate(
    mock: MockProcess, events: int, rounds: int, connections: int, limit: int = LIMIT
) -> float:
    """Give pages a second for `rounds` times the whole set."""
    step = limit * connections
    threads = [
        threading.Thread(
            target=lambda first=number * limit: [
                fetch(mock, range(first, events, step), limit) for _ in range(rounds)
            ]
        )
        for number in range(connections)
    ]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rounds * (events / limit) / (time.perf_counter() - begun)


def used(pid: int) -> tuple[float, float]:
    """Give CPU seconds and resident megabytes of a process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Print the rates."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    with MockProcess("--events", "100000") as mock:
        rate(mock, 100_000, 1, 1)
        for connections in (1, 4):
            pages = rate(mock, 100_000, 30, connections)
            print(f"from memory, {connections} connection(s): {pages:6.0f} pages/s")
    with MockProcess("--events", "3000000") as mock:
        pages = rate(mock, 3_000_000, 1, 1)
        assert mock.process is not None
        cpu_s, memory_mb = used(mock.process.pid)
        print(
            f"each page once, 1 connection:  {pages:6.0f} pages/s = {pages * LIMIT:,.0f} events/s"
        )
        print(f"the mock took {cpu_s:.1f} s of CPU for it and holds {memory_mb:.0f} MB")


if __name__ == "__main__":
    main()
