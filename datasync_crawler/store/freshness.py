"""Freshness of the stored events: the time of the last proof, and the newest event.

Reads only. Must not judge: `monitor.freshness` does.
"""

from contextlib import closing
from typing import Any

from datasync_crawler.errors import TablesMissing
from datasync_crawler.events.scan import printable
from datasync_crawler.monitor.freshness import Freshness
from datasync_crawler.store import schema
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.reader import MOST_TEXT
from datasync_crawler.store.runstats import read_seconds
from datasync_crawler.store.statements import Statements, translating


def read_freshness(connector: Connector, schema_name: str) -> Freshness:
    """All but the newest event: quick, however large the tables are.

    Raises what `Connector.connect` raises, and DatabaseRefused; before the first crawl there is
    nothing, no error.
    """
    row = _read(connector, schema_name, "freshness")
    if row is None:
        return Freshness()
    now, complete_at, run_id, finished_at, reason, silent_s = row
    finished_at, silent_s = map(read_seconds, (finished_at, silent_s))
    reason = None if reason is None else printable(reason[:MOST_TEXT])
    return Freshness(now, read_seconds(complete_at), run_id, finished_at, reason, silent_s)


def read_newest_event(connector: Connector, schema_name: str) -> float | None:
    """The newest timestamp in epoch seconds: seconds of reading for each ten million events, or
    none with an index on "timestamp". Raises the same.
    """
    row = _read(connector, schema_name, "newest_event")
    return read_seconds(row[0]) if row else None


def _read(connector: Connector, schema_name: str, name: str) -> tuple[Any, ...] | None:
    statements = Statements(("freshness",), schema_name, connector.connect_to_read)
    with closing(statements):
        connection = statements.open()
        with translating(schema_name):
            connection.autocommit = True
            schema.refuse_strange_columns(connection, schema_name)
        try:
            return statements.run(name)[0]
        except TablesMissing:
            return None
