"""Answers that were made to fill the memory: the crawl's process stays below 512 MB."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import brotli
import pytest
from crawling import Crawled, crawl, start_crawl
from mockserver import API_KEY, MockServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from databases import Database

MOST_BYTES = 512 * 1024 * 1024
PAGE = 500
PAGES = 8
#: Goes on until the client has had enough, or this much has been sent.
ENDLESS = 1_500_000_000


def packed(before: bytes, piece: bytes, times: int, after: bytes) -> bytes:
    """A thousand pieces at a time, so that the bomb doesn't go off in the test itself."""
    packer = brotli.Compressor(quality=3)
    parts = [packer.process(before)]
    parts += [packer.process(piece * 1000) for _ in range(times // 1000)]
    return b"".join([*parts, packer.process(after), packer.finish()])


def page(first: int, size: int = 0) -> bytes:
    """A regular page; *size* are bytes that each event has besides."""
    data = [{"id": f"e{first + n}", "timestamp": 1769541612, "properties": {"x": "x" * size}}
            for n in range(min(PAGE, PAGE * PAGES - first))]  # fmt: skip
    return json.dumps({"data": data, "meta": {"total": PAGE * PAGES}}).encode()


def bodies(attack: str) -> tuple[str, Callable[[int], bytes]]:
    """Content-Encoding and body of all pages but the first."""
    if attack == "brotli-page":
        return "br", lambda first: brotli.compress(page(first, 20_000), quality=3)
    if attack == "plain-page":
        return "", lambda first: page(first, 80_000)
    before, piece, after = {
        "brotli-bomb": (b"", b" " * 1000, b""),
        "long-page": (b'{"data":[', b"{},", b"{}]}"),
        "long-meta": (b'{"data":[],"meta":[', b"[],", b"1]}"),
        "depth": (b'{"data":[{"id":"a","properties":', b"[", b""),
    }[attack.removesuffix("-packed")]
    times = (500 if "bomb" in attack else 60) * 1_000_000 // len(piece)
    if attack.startswith("brotli") or attack.endswith("-packed"):
        body = packed(before, piece, times, after)
        return "br", lambda _: body
    body = before + piece * times + after
    return "", lambda _: body


BODIES = ("brotli-bomb", "brotli-page", "plain-page", "long-page", "long-page-packed",
          "long-meta-packed", "depth-packed")  # fmt: skip
HEAD = b"HTTP/1.1 200 OK\r\n"
#: What is sent first, and then over and over, before there is a body or in it.
STREAMS = {
    "headers": (HEAD, b"X-Header: " + b"x" * 1000 + b"\r\n"),
    "small-headers": (HEAD, b"a:\r\n"),
    "folded-header": (HEAD + b"A: ", b" " + b"x" * 1000 + b"\r\n"),
    "interim": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "one-line": (HEAD, b"x"),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"fff0\r\n" + b"x" * 0xFFF0 + b"\r\n"),
}


class Hostile(ThreadingHTTPServer):
    """A regular first page, then an attack."""

    daemon_threads = True
    request_queue_size = 200

    def __init__(self, attack: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.attack = attack
        self.made = bodies(attack) if attack in BODIES else None

    def handle_error(self, request: object, client_address: object) -> None:
        """Quiet: clients hang up."""


class _Answers(BaseHTTPRequestHandler):
    server: Hostile
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        first = int((re.search(r"offset=(\d+)", self.path) or [0, 0])[1])
        if not first:
            self.answer("", page(0))
        elif self.server.made:
            encoding, made = self.server.made
            self.answer(encoding, made(first))
        else:
            self.stream(*STREAMS[self.server.attack])

    def answer(self, encoding: str, body: bytes) -> None:
        self.send_response(200)
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, head: bytes, piece: bytes) -> None:
        self.close_connection = True
        self.wfile.write(head)
        pieces = piece * max(65_536 // len(piece), 1)
        for _ in range(ENDLESS // len(pieces)):
            self.wfile.write(pieces)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""


@pytest.fixture
def hostile(request: pytest.FixtureRequest) -> Iterator[Hostile]:
    with Hostile(request.param) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def measured(hostile: Hostile, database: Database, *args: str) -> tuple[Crawled, int]:
    """A crawl, and the most memory that its process had, in bytes."""
    settings = ["-s", f"BULK_PAGE_SIZE={PAGE}", "-s", "WORKERS=8", "-s", "RETRY_TIMES=0",
                "-s", "RETRY_BACKOFF_BASE=0.01", "-s", "PAGINATION=offset", *args]  # fmt: skip
    env = {"API_BASE_URL": f"http://127.0.0.1:{hostile.server_port}", "API_KEY": API_KEY}
    with start_crawl(None, database, *settings, env=env) as process:
        peaks = [0]
        over = threading.Event()
        watch = threading.Thread(target=watched, args=(process.pid, peaks, over))
        watch.start()
        log, _ = process.communicate(timeout=300)
        over.set()
        watch.join()
    return Crawled(process.returncode, log), peaks[-1]


def watched(pid: int, peaks: list[int], over: threading.Event) -> None:
    """The kernel's own peak; getrusage counts the tests' process, from which it was forked."""
    while not over.wait(0.05):
        with contextlib.suppress(OSError):
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            peaks += [int(found[1]) * 1024] if found else []


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("hostile", [*BODIES, *STREAMS], indirect=True)
def test_no_answer_takes_more_than_half_a_gigabyte(hostile: Hostile, database: Database) -> None:
    """64 such answers at once: the process stays small, and ends by itself with the truth."""
    done, peak = measured(hostile, database)
    print(f"{hostile.attack}: {peak / 2**20:.0f} MB, exit {done.status}")
    assert peak < MOST_BYTES, done.log[-5000:]
    complete = hostile.attack in {"brotli-page", "plain-page"}  # large, but pages
    assert done.status == (0 if complete else 1), done.log[-5000:]
    stored = PAGE * (PAGES if complete else 1)
    assert database.value("SELECT count(*) FROM events") == stored


def test_the_last_resort_ends_the_crawl_cleanly(database: Database) -> None:
    """Beyond MEMUSAGE_LIMIT_MB: a sentence, exit 1, and the next run completes what is stored."""
    with MockServer("--events", "20000", "--latency-ms", "200") as mock:
        few = ("-s", "BULK_PAGE_SIZE=100", "-s", "MEMUSAGE_CHECK_INTERVAL_SECONDS=0.2")
        done = crawl(mock, database, *few, "-s", "MEMUSAGE_LIMIT_MB=20")
        assert done.status == 1, done.log
        assert "MB of memory, more than MEMUSAGE_LIMIT_MB (20)" in done.log
        assert "Traceback" not in done.log, done.log
        assert crawl(mock, database).status == 0
    assert database.value("SELECT count(*) FROM events") == 20000
