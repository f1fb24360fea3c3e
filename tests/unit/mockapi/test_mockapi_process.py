"""The mock as a process: its one line, its ends, its complaints, and the tests' helper."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from faults.truth import truth

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))
from mockserver import PROJECT, MockProcess


def run(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=PROJECT,
        env=env,
        stdin=subprocess.DEVNULL,
    )


def mockapi(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return run("-m", "datasync_crawler.mockapi", *arguments, env=env)


def test_helper_serves_and_ends() -> None:
    """The helper gives an address that answers, changes the mock while it runs, ends with 0."""
    mock = MockProcess("--events", "2000").start()
    try:
        assert mock.url == f"http://127.0.0.1:{mock.port}/api/v1"
        status, body = mock.get("/events/bulk", limit=1)
        assert status == 200
        assert truth(1, 0).id.encode() in body
        assert mock.get("/events/bulk", key="wrong")[0] == 401
        mock.config(grow=5)
        assert mock.stats()["total"] == 2005
        with pytest.raises(ValueError, match="can't be changed"):
            mock.config(seed=5)
    finally:
        assert mock.stop() == 0


def test_helper_says_why_it_does_not_start() -> None:
    """A mock that ends before it listens is an error, not a wait."""
    with pytest.raises(RuntimeError, match="status 2"):
        MockProcess("--fault", "nope").start()


def test_an_unknown_option_is_refused() -> None:
    """Scrapy passes over what it doesn't know; a misspelt --rate-limit mustn't mean none."""
    done = run("-m", "scrapy", "mockapi", "--port", "0", "--ratelimit", "10")
    assert done.returncode == 2
    assert (
        done.stderr == "datasync-crawler: scrapy mockapi doesn't know '--ratelimit': see --help.\n"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_at_once(number: signal.Signals) -> None:
    """A signal ends it with status 0, though a response hangs."""
    with (
        MockProcess("--fault", "hang:start=1,mid=true") as mock,
        socket.create_connection(("127.0.0.1", mock.port), timeout=30) as client,
    ):
        client.sendall(
            b"GET /api/v1/events/bulk HTTP/1.1\r\nHost: x\r\nX-API-Key: demo-key\r\n\r\n"
        )
        assert client.recv(100)
        assert mock.process is not None
        mock.process.send_signal(number)
        assert mock.process.wait(10) == 0


def test_end_of_standard_input_ends_it() -> None:
    """With --stop-with-stdin a mock without a parent ends; it prints one line."""
    done = mockapi("--port", "0", "--stop-with-stdin")
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("mock API listening on http://127.0.0.1:")
    assert done.stderr == ""


def test_a_busy_port_is_said() -> None:
    """A busy port: one sentence with the remedy, status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = mockapi("--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "--port" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (("--events", "-1"), 2, "--events must be at least 0"),
        (("--rate-window", "0"), 2, "--rate-window"),
        (("--port", "70000"), 2, "--port"),
        (("--fault", "nope"), 2, "--list-faults"),
        (("--replay", "no-such-file.json"), 1, "no-such-file.json"),
        (("--replay", "pyproject.toml"), 2, "holds no recorded response"),
        (("--plugin", "no_such_module"), 2, "no_such_module"),
        (("--plugin", "no_such_module", "--list-faults"), 2, "no_such_module"),
    ],
)
def test_wrong_options_are_said(arguments: tuple[str, ...], status: int, word: str) -> None:
    """A wrong option: one sentence on stderr, no traceback, a status of its own."""
    done = mockapi(*arguments)
    assert done.returncode == status
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_faults_are_listed() -> None:
    """--list-faults names them, those of plug-ins too, and ends."""
    done = mockapi("--list-faults")
    assert done.returncode == 0
    assert "short-page" in done.stdout
    assert "bad-events" not in done.stdout
    env = {**os.environ, "PYTHONPATH": str(PROJECT / "tests")}
    done = mockapi("--plugin", "faults.mock", "--list-faults", env=env)
    assert "short-page" in done.stdout
    assert "bad-events:kind=no-id" in done.stdout


def test_scrapy_command_is_light_and_the_same() -> None:
    """`scrapy mockapi` takes the same options, and importing it imports none of the mock."""
    probe = (
        "import sys; import datasync_crawler.commands.mockapi;"
        "print([n for n in sys.modules if n.startswith('datasync_crawler.mockapi')])"
    )
    assert run("-c", probe).stdout.strip() == "[]"
    done = run("-m", "scrapy", "mockapi", "--port", "0", "--stop-with-stdin")
    assert done.returncode == 0
    assert done.stdout.startswith("mock API listening on ")
    assert run("-m", "scrapy", "mockapi", "--events", "-1").returncode == 2
