"""``sh run-ingestion.sh`` as a stranger runs it, in a copy of the project with a space in its path.

Each test has ports and a database of its own, so a demonstration on this machine is not disturbed.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psycopg2
import pytest

PROJECT = Path(__file__).parents[2]
DEADLINE_S = 120.0
OURS = re.compile(r"API_|DB_|DATABASE_|DATA_DIR|DATASYNC_|WORKERS|BULK_|PAGINATION")
MANY = 3_000_000  # enough to be in the middle when the first page is committed


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stranger:
    """A copy of the project, and what runs in it."""

    def __init__(self, folder):
        self.folder = folder
        self.marker = uuid.uuid4().hex
        self.db_port, self.mock_port = free_port(), free_port()
        self.env = {name: value for name, value in os.environ.items() if not OURS.match(name)} | {
            "DATASYNC_VENV": sys.prefix,
            "DB_PORT": str(self.db_port),
            "STRANGER": self.marker,
        }

    def start(self, *arguments, port=True):
        own = ["--mock-port", str(self.mock_port)] if port else []
        with (self.folder.parent / "output").open("w") as output:
            return subprocess.Popen(
                ["sh", str(self.folder / "run-ingestion.sh"), *arguments, *own],
                cwd="/",
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def run(self, *arguments, port=True):
        status = self.start(*arguments, port=port).wait(DEADLINE_S)
        return status, self.output()

    def output(self):
        return (self.folder.parent / "output").read_text()

    def home(self):
        local = self.folder / ".datasync" / "postgres"
        location = local / "location"
        return Path(location.read_text().strip()) if location.exists() else local

    def processes(self):
        """Everything that this stranger started and that still runs, the server included."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes()
                marked = self.marker.encode() in (process / "environ").read_bytes()
                if command and (marked or bytes(self.home()) in command):
                    found.append(command.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def runs_with_pages(self):
        """Runs that have committed a page; 0 while there is no server, no database, no table."""
        try:
            password = (self.home() / "password").read_text().strip()
            connection = psycopg2.connect(
                host="127.0.0.1", port=self.db_port, user="datasync", password=password,
                dbname="datasync_demo",
            )  # fmt: skip
        except (OSError, psycopg2.OperationalError):
            return 0
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(DISTINCT run_id) FROM checkpoint")
                return cursor.fetchone()[0]
        except psycopg2.errors.UndefinedTable:
            return 0
        finally:
            connection.close()

    def scrapy(self, *arguments):
        """Exit status, output and what stands on standard error."""
        done = subprocess.run(
            [sys.executable, "-m", "scrapy", *arguments],
            cwd=self.folder, env=self.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def psql(self, *arguments):
        scrapy = [sys.executable, "-m", "scrapy", "psql", *arguments]
        return subprocess.run(
            scrapy, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )


def until(condition, what):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what()}"
        time.sleep(0.02)


@pytest.fixture
def stranger(tmp_path):
    folder = tmp_path / "closed" / "a project"
    unwanted = (".git", ".venv", ".env", ".datasync", ".*_cache", ".coverage*")
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns(*unwanted))
    folder.parent.chmod(0o700)
    folder.chmod(0o700)
    one = Stranger(folder)
    yield one
    until(lambda: not one.processes(), lambda: f"still running: {one.processes()}")
    if not one.home().is_relative_to(folder):
        shutil.rmtree(one.home())


def test_demonstration_then_nothing_new(stranger):
    """With nothing configured it says that it demonstrates, completes; a second run is idle."""
    status, output = stranger.run("--events", "20000")
    assert status == 0, output
    assert "This is a demonstration: 20,000 generated events" in output
    assert "install -m 600 .env.example .env, set API_BASE_URL and API_KEY" in output
    assert "complete: proved against the API's total" in output
    assert "scrapy psql" in output
    assert stranger.processes() == []

    counted = stranger.psql("-At", "-c", "SELECT count(*), count(DISTINCT id) FROM events")
    assert (counted.stdout, counted.stderr) == ("20000|20000\n", "")
    until(lambda: not stranger.processes(), lambda: f"psql left {stranger.processes()}")

    status, output = stranger.run("--events", "20000")
    assert status == 0, output
    assert re.search(r"run: new +0\n", output)


