"""The mock API on a free port, for tests.

    with MockServer("--events", "20000", "--fault", "short-page") as mock:
        …  # mock.url, mock.stats(), mock.config(events=30000)

`MockServer` runs in a thread of the test process, which saves a second a test. `MockProcess` is a
process of its own, for benchmarks and where signals matter; it ends when the test process does,
however that ends: it watches its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from datasync_crawler.mockapi import options as mock_options
from datasync_crawler.mockapi.server import MockServer as Server

if TYPE_CHECKING:
    from collections.abc import Coroutine

PROJECT = Path(__file__).resolve().parents[2]
API_KEY = "demo-key"
_opener = build_opener(ProxyHandler({}))


class _Mock:
    """A mock API; `url` is its API_BASE_URL, `port` its port, `key` the key it takes."""

    def __init__(self, *options: str, port: int = 0, key: str = API_KEY) -> None:
        self.options = options
        self.key = key
        self.port = port
        self.url = ""

    def start(self) -> Self:
        """Start it, and wait until it listens."""
        raise NotImplementedError

    def stop(self) -> int:
        """End it, and give its exit status."""
        raise NotImplementedError

    def _arguments(self) -> list[str]:
        given = ["--plugin", "faults.mock", "--port", str(self.port), "--api-key", self.key]
        return [*given, *self.options]

    def _listens(self, url: str) -> Self:
        self.url = url
        self.port = urlsplit(url).port or 0
        return self

    def stats(self) -> dict[str, Any]:
        """What it was asked so far: see `faults/journal.py` and `faults/control.py`."""
        return self._control("stats", None)

    def config(self, **changes: object) -> None:
        """Change options while it runs (names as on the command line, with underscores).

        Also `grow=n`, `insert=[offset, n]`, `delete=[offset, n]`.
        """
        self._control("config", json.dumps(changes).encode())

    def get(self, path: str, key: str | None = None, **query: object) -> tuple[int, bytes]:
        """GET below the API's base URL with the right key: status and body, also of an error."""
        text = "&".join(f"{name}={value}" for name, value in query.items())
        request = Request(f"{self.url}{path}?{text}", headers={"X-API-Key": key or self.key})
        try:
            with _opener.open(request, timeout=30) as response:
                return response.status, response.read()
        except HTTPError as error:
            with error:
                return error.code, error.read()

    def _control(self, name: str, body: bytes | None) -> dict[str, Any]:
        root = f"http://127.0.0.1:{self.port}/__mock__/{name}"
        try:
            with _opener.open(Request(root, data=body), timeout=30) as response:
                answer: dict[str, Any] = json.load(response)
        except HTTPError as error:
            with error:
                raise ValueError(json.load(error)["error"]) from error
        return answer

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


class MockServer(_Mock):
    """A mock API in a thread of this process."""

    def start(self) -> Self:
        parser = argparse.ArgumentParser(prog="mockapi", exit_on_error=False)
        mock_options.add_arguments(parser)
        chosen = mock_options.from_arguments(parser.parse_args(self._arguments()))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._server = Server(chosen)
            self._run(self._server.start())
        except BaseException:
            self._end_loop()
            raise
        return self._listens(self._server.address)

    def stop(self) -> int:
        self._run(self._server.stop())
        self._end_loop()
        return 0

    def _run(self, job: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(job, self._loop).result(30)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


class MockProcess(_Mock):
    """A mock API in a process of its own."""

    process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        command = [sys.executable, "-m", "datasync_crawler.mockapi", "--stop-with-stdin"]
        command += self._arguments()
        search = (str(PROJECT), str(PROJECT / "tests"), os.environ.get("PYTHONPATH"))
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "listening on " not in line:
            status = self.process.wait()
            self.stop()
            raise RuntimeError(f"The mock API ended with status {status} before it listened.")
        return self._listens(line.split("listening on ")[1].strip())

    def stop(self) -> int:
        process = self.process
        assert process is not None
        process.terminate()
        assert process.stdin is not None
        process.stdin.close()
        status = process.wait(timeout=30)
        assert process.stdout is not None
        process.stdout.close()
        return status
