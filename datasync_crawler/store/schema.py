"""The crawler's tables: made when missing, compared with ``sql/schema.sql`` when present.

Must not change a table that somebody else made. Functions are made by `functions`.
"""

import re
from typing import TYPE_CHECKING, Final

import psycopg2

from datasync_crawler.errors import DatabaseRefused, SchemaConflict
from datasync_crawler.store import functions, queries
from datasync_crawler.store.connection import describe

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

#: Columns that earlier versions didn't have: added to their tables.
ADDED: Final = {
    "checkpoint": ("before_id", "repeated", "total"),
    "source": ("overlap",),
    "rate_limits": (
        "granted", "answered", "accepted", "grants", "limits", "learned", "remaining",
        "stated_at", "resets_at", "advertised", "blocked_until", "probed_at",
    ),
}  # fmt: skip


#: Longest wait for another transaction that makes the same table, in milliseconds.
LOCK_TIMEOUT_MS: Final = 30_000
#: Attempts, while other processes make the same tables.
ATTEMPTS: Final = 5
_MADE_MEANWHILE: Final = (
    psycopg2.errors.UniqueViolation,
    psycopg2.errors.DuplicateTable,
    psycopg2.errors.DuplicateColumn,
    psycopg2.errors.DuplicateSchema,
    psycopg2.errors.DuplicateFunction,
    psycopg2.errors.UndefinedFunction,  # dropped by another process, which makes it anew
    psycopg2.errors.InternalError_,  # "tuple concurrently updated"
)


def migrate(connection: "Connection", schema: str) -> None:
    """Makes what is missing, in one transaction.

    Nothing is written when everything is there, so that a role without CREATE can crawl.
    Raises SchemaConflict for a table of another shape or owner and DatabaseRefused for missing
    rights. There is no advisory lock, because any role could hold it: when two processes make a
    table at once, the catalogue's unique keys fail one of them, and it starts again.
    """
    for attempt in range(ATTEMPTS):
        try:
            _migrate(connection, schema)
        except _MADE_MEANWHILE:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            return


def _migrate(connection: "Connection", schema: str) -> None:
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
            cursor.execute("SELECT to_regnamespace(%s)", (queries.quote_identifier(schema),))
            if cursor.fetchone() == (None,):
                cursor.execute(f"CREATE SCHEMA {queries.quote_identifier(schema)}")
            for table, statement in queries.load("schema", schema).items():
                _check_owner(cursor, schema, table)
                found = _columns(cursor, schema, table)
                if not found:
                    cursor.execute(statement)
                    continue
                for name in ADDED.get(table, ()):
                    if name not in found:
                        column = _declaration(statement, name)
                        cursor.execute(f"ALTER TABLE {_qualified(schema, table)} ADD {column}")
                found = _columns(cursor, schema, table)
                wrong = _wrong_columns(_declared(statement), found)
                key = _declared_key(statement)
                if key not in _unique_keys(cursor, schema, table):
                    wrong.append(f"({', '.join(sorted(key))}) has no unique index")
                if wrong:
                    raise SchemaConflict(
                        f"Schema {schema} has a table {table} of another shape "
                        f"({'; '.join(wrong[:3])}{'; …' if len(wrong) > 3 else ''}). It is left "
                        "untouched: set DB_SCHEMA to a schema of the crawler's own, or rename "
                        "that table."
                    )
            functions.make(cursor, schema)
    except psycopg2.errors.InsufficientPrivilege as error:
        raise DatabaseRefused(
            f"The tables in schema {schema} can't be made: {describe(error)}. Grant this role "
            "CREATE on the schema."
        ) from None
    except psycopg2.errors.LockNotAvailable:
        raise DatabaseRefused(
            f"Another transaction has been making or changing tables in schema {schema} for "
            f"{LOCK_TIMEOUT_MS // 1000} s: wait for it to end (pg_stat_activity names it), or end "
            "it, and run the crawl again."
        ) from None


