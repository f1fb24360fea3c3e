"""The tables: made when they are missing, held against the contract when they are there.

Must not change a table that somebody else made.
"""

import hashlib
import re
from typing import TYPE_CHECKING

import psycopg2

from datasync_crawler.errors import DatabaseRefused, SchemaConflict
from datasync_crawler.store import queries
from datasync_crawler.store.connection import describe

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812


def advisory_key(schema: str, purpose: str) -> int:
    """A 64-bit key for pg_advisory_lock, the same in every process."""
    digest = hashlib.sha256(f"datasync-crawler/{purpose}/{schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def migrate(connection: "Connection", schema: str) -> None:
    """Makes what is missing, in one transaction, under an advisory lock.

    Nothing is written when everything is there, so that a role without CREATE can crawl.
    Raises SchemaConflict for a table of another shape and DatabaseRefused for missing rights.
    """
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (advisory_key(schema, "migrate"),))
            cursor.execute("SELECT to_regnamespace(%s)", (queries.quote_identifier(schema),))
            if cursor.fetchone() == (None,):
                cursor.execute(f"CREATE SCHEMA {queries.quote_identifier(schema)}")
            for table, statement in queries.load("schema", schema).items():
                found = _columns(cursor, schema, table)
                if not found:
                    cursor.execute(statement.replace("%%", "%"))
                else:
                    _check(schema, table, _declared(statement), found)
    except psycopg2.errors.InsufficientPrivilege as error:
        raise DatabaseRefused(
            f"The tables in schema {schema} can't be made: {describe(error)}. Grant this role "
            "CREATE on the schema, or have its owner run the crawl once."
        ) from None


def _columns(cursor: "Cursor", schema: str, table: str) -> dict[str, str]:
    cursor.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (f"{queries.quote_identifier(schema)}.{queries.quote_identifier(table)}",),
    )
    return dict(cursor.fetchall())


def _declared(statement: str) -> dict[str, str]:
    """Columns and types as ``schema.sql`` declares them."""
    names = re.findall(r'^ {4}"?([a-z_]+)"? (\w+)', statement, flags=re.MULTILINE)
    types = {"timestamptz": "timestamp with time zone"}
    return {name: types.get(kind, kind) for name, kind in names}


def _check(schema: str, table: str, wanted: dict[str, str], found: dict[str, str]) -> None:
    wrong = [
        f"{name} is {found.get(name, 'missing')} instead of {kind}"
        for name, kind in wanted.items()
        if found.get(name) != kind
    ]
    if wrong:
        raise SchemaConflict(
            f"Schema {schema} has a table {table} of another shape ({'; '.join(wrong[:3])}"
            f"{'; …' if len(wrong) > 3 else ''}). It is left untouched: set DB_SCHEMA to a schema "
            "of the crawler's own, or rename that table."
        )
