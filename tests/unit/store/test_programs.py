"""store/programs.py: which psql and pg_dump a database is reached with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from datasync_crawler.errors import ConfigError
from datasync_crawler.local_postgres.binaries import find_binaries
from datasync_crawler.store import programs
from datasync_crawler.store.targets import EmbeddedTarget, ServerTarget, from_url

if TYPE_CHECKING:
    from pathlib import Path

LOCAL = [
    {"host": "127.0.0.1"},
    {"host": "localhost", "sslmode": "prefer"},
    {"host": "/run/postgresql"},
    {"host": "example.com", "hostaddr": "127.0.0.1"},
    {"dbname": "no host: the socket"},
]
NEEDS_TLS = [
    {"host": "db.example.com"},
    {"host": "10.0.0.5"},
    {"host": "localhost,db.example.com"},
    {"host": "localhost", "hostaddr": "10.0.0.5"},
    {"host": "127.0.0.1", "sslmode": "require"},
    {"host": "127.0.0.1", "sslmode": "verify-full"},
    {"service": "whatever it names"},
]


@pytest.fixture(autouse=True)
def no_libpq_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGSSLMODE", "PGSERVICE", "PGREQUIREAUTH"):
        monkeypatch.delenv(name, raising=False)


def system(monkeypatch: pytest.MonkeyPatch, folder: Path, version: str | None) -> Path:
    """A PATH with PostgreSQL's programs of that version, or none."""
    if version is not None:
        for name in ("psql", "pg_dump"):
            (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
            (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.parametrize("params", NEEDS_TLS)
def test_a_server_that_needs_tls_gets_the_systems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, params: dict[str, str]
) -> None:
    """Beyond this machine, or with TLS asked for, the package's programs are no choice."""
    folder = system(monkeypatch, tmp_path, "13.1")
    assert programs.directories(ServerTarget(params)) == [folder]


@pytest.mark.parametrize("params", NEEDS_TLS)
def test_without_the_systems_such_a_server_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, params: dict[str, str]
) -> None:
    """The sentence says what to install; nothing is sent in clear instead."""
    system(monkeypatch, tmp_path, None)
    with pytest.raises(ConfigError, match="apt install postgresql-client"):
        programs.directories(ServerTarget(params))


@pytest.mark.parametrize("params", LOCAL)
def test_a_server_of_this_machine_may_do_with_the_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, params: dict[str, str]
) -> None:
    """The system's come first; for pg_dump, which saves no newer server, the newest is taken."""
    ours = find_binaries().bin
    folder = system(monkeypatch, tmp_path, "13.1")
    assert programs.directories(ServerTarget(params)) == [folder, ours]
    assert programs.newest([folder, ours]) == ours
    system(monkeypatch, tmp_path, "99.0")
    assert programs.newest([folder, ours]) == folder
    system(monkeypatch, tmp_path / "empty", None)
    assert programs.directories(ServerTarget(params)) == [ours]


@pytest.mark.parametrize(
    ("name", "value"),
    [("PGHOST", "db.example.com"), ("PGSSLMODE", "require"), ("PGSERVICE", "x"),
     ("PGHOSTADDR", "10.0.0.5")],
)  # fmt: skip
def test_libpqs_variables_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    """What a DATABASE_URL leaves to libpq's environment may lead to another machine."""
    folder = system(monkeypatch, tmp_path, "13.1")
    monkeypatch.setenv(name, value)
    assert programs.directories(from_url("postgresql:///datasync")) == [folder]


@pytest.mark.parametrize("version", ["15.18", "16.0", "18.6"])
def test_a_psql_that_does_not_know_require_auth_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    """An older libpq would pass PGREQUIREAUTH over: it's refused, not run without."""
    folder = system(monkeypatch, tmp_path, version)
    target = ServerTarget({"host": "db.example.com", "require_auth": "scram-sha-256"})
    if version == "15.18":
        with pytest.raises(ConfigError, match=r"knows require_auth .* 16 or newer"):
            programs.directories(target)
    else:
        assert programs.directories(target) == [folder]


def test_the_embedded_server_has_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its version is the package's."""
    system(monkeypatch, tmp_path, "13.1")
    target = EmbeddedTarget(tmp_path, None, "datasync")
    assert programs.directories(target) == [find_binaries().bin]
