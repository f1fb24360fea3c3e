"""Freshness: the last proof, the newest event, and the newest run's heartbeat. Reads only.

Must not judge: `monitor.freshness` and `monitor.healthcheck` do.
"""

import platform
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from datasync_crawler.errors import TablesMissing
from datasync_crawler.events.scan import printable
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.reader import MOST_TEXT
from datasync_crawler.store.runstats import read_seconds
from datasync_crawler.store.statements import Rows, Statements


@dataclass(frozen=True, slots=True)
class Freshness:
    """Times in epoch seconds by the database's clock; None: never. `run_id`, `finished_at`,
    `finish_reason` and `silent_s` (since its last heartbeat) are the newest run's.
    """

    now: float = 0.0
    last_complete_at: float | None = None
    run_id: int | None = None
    finished_at: float | None = None
    finish_reason: str | None = None
    silent_s: float | None = None
    newest_event_at: float | None = None


def read_freshness(connector: Connector, schema: str) -> Freshness:
    """All but the newest event: quick, however large the tables are.

    Raises CrawlError; before the first crawl there is nothing, no error.
    """
    try:
        now, complete_at, *newest = _read(connector, schema, "freshness")[0]
    except TablesMissing:
        return Freshness()
    run_id, finished_at, reason, silent_s = newest
    return Freshness(
        now,
        read_seconds(complete_at),
        run_id,
        read_seconds(finished_at),
        None if reason is None else printable(reason[:MOST_TEXT]),
        read_seconds(silent_s),
    )


def read_newest_event(connector: Connector, schema: str) -> float | None:
    """The newest timestamp in epoch seconds: seconds of reading for each ten million events, or
    none with an index on "timestamp". Raises the same.
    """
    try:
        return read_seconds(_read(connector, schema, "newest_event")[0][0])
    except TablesMissing:
        return None


def read_heartbeat(connector: Connector, schema: str) -> tuple[float, bool] | None:
    """Of the newest run that was started on this host (a container has its own): the age of its
    heartbeat in seconds, and whether it has ended; None: there is none. Raises CrawlError.
    """
    rows = _read(connector, schema, "last_heartbeat", host=platform.node())
    return (read_seconds(rows[0][0]) or 0.0, rows[0][1]) if rows else None


def _read(connector: Connector, schema: str, name: str, **params: Any) -> Rows:
    with closing(Statements.read_only(("freshness",), schema, connector)) as statements:
        return statements.run(name, **params)
