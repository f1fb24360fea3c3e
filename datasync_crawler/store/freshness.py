"""How old what is stored is: when the set was last proved complete, and the newest event.

Reads only. Must not judge: `monitor.freshness` does.
"""

from typing import Any

import psycopg2

from datasync_crawler.errors import DatabaseRefused, DatabaseUnreachable
from datasync_crawler.monitor.freshness import Freshness
from datasync_crawler.store import queries, schema
from datasync_crawler.store.connection import (
    Connector,
    close_quietly,
    describe,
    is_connection_lost,
)


def read_freshness(connector: Connector, schema_name: str) -> Freshness:
    """All but the newest event: quick, however large the tables are.

    Raises what `Connector.connect` raises, and DatabaseRefused; before the first crawl there is
    nothing, no error.
    """
    row = _read(connector, schema_name, "freshness")
    return Freshness(*row) if row else Freshness()


def read_newest_event(connector: Connector, schema_name: str) -> float | None:
    """The newest timestamp in epoch seconds: seconds of reading for each ten million events, or
    none with an index on "timestamp". Raises the same.
    """
    row = _read(connector, schema_name, "newest_event")
    newest: float | None = row[0] if row else None
    return newest


def _read(connector: Connector, schema_name: str, name: str) -> tuple[Any, ...] | None:
    connection = connector.connect_to_read()
    try:
        connection.set_session(readonly=True, autocommit=True)
        schema.refuse_strange_columns(connection, schema_name)
        with connection.cursor() as cursor:
            cursor.execute(queries.load("freshness", schema_name)[name])
            return cursor.fetchone()
    except psycopg2.errors.UndefinedTable:
        return None
    except psycopg2.Error as error:
        if is_connection_lost(error):
            raise DatabaseUnreachable(
                f"The database went away: {describe(error)}. Run this again when it is back."
            ) from None
        raise DatabaseRefused(
            f"The database refuses to be read (schema {schema_name}): {describe(error)}. Give this "
            "role the right to read all tables of that schema."
        ) from None
    finally:
        close_quietly(connection)
