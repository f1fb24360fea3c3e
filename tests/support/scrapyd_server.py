"""A real Scrapyd for tests: a subprocess on a free port of 127.0.0.1, hardened as deploy/ says."""

from __future__ import annotations

import base64
import configparser
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROJECT = Path(__file__).resolve().parents[2]
PASSWORD = "a password of scrapyd's own"
DEADLINE_S = 60.0
_opener = build_opener(ProxyHandler({}))


def until(condition: Callable[[], Any], what: Callable[[], str]) -> Any:
    """Waits for *condition* and gives its value; fails with *what* after a minute."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)
    return value


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Scrapyd:
    """Runs in *folder* with deploy/scrapyd.conf, but for the port and a quicker poll."""

    def __init__(self, folder: Path, port: int, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}/"
        config = configparser.ConfigParser()
        config.read(PROJECT / "deploy" / "scrapyd.conf")
        config["scrapyd"].update(http_port=str(port), poll_interval="0.2")
        with (folder / "scrapyd.conf").open("w") as file:
            config.write(file)
        self.environment = {
            **environment,
            "SCRAPYD_PASSWORD": PASSWORD,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                ["sh", str(PROJECT / "deploy" / "scrapyd.sh")],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        until(self._is_up, self.output)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output()
        try:
            return self.get("daemonstatus.json")["status"] == "ok"
        except OSError:
            return False

    def output(self) -> str:
        """What Scrapyd itself has logged."""
        return (self.folder / "output").read_text()

    def get(self, service: str, *, password: str = PASSWORD, **query: str) -> dict[str, Any]:
        return self._call(Request(f"{self.url}{service}?{urlencode(query)}"), password)

    def post(self, service: str, *fields: tuple[str, str]) -> dict[str, Any]:
        return self._call(Request(f"{self.url}{service}", urlencode(fields).encode()), PASSWORD)

    def _call(self, request: Request, password: str) -> dict[str, Any]:
        login = base64.b64encode(f"datasync:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        with _opener.open(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def refuses(self, password: str) -> int:
        """The HTTP status that a wrong password meets."""
        try:
            self.get("daemonstatus.json", password=password)
        except HTTPError as error:
            with error:
                return error.code
        return 200

    def schedule(self, *settings: str, **arguments: str) -> str:
        """Schedules the spider; gives the job's id."""
        fields = [("project", "datasync_crawler"), ("spider", "events"), *arguments.items()]
        fields += [("setting", setting) for setting in settings]
        answer = self.post("schedule.json", *fields)
        assert answer["status"] == "ok", answer
        return str(answer["jobid"])

    def state(self, job: str) -> str:
        """pending, running or finished."""
        jobs = self.get("listjobs.json", project="datasync_crawler")
        return next(state for state in ("pending", "running", "finished")
                    if any(each["id"] == job for each in jobs[state]))  # fmt: skip

    def log(self, job: str) -> str:
        """The job's log file."""
        file = self.folder / "logs" / "datasync_crawler" / "events" / f"{job}.log"
        return file.read_text() if file.exists() else ""

    def finish(self, job: str) -> str:
        """Waits until the job has ended; gives its log."""
        until(lambda: self.state(job) == "finished", lambda: self.log(job) + self.output())
        return self.log(job)


def copy_of_the_project(target: Path) -> Path:
    """What a clone holds: scrapyd-deploy leaves `build` and more behind."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True).stdout
    for name in names.decode().split("\0"):
        if name and (PROJECT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, target / name)
    return target


def deploy(project: Path, *arguments: str) -> str:
    """Runs scrapyd-deploy in *project*; gives what it printed."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("scrapyd-deploy")), *arguments],
        cwd=project,
        env={**os.environ, "SCRAPYD_PASSWORD": PASSWORD},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
