"""A tunnel through a hostile proxy: bounded, and closed with the attempt."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[3]
LONGEST_S = 20
#: More than the kernel holds for a client that doesn't read.
ENDLESS = 200_000_000

#: One download through the proxy: its error. The process goes on until its input ends.
DOWNLOAD = """
import asyncio, sys
from scrapy.utils.reactor import install_reactor
install_reactor("twisted.internet.asyncioreactor.AsyncioSelectorReactor")
from scrapy import Request
from scrapy.utils.test import get_crawler
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from datasync_crawler.handlers.transport import BoundedHandler

async def main(reactor):
    handler = BoundedHandler(get_crawler(settings_dict={"DOWNLOAD_VERIFY_CERTIFICATES": True}))
    meta = {"proxy": sys.argv[1], "download_timeout": 1}
    try:
        await handler.download_request(Request("https://api.example/", meta=meta))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    await asyncio.to_thread(sys.stdin.read)

react(lambda reactor: Deferred.fromFuture(asyncio.ensure_future(main(reactor))))
"""


class Proxy(ThreadingHTTPServer):
    """Answers CONNECT with *head*, then *piece* until the client hangs up."""

    daemon_threads = True

    def __init__(self, head: bytes, piece: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnelled)
        self.head, self.piece = head, piece
        self.sent = 0
        self.hung_up = threading.Event()


class _Tunnelled(BaseHTTPRequestHandler):
    server: Proxy

    def do_CONNECT(self) -> None:
        self.close_connection = True
        self.connection.settimeout(LONGEST_S)
        with suppress(ConnectionError):
            self.connection.sendall(self.server.head)
            while self.server.piece and self.server.sent < ENDLESS:
                self.connection.sendall(self.server.piece)
                self.server.sent += len(self.server.piece)
            while self.connection.recv(1000):
                pass
        self.server.hung_up.set()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""


@pytest.mark.parametrize(
    ("head", "piece", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: x\r\n" * 10_000, "answer is longer than 65,536 bytes"),
        (b"", b"x" * 60_000, "answer is longer than 65,536 bytes"),
        (b"HTTP/1.1 407 No\r\n\r\n", b"", "Could not open CONNECT tunnel"),
        (b"HTTP/1.1 200 OK\r\n", b"", "took longer than 1"),
        (b"", b"", "took longer than 1"),
    ],
    ids=["headers without end", "a line without end", "refused", "half an answer", "silent"],
)
def test_a_hostile_proxy_holds_no_memory_and_no_connection(
    head: bytes, piece: bytes, said: str
) -> None:
    """Its answer to CONNECT is cut at 64 kB, and its connection is closed when the attempt ends."""
    with Proxy(head, piece) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        through = f"http://127.0.0.1:{proxy.server_port}"
        with subprocess.Popen(
            [sys.executable, "-c", DOWNLOAD, through],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            was_hung_up = proxy.hung_up.wait(5)
            _, log = process.communicate("", timeout=LONGEST_S)
        proxy.shutdown()
    assert said in line, log
    assert was_hung_up
    assert proxy.sent < ENDLESS
    assert process.returncode == 0, log
    assert "Unhandled" not in log, log
