"""The table ``rate_limits``: what was learned of an API key's limits, the end of its pause, and the
permits of all processes that send with it (``take_permits`` in ``sql/functions.sql``).

Times are by the database's clock, for other processes, the next run and every command that sends
requests to the API. The key itself never reaches the server: its salted hash is made here.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

from datasync_crawler.errors import CrawlError, TablesMissing
from datasync_crawler.ratelimit.limits import Limit
from datasync_crawler.ratelimit.shared import Asked, Granted
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
    """One key's row. Thread-safe: one connection, opened when it is needed.

    Each statement is a transaction of its own and needs nothing of its session.
    """

    def __init__(self, connector: Connector, schema: str, key: str) -> None:
        self._statements = Statements(("runs",), schema, connector.connect_autocommit)
        self._key = key
        self._key_hash: str | None = None
        self._mutex = threading.Lock()

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

    def take(self, asked: Asked) -> Granted:
        """Takes permits, and reports what answers have shown. Raises CrawlError."""
        granted, wait_s, accepted, paused_s, learned = self._run(
            "take_permits",
            wanted=asked.wanted,
            limits=None if asked.limits is None else json.dumps(asked.limits),
            latency_s=asked.latency_s,
            report=json.dumps(asked.report) if asked.report else None,
        )[0]
        limit = Limit(int(learned[0]), float(learned[1])) if learned else None
        return Granted(granted, wait_s, accepted, paused_s, limit)

    def close(self) -> None:
        """Closes the connection."""
        with self._mutex:
            self._statements.close()

    def _run(self, name: str, **params: Any) -> Rows:
        with self._mutex:
            if self._key_hash is None:
                rows = self._statements.run("read_salt")
                salt = rows[0][0] if rows else ""
                self._key_hash = hashlib.sha256(f"{salt}/{self._key}".encode()).hexdigest()
            return self._statements.run(name, key_hash=self._key_hash, **params)


def keep_pause(
    target: Target, schema: str, key: str, *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Waits for the end of a stored pause, before a command sends requests to the API.

    Raises CrawlError for a pause of more than LONGEST_WAIT_S, and for a database that fails.
    """
    connector = Connector(target)
    try:
        with closing(LimitMemory(connector, schema, key)) as memory:
            paused_for_s = memory.recall().paused_for_s
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
