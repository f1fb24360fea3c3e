"""docker-compose.yml as it is written: what is reachable from where, and what waits for what.

Whether Compose itself takes it is asked where there is a `docker compose`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
COMPOSE = PROJECT / "docker-compose.yml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return services


def test_nothing_is_published_beyond_this_machine(services: dict[str, Any]) -> None:
    """Each published port is one of 127.0.0.1, and the crawler, the demo and its mock have none."""
    ports = {name: service.get("ports", []) for name, service in services.items()}
    assert [
        port for each in ports.values() for port in each if not port.startswith("127.0.0.1:")
    ] == []
    assert ports["crawler"] == ports["demo"] == ports["mockapi"] == []


def test_the_crawler_can_be_scaled(services: dict[str, Any]) -> None:
    """`docker compose up --scale crawler=4`: no name and no port that two can't have."""
    crawler = services["crawler"]
    assert not crawler.keys() & {"container_name", "hostname", "ports", "network_mode", "restart"}
    assert "scale" not in crawler.get("deploy", {})


def test_a_kubernetes_job_runs_several_pods() -> None:
    """No number of completions, so that it ends with the first; nothing that two can't have."""
    text = (PROJECT / "deploy" / "kubernetes" / "job.yaml").read_text()
    spec = yaml.safe_load(text)["spec"]
    assert spec["parallelism"] > 1
    assert "completions" not in spec
    pod = spec["template"]["spec"]
    assert all("emptyDir" in volume for volume in pod["volumes"])
    assert not any("ports" in container for container in pod["containers"])


def test_only_postgres_and_crawler_start_without_a_profile(services: dict[str, Any]) -> None:
    """The issue's profiles, and nothing that a person has not asked for."""
    profiles = {name: service.get("profiles", []) for name, service in services.items()}
    assert {name for name, each in profiles.items() if not each} == {"postgres", "crawler"}
    assert {each for names in profiles.values() for each in names} == {
        "demo",
        "scrapyd",
        "monitoring",
    }


def test_crawls_wait_for_a_healthy_database(services: dict[str, Any]) -> None:
    """And the demonstration's for its API, too."""
    for name in ("crawler", "demo", "scrapyd", "dashboard"):
        waits = services[name]["depends_on"]
        assert waits["postgres"] == {"condition": "service_healthy"}, name
    assert services["demo"]["depends_on"]["mockapi"] == {"condition": "service_healthy"}
    assert services["postgres"]["healthcheck"]
    assert services["mockapi"]["healthcheck"]


def test_our_containers_are_hardened_and_given_time_to_stop(services: dict[str, Any]) -> None:
    """Read-only root, no capabilities, no new privileges, ten seconds."""
    for name in ("crawler", "demo", "mockapi", "scrapyd", "dashboard"):
        service = services[name]
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["stop_grace_period"] == "10s", name


def test_every_container_is_without_privileges(services: dict[str, Any]) -> None:
    """Also those that aren't ours; PostgreSQL's keeps what its entry point needs."""
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    added = {name: service["cap_add"] for name, service in services.items() if "cap_add" in service}
    assert added == {"postgres": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]}


def test_each_container_gets_its_own_secrets_alone(services: dict[str, Any]) -> None:
    """.env whole goes to the crawler and Scrapyd, without the passwords of others."""
    with_dotenv = {name for name, service in services.items() if "env_file" in service}
    assert with_dotenv == {"crawler", "scrapyd"}
    for name, foreign in (
        ("crawler", ("SCRAPYD_PASSWORD", "GRAFANA_PASSWORD")),
        ("scrapyd", ("GRAFANA_PASSWORD",)),
    ):
        assert [services[name]["environment"][each] for each in foreign] == [""] * len(foreign)
    for name in ("postgres", "mockapi", "dashboard", "prometheus", "grafana"):
        assert "API_KEY" not in str(services[name]), name


def test_secrets_of_the_environment_have_a_root_to_be_copied_into(services: dict[str, Any]) -> None:
    """Compose refuses them in a service with a read-only root (docker/compose#12531)."""
    users = {name for name, service in services.items() if service.get("secrets")}
    assert users == {"prometheus", "grafana"}
    assert [name for name in users if services[name].get("read_only")] == []


def test_no_password_has_a_default() -> None:
    """Each comes from .env or the environment, and none stands in a file of the repository."""
    text = COMPOSE.read_text()
    defaults = re.findall(r"\$\{(\w*PASSWORD\w*):-([^}]*)\}", text)
    assert [name for name, default in defaults if default] == []
    conf = (PROJECT / "deploy" / "scrapyd.conf").read_text()
    assert re.search(r"^password +=$", conf, flags=re.MULTILINE)


def test_the_files_that_are_mounted_exist(services: dict[str, Any]) -> None:
    """Docker would make an empty folder of each path that isn't there."""
    for name in ("prometheus", "grafana"):
        for volume in services[name]["volumes"]:
            if volume.startswith("./"):
                assert (PROJECT / volume.split(":")[0]).exists(), volume
    scrape = yaml.safe_load((PROJECT / "deploy" / "prometheus.yml").read_text())["scrape_configs"][
        0
    ]
    assert scrape["static_configs"] == [{"targets": ["dashboard:8765"]}]
    source = PROJECT / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    assert yaml.safe_load(source.read_text())["datasources"][0]["url"] == "http://prometheus:9090"


def has_compose() -> bool:
    if shutil.which("docker") is None:
        return False
    done = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.skipif(not has_compose(), reason="there is no docker compose")
def test_compose_resolves_it(tmp_path: Path) -> None:
    """With .env.example filled in each variable resolves; without a password it says what to do."""
    shutil.copy(COMPOSE, tmp_path)
    command = ["docker", "compose", "--profile", "*", "config", "--quiet"]

    def config() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    env = {
        name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_CONFIG") if name in os.environ
    }
    done = config()
    assert done.returncode != 0
    assert "DB_PASSWORD is missing a value: set it in .env" in done.stderr
    example = (PROJECT / ".env.example").read_text()
    (tmp_path / ".env").write_text(example.replace("DB_PASSWORD=\n", "DB_PASSWORD='p$$w'\n"))
    done = config()
    assert (done.returncode, done.stderr) == (0, "")
