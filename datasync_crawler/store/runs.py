"""A run's row in ``crawl_runs`` and its samples, as the heartbeat writes them.

`store.reader` reads them. Must not touch events or the ledger.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from datasync_crawler.errors import DatabaseLost
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.reader import SILENT_AFTER_S
from datasync_crawler.store.statements import Statements


class RunLog:
    """One run's row and samples, on a connection of its own; used from one thread at a time."""

    def __init__(self, connector: Connector, schema_name: str, run_id: int) -> None:
        self._run_id = run_id
        self._statements = Statements(("runs",), schema_name, connector.connect_autocommit)

    def beat(self, stats: Mapping[str, Any], sample: Mapping[str, Any]) -> tuple[int, int]:
        """Writes the heartbeat, the run's stats and *sample*, the figures that are kept over time.

        Returns how many other processes share the crawl, and the events that others have received
        in all since this run began. Raises CrawlError; the next call opens a new connection.
        """
        rows = self._statements.run(
            "beat",
            run_id=self._run_id,
            stats=_json(stats),
            figures=_json(sample),
            silent_after_s=SILENT_AFTER_S,
        )
        return (int(rows[0][0]), int(rows[0][1])) if rows else (0, 0)

    def thin(self) -> None:
        """Deletes samples of all runs by their age. Raises as `beat` does."""
        self._statements.run("thin_samples")

    def finish(self, reason: str, stats: Mapping[str, Any], sample: Mapping[str, Any]) -> None:
        """Writes the end of the run. Raises as `beat` does."""
        params = {
            "run_id": self._run_id,
            "reason": reason,
            "stats": _json(stats),
            "figures": _json(sample),
        }
        try:
            self._statements.run("finish_run", **params)
        except DatabaseLost:  # since the last heartbeat: nothing else would write the end later
            self._statements.run("finish_run", **params)

    def close(self) -> None:
        """Closes the connection."""
        self._statements.close()


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(_storable(values), default=str)


def _storable(value: Any) -> Any:
    """*value* as jsonb accepts it: no NaN or infinity (22P02), NUL or lone surrogate (22P05)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.replace("\0", "").encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {_storable(str(name)): _storable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(one) for one in value]
    return value
