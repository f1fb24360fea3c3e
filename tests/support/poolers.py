"""A real pgbouncer before a cluster of a test's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

import pytest
from databases import Database

if TYPE_CHECKING:
    from clusters import Cluster

#: What a session of ours must not leave behind on a backend that serves others next.
STATE = """
    SELECT (SELECT json_object_agg(name, setting ORDER BY name) FROM pg_settings
            WHERE source = 'session' AND name NOT IN (
                'application_name', 'client_encoding', 'DateStyle', 'TimeZone'))::text,
           current_setting('search_path'),
           (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
           (SELECT count(*) FROM pg_class WHERE relpersistence = 't'),
           (SELECT count(*) FROM pg_prepared_statements)
"""
#: What a backend says of itself that nobody has set anything on.
UNTOUCHED = (None, '"$user", public', 0, 0, 0)


def program() -> str:
    """Pgbouncer's path; installed where that's possible, else the test is skipped."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    found = shutil.which("pgbouncer", path=path)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update", "-qq"], ["install", "-y", "-qq", "pgbouncer"]):
            subprocess.run(["apt-get", *command], check=False, capture_output=True, timeout=300)
        found = shutil.which("pgbouncer", path=path)
    return found or pytest.skip("there is no pgbouncer here")


class PgBouncer:
    """Runs while it is entered; `database` is the cluster's, through it."""

    def __init__(self, cluster: Cluster, pool_mode: str, *, pool_size: int = 20) -> None:
        self._cluster = cluster
        self._program = program()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        users = cluster.folder / "users.txt"
        users.write_text('"postgres" ""\n')
        self._ini = cluster.folder / "pgbouncer.ini"
        self._ini.write_text(
            f"[databases]\n* = host=127.0.0.1 port={cluster.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = {pool_mode}\n"
            f"default_pool_size = {pool_size}\n"
        )
        self.database = Database({**cluster.database.params, "port": str(port)})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        switch: dict[str, Any] = self._cluster._switch  # it doesn't run as root either
        self._process = subprocess.Popen(
            [self._program, "-q", str(self._ini)], cwd="/",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **switch,
        )  # fmt: skip
        self.database.wait_for(self._process)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)

    def states(self, backends: int) -> list[tuple[Any, ...]]:
        """What so many backends say of themselves, as another client of the pool finds them."""
        found = {}
        clients = [self.database.connect() for _ in range(backends)]
        try:
            for client in clients:
                client.autocommit = False  # each holds its backend until all are asked
                with client.cursor() as cursor:
                    cursor.execute(STATE)
                    (state,) = cursor.fetchall()
                    cursor.execute("SELECT pg_backend_pid()")
                    found[cursor.fetchone()] = state
        finally:
            for client in clients:
                with closing(client):
                    client.rollback()
        assert len(found) == backends
        return list(found.values())
