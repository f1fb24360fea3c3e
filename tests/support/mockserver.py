"""The mock API as a subprocess on a free port, for tests.

    with MockServer("--events", "20000", "--fault", "short-page") as mock:
        …  # mock.url, mock.stats(), mock.config(events=30000)

The mock ends when the test process does, however that ends: it watches its standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

PROJECT = Path(__file__).resolve().parents[2]
API_KEY = "demo-key"
_opener = build_opener(ProxyHandler({}))


class MockServer:
    """A running mock API; `url` is its API_BASE_URL, `port` its port, `key` the key it takes."""

    def __init__(self, *options: str, port: int = 0, key: str = API_KEY) -> None:
        self.options = options
        self.key = key
        self.port = port
        self.url = ""
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        """Start it and wait for the line that says where it listens."""
        command = [sys.executable, "-m", "datasync_crawler.mockapi", "--stop-with-stdin"]
        command += ["--plugin", "faults.mock"]
        command += ["--port", str(self.port), "--api-key", self.key, *self.options]
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
        self.url = line.split("listening on ")[1].strip()
        self.port = urlsplit(self.url).port or 0
        return self

    def stop(self) -> int:
        """End it, and give its exit status."""
        process = self.process
        assert process is not None
        process.terminate()
        assert process.stdin is not None
        process.stdin.close()
        status = process.wait(timeout=30)
        assert process.stdout is not None
        process.stdout.close()
        return status

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
