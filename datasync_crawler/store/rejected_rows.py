"""The search for rows that PostgreSQL can't store: NUL, invalid UTF-8, huge numbers, long ids.

Stores nothing: the writer writes the other rows afterwards.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import psycopg2
from psycopg2 import errorcodes

from datasync_crawler.events import copyrows
from datasync_crawler.events.event import Event

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

#: Bytes handed to libpq at once. psycopg2's default of 8 KiB takes the GIL 200 times per page.
COPY_BUFFER_BYTES: Final = 1 << 20
#: Rows tried at once. A COPY is sent whole even when its first row fails.
PROBE_ROWS: Final = 500


def copy_in(cursor: "Cursor", statement: str, rows: bytes) -> None:
    """Runs a COPY … FROM STDIN with *rows*."""
    cursor.copy_expert(statement, io.BytesIO(rows), COPY_BUFFER_BYTES)


def is_caused_by_row(error: psycopg2.Error) -> bool:
    """Whether a row caused it: class 22 (data exception) or 54 (program limit exceeded)."""
    return (error.pgcode or "")[:2] in {"22", "54"}


def find_unstorable(
    connection: "Connection", statements: Mapping[str, str], events: Sequence[Event]
) -> list[tuple[int, str]]:
    """Places in *events* that PostgreSQL refuses, each with the reason.

    *statements* are those of ``events.sql``. The rows are split at the line that COPY names, or
    in half, until each refused row has been tried alone. 200 of 5,000 take half a second.
    Raises any psycopg2.Error that no row caused.
    """
    refused: dict[int, str] = {}
    rows: list[tuple[int, bytes]] = []
    for place, event in enumerate(events):
        try:
            rows.append((place, copyrows.encode([event], prefix=b"0\t")))
        except UnicodeEncodeError:  # a lone surrogate can't even be sent
            refused[place] = "PostgreSQL refuses it: not valid Unicode"
    with connection.cursor() as cursor:
        cursor.execute(statements["make_incoming"])
        cursor.execute(statements["index_incoming"])
        todo = [rows[first : first + PROBE_ROWS] for first in range(0, len(rows), PROBE_ROWS)]
        while todo:
            part = todo.pop()
            problem = _try(cursor, statements, [row for _, row in part])
            if problem is None:
                continue
            if len(part) == 1:
                refused[part[0][0]] = _reason(problem)
                continue
            line = _line(problem)
            if line is not None and line < len(part):
                todo += [part[line + 1 :], part[:line], part[line : line + 1]]
            else:
                todo += [part[len(part) // 2 :], part[: len(part) // 2]]
    connection.rollback()
    return sorted(refused.items())


def _try(
    cursor: "Cursor", statements: Mapping[str, str], rows: Sequence[bytes]
) -> psycopg2.Error | None:
    if not rows:
        return None
    refusal = None
    cursor.execute("SAVEPOINT probe")
    try:
        # The merge also finds ids too long for the index (54000), and duplicate keys don't fail it.
        copy_in(cursor, statements["copy_incoming"], b"".join(rows))
        cursor.execute(statements["merge_keep"])
    except psycopg2.Error as error:
        if not is_caused_by_row(error):
            raise
        refusal = error
    cursor.execute("ROLLBACK TO SAVEPOINT probe")
    return refusal


def _reason(error: psycopg2.Error) -> str:
    """The reason without the server's message, which holds values and may not be English."""
    code = error.pgcode or ""
    try:
        name = errorcodes.lookup(code).lower().replace("_", " ")
    except KeyError:
        name = "error"
    return f"PostgreSQL refuses it: {name} ({code})"


def _line(error: psycopg2.Error) -> int | None:
    """The row that COPY failed at, from 0. A guess, because the message may not be English."""
    said = re.search(r"incoming\D+(\d+)", error.diag.context or "")
    return int(said[1]) - 1 if said and int(said[1]) > 0 else None