def test_readmes_commands_after_the_demonstration(stranger):
    """With nothing configured, not even a PATH, each command takes the demonstration's API and
    database, and leaves nothing behind; before the demonstration one sentence says what to do.
    """
    env = {name: stranger.env[name] for name in ("DATASYNC_VENV", "DB_PORT", "STRANGER")}
    stranger.env = env | {"HOME": str(stranger.folder.parent), "PATH": "/usr/bin:/bin"}
    before = (
        "datasync-crawler: API_BASE_URL isn't set, and nothing else is. Set it to the API's "
        "address up to and including /api/v1, such as https://api.example.com/api/v1, in .env "
        "(install -m 600 .env.example .env), in the environment or with -s API_BASE_URL=…; or run "
        "sh run-ingestion.sh for a demonstration.\n"
    )
    for command in (("crawl", "events"), ("redrive",), ("verify",), ("fetch", "http://x")):
        assert stranger.scrapy(*command) == (2, "", before)
    assert stranger.run("--events", "3000")[0] == 0
    says = "Nothing is configured: this is the demonstration, whose mock API serves 3,000 generated"
    for command in (
        ("crawl", "events", "-s", "DASHBOARD_PORT=0"), ("crawl", "events", "-O", "events.jsonl"),
        ("redrive",),
    ):  # fmt: skip
        status, _, errors = stranger.scrapy(*command)
        assert (status, says in errors) == (0, True), errors
        assert "complete: proved against the API's total (3,000)" in errors
    assert (stranger.folder / "events.jsonl").exists()
    for option in ("--json", "--audit=1"):
        status, output, _ = stranger.scrapy("verify", option)
        assert (status, "as the API says now" in output) == (0, True)
    for command in (("status",), ("export", "events.csv"), ("psql", "-c", "SELECT 1")):
        assert stranger.scrapy(*command)[0] == 0
    page = f"http://127.0.0.1:{stranger.mock_port}/api/v1/events/bulk?limit=1"
    assert '"total":3000' in stranger.scrapy("fetch", "--nolog", page)[1]
    status, output = stranger.run(port=False)  # as many events, on the same port
    assert (status, "3,000 generated events" in output) == (0, True), output
    until(lambda: not stranger.processes(), lambda: f"left behind: {stranger.processes()}")


