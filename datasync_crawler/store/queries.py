"""Loads the named statements of ``store/sql``. Must not run them.

Package data is read through importlib.resources: under Scrapyd the package is an egg.
"""

import re
from functools import cache
from importlib.resources import files


def quote_identifier(name: str) -> str:
    """A name as PostgreSQL quotes it (SQL standard, 5.2 delimited identifier)."""
    return '"' + name.replace('"', '""') + '"'


@cache
def load(file: str, schema: str) -> dict[str, str]:
    """Statements of ``sql/<file>.sql`` by their name, in the file's order.

    A statement begins at ``-- name: x``; its comment lines stay with it, so that a server's log
    says what it is. ``{schema}`` is replaced by the quoted *schema*, ``{chain}`` by chain.sql.
    A statement that holds a placeholder is run with parameters (its ``%`` are doubled, as psycopg2
    wants it), one that holds none is run without.
    """
    quoted = quote_identifier(schema)
    chain = _statements("chain")["chain"]
    return {
        name: body.replace("{schema}", quoted.replace("%", "%%") if "%" in body else quoted)
        for name, body in (
            (name, body.replace("{chain}", chain)) for name, body in _statements(file).items()
        )
    }


def _statements(file: str) -> dict[str, str]:
    text = files("datasync_crawler.store").joinpath("sql", f"{file}.sql").read_text("utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}
