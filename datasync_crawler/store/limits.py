"""What was learnt of an API's limits, remembered for the next run: the table ``rate_limits``.

A key is known by its salted hash alone, made here: the key never reaches the server.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from datasync_crawler.store import queries
from datasync_crawler.store.connection import Connector


class LimitMemory:
    """One key's row. Each call opens a connection of its own: it's called a few times a run."""

    def __init__(self, connector: Connector, schema: str, key: str) -> None:
        self._connector = connector
        self._key = key
        self._queries = queries.load("runs", schema)

    def recall(self) -> dict[str, Any]:
        """What the last run wrote; {} when there was none. Raises psycopg2.Error or CrawlError."""
        rows = self._execute("recall_limits", {})
        return dict(rows[0][0]) if rows else {}

    def remember(self, learnt: Mapping[str, object], *, paused_for_s: float) -> None:
        """Writes what this run knows. Raises psycopg2.Error or CrawlError."""
        self._execute(
            "remember_limits", {"learnt": json.dumps(learnt), "paused_for_s": paused_for_s}
        )

    def _execute(self, name: str, params: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        with closing(self._connector.connect()) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(self._queries["read_salt"])
                rows = cursor.fetchall()
                salt = rows[0][0] if rows else ""
                digest = hashlib.sha256(f"{salt}/{self._key}".encode()).hexdigest()
                cursor.execute(self._queries[name], {**params, "key_hash": digest})
                return cursor.fetchall() if cursor.description else []
