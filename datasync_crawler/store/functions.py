"""The crawler's functions: made when missing, replaced when they differ from ``sql/functions.sql``.

Must not call them, nor replace a function of another role.
"""

import re
from typing import TYPE_CHECKING, Final

from datasync_crawler.errors import SchemaConflict
from datasync_crawler.store import queries

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

_FOUND: Final = (
    "SELECT p.oid::regprocedure::text, p.prosrc, p.proconfig, p.prosecdef, "
    "       p.proowner = u.oid OR r.rolsuper, r.rolname, u.rolname "
    "FROM pg_proc AS p JOIN pg_roles AS r ON r.oid = p.proowner "
    "CROSS JOIN pg_roles AS u "
    "WHERE p.pronamespace = to_regnamespace(%s) AND p.proname = %s AND u.rolname = current_user"
)


def make(cursor: "Cursor", schema: str) -> None:
    """Makes what is missing or differs; writes nothing when all is there.

    A function runs with its caller's rights, so only the caller or a superuser, who has all
    rights, may own it. Raises SchemaConflict for another owner, and psycopg2.Error.
    """
    for name, statement in queries.load("functions", schema).items():
        cursor.execute(_FOUND, (queries.quote_identifier(schema), name))
        found = cursor.fetchall()
        for signature, _, _, _, may_own, owner, role in found:
            if not may_own:
                raise SchemaConflict(
                    f"The function {signature} belongs to the role {owner}, which could run "
                    f"anything as {role} by it. It is left untouched: set DB_SCHEMA to a schema of "
                    f"the crawler's own, or, if {owner} is to be trusted, ALTER FUNCTION "
                    f"{signature} OWNER TO {queries.quote_identifier(role)}."
                )
        wanted = [(_body(statement), ["search_path=pg_catalog, pg_temp"], False)]
        if [row[1:4] for row in found] != wanted:
            for signature, *_ in found:
                cursor.execute(f"DROP FUNCTION {signature}")
            cursor.execute(statement)


def _body(statement: str) -> str:
    """The text between the dollar quotes, as ``pg_proc.prosrc`` holds it."""
    body = re.search(r"(\$\w+\$)(.*)\1", statement, flags=re.DOTALL)
    assert body is not None
    return body[2]
