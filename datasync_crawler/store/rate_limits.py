"""What was learned of an API's limits, and its pause: the table ``rate_limits``.

The pause stands there once, by the database's clock, for the next run and for every command that
asks the API. A key is known by its salted hash alone, made here: it never reaches the server.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from datasync_crawler.errors import CrawlError, TablesMissing
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.statements import Rows, Statements
from datasync_crawler.store.targets import Target

#: A command waits so long at most for a pause's end, in seconds; a longer one it refuses.
LONGEST_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Remembered:
    """What was written `age_s` ago, and how long the API wants no request from now on."""

    learned: Mapping[str, Any] = field(default_factory=dict)
    age_s: float = 0.0
    paused_for_s: float = 0.0


class LimitMemory:
    """One key's row. Each call opens a connection of its own: it's called a few times a run."""

    def __init__(self, connector: Connector, schema: str, key: str) -> None:
        self._connector = connector
        self._key = key
        self._schema = schema

    def recall(self) -> Remembered:
        """What the last run wrote. Raises CrawlError."""
        rows = self._run("recall_limits")
        if not rows:
            return Remembered()
        learned, age_s, paused_for_s = rows[0]
        return Remembered(dict(learned), age_s, paused_for_s or 0.0)

    def remember(self, learned: Mapping[str, object], *, paused_for_s: float) -> None:
        """Writes what this run knows. Raises CrawlError."""
        self._run("remember_limits", learnt=json.dumps(learned), paused_for_s=paused_for_s)

    def _run(self, name: str, **params: Any) -> Rows:
        with closing(Statements(("runs",), self._schema, self._connector.connect_autocommit)) as db:
            rows = db.run("read_salt")
            salt = rows[0][0] if rows else ""
            digest = hashlib.sha256(f"{salt}/{self._key}".encode()).hexdigest()
            return db.run(name, key_hash=digest, **params)


def keep_pause(
    target: Target, schema: str, key: str, *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """For a command that asks the API: waits for the end of the pause that a crawl met.

    Raises CrawlError where that is more than LONGEST_WAIT_S away, or there is no database.
    """
    connector = Connector(target)
    try:
        paused_for_s = LimitMemory(connector, schema, key).recall().paused_for_s
    except TablesMissing:
        return  # nothing has been crawled yet
    finally:
        connector.release()
    if paused_for_s > LONGEST_WAIT_S:
        at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(time.time() + paused_for_s))
        raise CrawlError(
            f"The API's rate limit asks for a pause of {paused_for_s:.0f} s. Run the same command "
            f"again after {at}."
        )
    if paused_for_s > 0:
        sleep(paused_for_s)
