"""API servers that people run, from npm and PyPI, with events of ours.

They are installed into .datasync/servers when they are first used. As a program, for trying out
what docs/other-apis.md says: `python tests/support/foreign.py KIND PORT` serves until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parents[1] / "servers"
HOME = HERE.parents[1] / ".datasync" / "servers"
PYPI = (
    "django==5.2.19", "djangorestframework==3.18.3", "fastapi==0.165.0",
    "fastapi-pagination==0.16.1", "sqlakeyset==2.0.1787969905", "sqlalchemy==2.1.9",
    "uvicorn==0.54.0", "datasette==0.65.5",
)  # fmt: skip
NPM = {
    "json-server-0.17": {"json-server": "0.17.4"},
    "json-server-1": {"json-server": "1.0.0-beta.15"},
    "feathers": {"@feathersjs/feathers": "5.0.50", "@feathersjs/koa": "5.0.50",
                 "@feathersjs/memory": "5.0.50"},
}  # fmt: skip
KINDS = ("django", "fastapi", "datasette", *NPM)
EVENTS = 1230
#: A server that takes longer to listen has failed, in seconds.
START_S = 60.0


class Missing(Exception):
    """What a server runs on isn't there and can't be installed."""


def events() -> list[dict[str, Any]]:
    """The events that each server has, oldest first. Every third has the time of another one."""
    first = datetime(2026, 2, 1, tzinfo=UTC)
    return [
        {"id": number, "created_at": (first + timedelta(minutes=number // 3 * 3)).isoformat(),
         "type": ("click", "page_view")[number % 2], "user": number % 7,
         "properties": {"page": f"/{number % 11}"}}
        for number in range(1, EVENTS + 1)
    ]  # fmt: skip


@contextlib.contextmanager
def serving(kind: str, port: int = 0) -> Iterator[str]:
    """The address of a server of that kind. Raises Missing when it can't be installed."""
    port = port or free_port()
    with _one_at_a_time():
        _install(kind)
    with tempfile.TemporaryDirectory() as folder:
        command = _command(kind, Path(folder), port)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                _wait_for(port, process)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def _command(kind: str, folder: Path, port: int) -> list[str]:
    """The command that serves our events on *port*."""
    file = folder / "events.json"
    file.write_text(json.dumps(events()))
    bin_dir = HOME / "venv" / "bin"
    if kind == "datasette":
        database = folder / "log.db"
        _fill(database)
        return [str(bin_dir / "datasette"), "serve", str(database), "--port", str(port)]
    if kind == "feathers":
        program = shutil.copy(HERE / "feathers.mjs", HOME / kind)
        return ["node", str(program), str(file), str(port)]
    if kind in NPM:
        file.write_text(json.dumps({"events": [{**one, "id": str(one["id"])} for one in events()]}))
        program = HOME / kind / "node_modules" / ".bin" / "json-server"
        return [str(program), "--host", "127.0.0.1", "--port", str(port), str(file)]
    return [str(bin_dir / "python"), str(HERE / f"{kind}_events.py"), str(file), str(port)]


def _fill(database: Path) -> None:
    """Our events as a table of SQLite."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "CREATE TABLE events (id integer PRIMARY KEY, created_at text, type text, user integer,"
            " properties text)"
        )
        connection.executemany(
            "INSERT INTO events VALUES (:id, :created_at, :type, :user, :properties)",
            [{**one, "properties": json.dumps(one["properties"])} for one in events()],
        )


def _install(kind: str) -> None:
    """Packages of *kind*, unless they are there. Raises Missing."""
    folder, wanted = (
        (HOME / kind, json.dumps(NPM[kind])) if kind in NPM else (HOME / "venv", str(PYPI))
    )
    done = folder / "installed"
    if done.exists() and done.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    if kind in NPM:
        if not shutil.which("npm") or not shutil.which("node"):
            raise Missing("npm isn't installed")
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(json.dumps({"private": True}))
        packages = [f"{name}@{version}" for name, version in NPM[kind].items()]
        command = ["npm", "install", "--no-audit", "--no-fund", "--fetch-retries=1", *packages]
    else:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        command = [str(folder / "bin" / "pip"), "install", "-q", "--retries=1", *PYPI]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise Missing(f"{command[0]} can't install {kind}: {result.stderr.strip()[-200:]}")
    done.write_text(wanted)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Processes that would install into the same folder wait for each other."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the server doesn't listen")


if __name__ == "__main__":
    kind, port = sys.argv[1], int(sys.argv[2])
    with serving(kind, port) as address, contextlib.suppress(KeyboardInterrupt):
        print(f"{kind} listens on {address}", flush=True)
        while True:
            time.sleep(3600)
