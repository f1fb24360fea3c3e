"""Databases as tests see them: parameters, a quick query, and the environment that leads there."""

from __future__ import annotations

import time
import uuid
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import parse_dsn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping


class Server:
    """A server; *params* are libpq's keywords."""

    def __init__(self, params: Mapping[str, str]) -> None:
        self.params = dict(params)
        self._kept: Connection | None = None

    @classmethod
    def from_url(cls, url: str) -> Server:
        return cls({name: str(value) for name, value in parse_dsn(url).items()})

    def connect(self) -> Connection:
        params: dict[str, Any] = self.params
        connection = psycopg2.connect(**params)
        connection.autocommit = True
        return connection

    def execute(self, statement: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Runs one statement and gives its rows, if it has any."""
        try:
            return self._run(statement, params)
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            if self._kept is None or not self._kept.closed:
                raise
        return self._run(statement, params)  # the server was stopped since the last statement

    def close(self) -> None:
        """Closes the connection that `execute` keeps."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _run(self, statement: str, params: Any) -> list[tuple[Any, ...]]:
        # Kept: tests poll, and a connection for each look costs more than the look.
        if self._kept is None or self._kept.closed:
            self._kept = self.connect()
        with self._kept.cursor() as cursor:
            cursor.execute(statement, params)
            return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, params: Any = None) -> Any:
        """The one value of a query."""
        return self.execute(statement, params)[0][0]


class Database(Server):
    """One database; *environment* leads a crawl to it."""

    def wait_for(self, process: subprocess.Popen[bytes]) -> None:
        """Waits until *process*, which serves it, answers."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg2.OperationalError:
                assert process.poll() is None, "the server has ended"
                assert time.monotonic() < deadline, "the server doesn't answer"
                time.sleep(0.05)
            else:
                return

    @property
    def environment(self) -> dict[str, str]:
        names = {
            "host": "DB_HOST",
            "port": "DB_PORT",
            "dbname": "DB_NAME",
            "user": "DB_USER",
            "password": "DB_PASSWORD",
        }
        return {names[key]: value for key, value in self.params.items() if key in names}


@contextmanager
def own_database(server: Server, template: str = "template1") -> Iterator[Database]:
    """A database of one's own, a copy of *template*; dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    with closing(Database({**server.params, "dbname": name})) as made:
        yield made
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")
