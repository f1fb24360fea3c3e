"""`scrapy dashboard` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Self
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from crawling import PROJECT, environment

if TYPE_CHECKING:
    from databases import Database

_opener = build_opener(ProxyHandler({}))


class DashboardServer:
    """Serves *database* on a free port; `url` says where."""

    def __init__(self, database: Database | None, **settings: str) -> None:
        self._env = {**environment(None, database), "DASHBOARD_PORT": "0", **settings}
        self.url = ""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scrapy", "dashboard"],
            cwd=PROJECT,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        lines = []  # of a database that is away, before the address
        for line in self.process.stdout:
            lines.append(line)
            if "dashboard: http" in line:
                break
        else:
            self.process.kill()
            raise AssertionError(f"the dashboard didn't start: {lines}")
        self.url = line.split("dashboard: ")[1].split(" ")[0]
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        output, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, output
        assert "Traceback" not in output, output


def ask(url: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of an answer, also of an error."""
    try:
        with _opener.open(Request(url, headers=headers, method=method), timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


def first_events(url: str, until: str = "health") -> dict[str, str]:
    """The parts that a reader of server-sent events is sent first, by name."""
    parts: dict[str, str] = {}
    with _opener.open(url, timeout=30) as stream:
        for line in stream:
            text = line.decode().rstrip("\n")
            if text.startswith("event: "):
                name = text.removeprefix("event: ")
            elif text.startswith("data: "):
                parts[name] = text.removeprefix("data: ")
                if name == until:
                    break
    return parts
