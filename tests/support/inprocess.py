"""A mock API inside the test process: its own thread and loop, real HTTP on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from datasync_crawler.mockapi.options import Options
from datasync_crawler.mockapi.server import MockServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = {"X-API-Key": "demo-key"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class InProcess:
    """Talks to the mock that runs in another thread."""

    def __init__(self, server: MockServer) -> None:
        self.server = server
        self.port = int(server.address.split(":")[2].split("/")[0])

    def request(
        self, method: str, path: str, headers: dict[str, str], body: str | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())

    def get(
        self, path: str = "/events/bulk", headers: dict[str, str] = KEY, **query: object
    ) -> Answer:
        text = "&".join(f"{name}={value}" for name, value in query.items())
        return self.request("GET", f"/api/v1{path}?{text}", headers)

    def config(self, **changes: object) -> Answer:
        return self.request("POST", "/__mock__/config", {}, json.dumps(changes))

    def stats(self) -> Any:
        return self.request("GET", "/__mock__/stats", {}).json()


@contextlib.contextmanager
def running(options: Options) -> Iterator[InProcess]:
    server = MockServer(options)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(server.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield InProcess(server)
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@pytest.fixture
def mock() -> Iterator[Callable[..., InProcess]]:
    """Start mocks with the options given and the tests' plug-in; all end with the test."""
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> InProcess:
            given = {"events": 3000, "plugin": ("faults.mock",), **options}
            return stack.enter_context(running(Options(port=0, **given)))

        yield start
