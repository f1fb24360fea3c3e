"""``sh run-ingestion.sh --docker`` with a docker that only writes down what it is asked to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
#: Answers as FAKE_DOCKER (a JSON object of subcommand: exit status) says; else with 0.
FAKE = f"""#!{sys.executable}
import json, os, sys
seen = ["DB_PASSWORD", "DEMO_EVENTS", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"]
with open(os.environ["FAKE_DOCKER_LOG"], "a") as log:
    values = {{name: os.environ[name] for name in seen if name in os.environ}}
    log.write(json.dumps([sys.argv[1:], values]) + "\\n")
words = [word for word in sys.argv[1:] if word in ("version", "info", "config", "build", "run")]
sys.exit(json.loads(os.environ["FAKE_DOCKER"]).get(words[0], 0))
"""


class Checkout:
    """A copy of the scripts in a path with a space, and the fake docker on PATH."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "a project"
        shutil.copytree(PROJECT / "scripts", self.folder / "scripts")
        shutil.copy(PROJECT / "run-ingestion.sh", self.folder)
        self.bin = tmp_path / "bin"
        self.bin.mkdir()
        for name in ("sh", "dirname", "od", "tr", "mkdir", "mv", "cat"):
            found = shutil.which(name)
            assert found is not None
            (self.bin / name).symlink_to(found)
        self.log = tmp_path / "log"

    def install_docker(self) -> None:
        (self.bin / "docker").write_text(FAKE)
        (self.bin / "docker").chmod(0o755)

    def run(
        self, *arguments: str, statuses: dict[str, int] | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            ["sh", str(self.folder / "run-ingestion.sh"), *arguments],
            cwd="/",
            env={
                "PATH": str(self.bin),
                "HOME": os.environ.get("HOME", "/"),
                "FAKE_DOCKER_LOG": str(self.log),
                "FAKE_DOCKER": json.dumps(statuses or {}),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[tuple[list[str], dict[str, str]]]:
        return [tuple(json.loads(line)) for line in self.log.read_text().splitlines()]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path)
    made.install_docker()
    return made


def test_with_an_env_file_the_crawler_runs_in_the_foreground(checkout: Checkout) -> None:
    """Checked, built, run; settings travel to the crawl; its exit status is the script's."""
    (checkout.folder / ".env").write_text("API_KEY=k\n")
    done = checkout.run("--docker", "-s", "BULK_PAGE_SIZE=100", statuses={"run": 1})
    assert done.returncode == 1, done.stderr
    calls = [call for call, _ in checkout.calls()]
    assert calls[2:] == [
        ["compose", "config", "--quiet"],
        ["compose", "build", "--quiet", "crawler"],
        ["compose", "run", "--rm", "--no-TTY", "crawler", "crawl", "events", "-s",
         "BULK_PAGE_SIZE=100"],
    ]  # fmt: skip
    assert "docker compose exec postgres" in done.stdout


def test_without_one_it_is_a_demonstration_with_a_database_of_its_own(checkout: Checkout) -> None:
    """Another project, a password that is drawn once and that only its owner can read."""
    first = checkout.run("--docker", "--events", "5000")
    assert first.returncode == 0, first.stderr
    assert "This is a demonstration: 5000 generated events" in first.stdout
    call, values = checkout.calls()[-1]
    assert call == ["compose", "run", "--rm", "--no-TTY", "demo"]
    assert values["COMPOSE_PROJECT_NAME"] == "datasync-demo"
    assert (values["COMPOSE_PROFILES"], values["DEMO_EVENTS"]) == ("demo", "5000")
    assert len(values["DB_PASSWORD"]) == 32
    assert (checkout.folder / ".datasync" / "docker-demo-password").stat().st_mode & 0o777 == 0o600
    assert values["DB_PASSWORD"] not in first.stdout + first.stderr
    checkout.run("--docker", "--events=6000")
    _, again = checkout.calls()[-1]
    assert (again["DB_PASSWORD"], again["DEMO_EVENTS"]) == (values["DB_PASSWORD"], "6000")


@pytest.mark.parametrize(
    ("arguments", "statuses", "status", "sentence"),
    [
        (["--docker"], {"version": 1}, 2, "this docker has no Compose"),
        (["--docker"], {"info": 1}, 2, "docker doesn't answer"),
        (["--docker"], {"config": 15}, 2, ""),
        (["--docker"], {"build": 17}, 2, "the image can't be built"),
        (["--docker", "--events", "many"], {}, 2, "--events is many"),
        (["--docker", "--events"], {}, 2, "--events takes a number"),
    ],
)
def test_what_is_missing_is_said(
    checkout: Checkout, arguments: list[str], statuses: dict[str, int], status: int, sentence: str
) -> None:
    """One sentence with the remedy and exit status 2, and no container is started."""
    done = checkout.run(*arguments, statuses=statuses)
    assert done.returncode == status
    assert sentence in done.stderr
    assert not [call for call, _ in checkout.calls() if "run" in call]


def test_settings_that_containers_do_not_see_are_refused(checkout: Checkout) -> None:
    """An API in the shell's environment would silently become a demonstration."""
    done = checkout.run("--docker", API_BASE_URL="https://api.example.com/api/v1")
    assert done.returncode == 2
    assert "install -m 600 .env.example .env" in done.stderr


def test_without_docker_it_says_so(tmp_path: Path) -> None:
    """No docker at all on PATH."""
    done = Checkout(tmp_path).run("--docker")
    assert done.returncode == 2
    assert "there is no docker" in done.stderr
