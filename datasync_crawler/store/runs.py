"""The run's row in ``crawl_runs`` and its samples: what the heartbeat writes.

Reading them is `store.dashboard`'s. Must not touch events or the ledger.
"""

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import psycopg2

from datasync_crawler.store import queries
from datasync_crawler.store.connection import Connector, close_quietly

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812


class RunLog:
    """One run's row and samples, on a connection of its own; used from one thread at a time."""

    def __init__(self, connector: Connector, schema_name: str, run_id: int) -> None:
        self._connector = connector
        self._run_id = run_id
        self._connection: Connection | None = None
        self._queries = queries.load("runs", schema_name)

    def beat(self, stats: Mapping[str, Any], sample: Mapping[str, Any]) -> None:
        """Writes the heartbeat, the run's stats, and *sample*: a few figures to be kept over time.

        Raises psycopg2.Error or CrawlError; the next call opens a new connection.
        """
        self._execute(
            "beat", {"run_id": self._run_id, "stats": _json(stats), "figures": _json(sample)}
        )

    def thin(self) -> None:
        """Thins the samples of all runs as they age. Raises as `beat` does."""
        self._execute("thin_samples", {})

    def finish(self, reason: str, stats: Mapping[str, Any], sample: Mapping[str, Any]) -> None:
        """The run's last word. Raises as `beat` does."""
        params = {
            "run_id": self._run_id,
            "reason": reason,
            "stats": _json(stats),
            "figures": _json(sample),
        }
        try:
            self._execute("finish_run", params)
        except psycopg2.OperationalError:  # lost since the last beat: nobody else says it later
            self._execute("finish_run", params)

    def close(self) -> None:
        """Closes the connection."""
        close_quietly(self._connection)
        self._connection = None

    def _execute(self, name: str, params: Mapping[str, Any]) -> None:
        if self._connection is None:
            self._connection = self._connector.connect()
            self._connection.autocommit = True
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(self._queries[name], params or None)
        except psycopg2.Error:
            self.close()
            raise


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(_storable(values), default=str)


def _storable(value: Any) -> Any:
    """What jsonb takes: no NaN or infinity (22P02), no NUL character, no lone surrogate (22P05)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.replace("\0", "").encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {_storable(str(name)): _storable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(one) for one in value]
    return value
