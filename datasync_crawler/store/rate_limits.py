"""The table ``rate_limits``: what was learned of an API key's limits, and the end of its pause.

The pause is stored by the database's clock, for the next run and for every command that sends
requests to the API. The key itself never reaches the server: its salted hash is made here.
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

#: Longest pause that a command waits for, in seconds; it ends with an error for a longer one.
LONGEST_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Remembered:
    """What was stored `age_s` ago. `paused_for_s`: from now on until requests may be sent again."""

    learned: Mapping[str, Any] = field(default_factory=dict)
    age_s: float = 0.0
    paused_for_s: float = 0.0


class LimitMemory:
    """One key's row. Each call opens a connection, because there are only a few per run."""

    def __init__(self, connector: Connector, schema: str, key: str) -> None:
        self._connector = connector
        self._key = key
        self._schema = schema

    def recall(self) -> Remembered:
        """What was stored last. Raises CrawlError."""
        rows = self._run("recall_limits")
        if not rows:
            return Remembered()
        learned, age_s, paused_for_s = rows[0]
        return Remembered(dict(learned), age_s, paused_for_s or 0.0)

    def remember(self, learned: Mapping[str, object], *, paused_for_s: float) -> None:
        """Stores the limits and the pause. Raises CrawlError."""
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
    """Waits for the end of a stored pause, before a command sends requests to the API.

    Raises CrawlError for a pause of more than LONGEST_WAIT_S, and for a database that fails.
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