def _check_owner(cursor: "Cursor", schema: str, table: str) -> None:
    """Raises SchemaConflict for another role's table: its triggers and policies would run as us."""
    cursor.execute(
        "SELECT pg_get_userbyid(relowner), current_user FROM pg_class "
        "WHERE oid = to_regclass(%s) AND pg_get_userbyid(relowner) <> current_user",
        (_qualified(schema, table),),
    )
    row = cursor.fetchone()
    if row is not None:
        raise SchemaConflict(
            f"The table {table} in schema {schema} belongs to the role {row[0]}, which could run "
            f"anything as {row[1]} by it. It is left untouched: set DB_SCHEMA to a schema of the "
            f"crawler's own, or, if {row[0]} is to be trusted, ALTER TABLE "
            f"{_qualified(schema, table)} OWNER TO {queries.quote_identifier(row[1])}."
        )


def check_column_types(connection: "Connection", schema: str) -> None:
    """Raises SchemaConflict for a column of another type: reading it could run its owner's cast.

    For connections that only read. Missing tables and columns are ignored.
    """
    with connection.cursor() as cursor:
        for table, statement in queries.load("schema", schema).items():
            found = _columns(cursor, schema, table)
            declared = _declared(statement)
            wrong = [
                name
                for name, (kind, _) in declared.items()
                if name in found and found[name][0] != kind
            ]
            if wrong:
                raise SchemaConflict(
                    f"Schema {schema} has a table {table} of another shape ({', '.join(wrong)}), "
                    "so it isn't the crawler's: check DB_SCHEMA."
                )


def _qualified(schema: str, table: str) -> str:
    return f"{queries.quote_identifier(schema)}.{queries.quote_identifier(table)}"


def _columns(cursor: "Cursor", schema: str, table: str) -> dict[str, tuple[str, bool]]:
    """Each column's type, and whether an INSERT that leaves it out fails."""
    cursor.execute(
        "SELECT attname, format_type(atttypid, atttypmod), "
        "       attnotnull AND NOT atthasdef AND attidentity = '' "
        "FROM pg_attribute "
        "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (_qualified(schema, table),),
    )
    return {name: (kind, needed) for name, kind, needed in cursor.fetchall()}


def _unique_keys(cursor: "Cursor", schema: str, table: str) -> list[set[str]]:
    """The columns of each unique index that is immediate and covers all rows."""
    cursor.execute(
        "SELECT array_agg(a.attname::text) FROM pg_index AS i "
        "JOIN pg_attribute AS a ON a.attrelid = i.indrelid "
        "     AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) "
        "WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indisvalid "
        "      AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL "
        "GROUP BY i.indexrelid",
        (_qualified(schema, table),),
    )
    return [set(columns) for (columns,) in cursor.fetchall()]


def _declaration(statement: str, column: str) -> str:
    """The line of ``schema.sql`` that declares *column*."""
    line = re.search(rf'^ {{4}}("?{column}"? .*?),?$', statement, flags=re.MULTILINE)
    assert line is not None
    return line[1]


def _declared(statement: str) -> dict[str, tuple[str, bool]]:
    """Columns as ``schema.sql`` declares them: type, and whether each row has a value."""
    columns = re.findall(r'^ {4}"?([a-z_]+)"? (\w+)(.*)', statement, flags=re.MULTILINE)
    types = {"timestamptz": "timestamp with time zone"}
    return {
        name: (types.get(kind, kind), "NOT NULL" in rest or "PRIMARY KEY" in rest)
        for name, kind, rest in columns
    }


def _declared_key(statement: str) -> set[str]:
    """The primary key's columns as ``schema.sql`` declares them."""
    whole = re.search(r"PRIMARY KEY \(([^)]*)\)", statement)
    if whole:
        return set(whole[1].split(", "))
    column = re.search(r'^ {4}"?([a-z_]+)"? .*PRIMARY KEY', statement, flags=re.MULTILINE)
    assert column is not None
    return {column[1]}


def _wrong_columns(
    wanted: dict[str, tuple[str, bool]], found: dict[str, tuple[str, bool]]
) -> list[str]:
    wrong = [
        f"{name} is {found[name][0] if name in found else 'missing'} instead of {kind}"
        for name, (kind, _) in wanted.items()
        if name not in found or found[name][0] != kind
    ]
    return wrong + [
        f"{name} must have a value, which not every row has"
        if name in wanted
        else f"{name} is not ours and must have a value"
        for name, (_, needed) in found.items()
        if needed and not (name in wanted and wanted[name][1])
    ]
