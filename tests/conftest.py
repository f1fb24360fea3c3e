"""Fixtures that every kind of test may ask for: a real PostgreSQL, and a database of one's own.

The server is the embedded one, kept below .datasync/tests and started once a session, or the one
that TEST_DATABASE_URL names.
"""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from databases import Server, own_database
from hypothesis import HealthCheck, settings
from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from databases import Database

PROJECT = Path(__file__).resolve().parents[1]

# How quick a machine is says nothing about the code: no deadline, no "generation is slow". Each run
# tries the same examples, so that a failure is the change's; --hypothesis-profile=explore seeks
# new ones.
settings.register_profile(
    "ours", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", settings.get_profile("ours"), derandomize=False)
settings.load_profile("ours")


# A shell's background job ignores SIGINT, and each process that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A running PostgreSQL server whose user may make databases."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        with closing(Server.from_url(url)) as found:
            yield found
        return
    from datasync_crawler.local_postgres.embedded import (  # noqa: PLC0415
        EmbeddedError,
        ensure_running,
    )

    data_dir = PROJECT / ".datasync" / "tests"
    try:
        running = ensure_running(data_dir, port=free_port())
    except EmbeddedError:  # another session's tests run on it: join them, whatever their port
        running = ensure_running(data_dir)
    with closing(Server(running.conninfo("postgres"))) as found:
        # Durability is tested on clusters of the tests' own; a power cut costs this one nothing.
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            found.execute(f"ALTER SYSTEM SET {name} = off")
        found.execute("SELECT pg_reload_conf()")
        yield found
    running.release()


@pytest.fixture
def database(server: Server) -> Iterator[Database]:
    """An empty database of the test's own, dropped afterwards."""
    with own_database(server) as made:
        yield made