def test_two_commands_share_the_demonstrations_api(stranger):
    """What another command serves already is used, and is still there afterwards."""
    assert stranger.run("--events", "300")[0] == 0
    scrapy = [sys.executable, "-m", "scrapy", "crawl", "events", "-s", "FOLLOW=0.1"]
    with subprocess.Popen(
        scrapy, cwd=stranger.folder, env=stranger.env, stderr=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stderr is not None
        for line in follower.stderr:
            if "Up to date" in line:
                break
        status, output, errors = stranger.scrapy("verify")
        assert (status, "300 (as the API says now)" in output) == (0, True), errors
        follower.terminate()
        log = follower.stderr.read()
    assert (follower.returncode, "Traceback" in log) == (0, False), log


def test_options_reach_the_crawl_and_the_command_that_shows_its_events(stranger):
    """-L is the crawl's; the psql named at the end opens what -s DB_NAME and DB_SCHEMA say."""
    options = ("-L", "WARNING", "-s", "DB_NAME=mine", "-s", "DB_SCHEMA=february 1")
    status, output = stranger.run("--events", "300", *options)
    assert status == 0, output
    assert "INFO" not in output
    _, command = output.splitlines()[-1].split("events: ")
    shown = subprocess.run(
        f"{command} -At -c 'SELECT count(*) FROM events'", shell=True, env=stranger.env,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (shown.stdout, shown.stderr) == ("300\n", "")


def test_a_closed_output_changes_no_exit_status(stranger):
    """`| head -1` hears one line; the crawl is complete, and the status says so."""
    ours = f"{stranger.folder}/run-ingestion.sh' --events 300 --mock-port {stranger.mock_port}"
    done = subprocess.run(
        ["bash", "-c", f"sh '{ours} 2>errors | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}"],
        cwd=stranger.folder.parent, env=stranger.env, check=False,
    )  # fmt: skip
    errors = (stranger.folder.parent / "errors").read_text()
    assert done.returncode == 0, errors
    assert "complete: proved" in errors


def test_stopped_and_killed_in_the_middle(stranger):
    """A signal in mid-crawl: it stops cleanly with 1, everything with it, and what came is kept, so
    that the next run goes on. SIGKILL of the script: crawl, mock API and server end by themselves.
    """
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
    for runs, number in enumerate(signals, 1):
        process = stranger.start("--events", str(MANY))
        until(lambda runs=runs: stranger.runs_with_pages() == runs, stranger.output)
        process.send_signal(number)
        status = process.wait(DEADLINE_S)
        if number != signal.SIGKILL:
            assert status == 1, (number, stranger.output())
            assert stranger.processes() == []
            assert "NOT complete" in stranger.output()
    until(lambda: not stranger.processes(), lambda: f"left behind: {stranger.processes()}")
    assert stranger.psql("-At", "-c", "SELECT count(*) > 0 FROM events").stdout == "t\n"


def test_empty_key_is_said(stranger):
    """A .env without a key isn't a demonstration: one sentence, exit 2."""
    (stranger.folder / ".env").write_text("API_BASE_URL=https://api.example.com/api/v1\nAPI_KEY=\n")
    status, output = stranger.run(port=False)
    assert (status, output.count("\n")) == (2, 1)
    assert "API_KEY isn't set" in output


def test_example_as_it_is_is_said(stranger):
    """.env.example copied and not filled in: one sentence that names what to set, exit 2."""
    shutil.copyfile(stranger.folder / ".env.example", stranger.folder / ".env")
    status, output = stranger.run(port=False)
    assert (status, output.count("\n")) == (2, 1)
    assert "API_BASE_URL isn't set" in output


@pytest.mark.parametrize("events", ["0", "-5", "many", "1e6", "٣"])
def test_wrong_number_of_events_is_said(stranger, events):
    """--events takes a positive whole number; anything else is told, exit 2."""
    status, output = stranger.run(f"--events={events}")
    assert status == 2, output
    assert "--events is" in output


def test_busy_mock_port_is_said(stranger):
    """The demonstration's port in use: a sentence with the port and the remedy, exit 1."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", stranger.mock_port))
        other.listen()
        status, output = stranger.run()
    assert status == 1
    said = output.splitlines()[-1]
    assert f"mock API can't listen on port {stranger.mock_port}" in said
    assert "--mock-port" in said
    assert len(output.splitlines()) == 2  # the other says that it is a demonstration


FAKE_PYTHONS = {
    "there is no Python": None,
    "Python 3.9.2 is too old": 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac',
    "apt install python3.11-venv": (
        'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.11;; *) exit 0;; esac'
    ),
}


@pytest.mark.parametrize(("sentence", "script"), FAKE_PYTHONS.items())
def test_machine_that_lacks_something(stranger, sentence, script):
    """No Python, an old one, one without venv: one sentence with the remedy, exit 2."""
    tools = stranger.folder.parent / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "cat", "cksum", "rm", "flock"):
        if path := shutil.which(name):
            (tools / name).symlink_to(path)
    if script is not None:
        (tools / "python3").write_text(f"#!/bin/sh\n{script}\n")
        (tools / "python3").chmod(0o755)
    del stranger.env["DATASYNC_VENV"]
    stranger.env["PATH"] = str(tools)
    status, output = stranger.run()
    assert (status, output.count("\n")) == (2, 1), output
    assert sentence in output
    assert "apt install" in output


def test_an_old_python_names_what_this_distribution_has(stranger):
    """What apt knows of is named, not a version that isn't there."""
    tools = stranger.folder.parent / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "cat", "cksum", "rm", "flock"):
        if path := shutil.which(name):
            (tools / name).symlink_to(path)
    for name, script in (
        ("python3", 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac'),
        ("apt-cache", 'case "$2" in python3.11) exit 0;; *) exit 100;; esac'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    del stranger.env["DATASYNC_VENV"]
    stranger.env["PATH"] = str(tools)
    assert stranger.run() == (
        2,
        (
            "datasync-crawler: Python 3.9.2 is too old: install Python 3.11 or newer (here: apt "
            "install python3.11 python3.11-venv), then run this again.\n"
        ),
    )
