"""The named statements of ``store/sql``. Must not run them: `statements` does.

Files are read through importlib.resources, because under Scrapyd the package is a zipped egg.
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

    A statement begins at ``-- name: x``. Its comment lines are sent with it, so that the server's
    log shows what it is for. ``{schema}`` is replaced by the quoted *schema*, ``{chain}`` by
    chain.sql.
    A statement with placeholders is run with parameters, and its ``%`` are doubled for psycopg2; a
    statement without any is run without parameters.
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
