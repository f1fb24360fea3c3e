"""The table `events` in partitions, as docs/scale.md makes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from databases import Database

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "scale.md"


def documented_sql() -> str:
    """The statements between the document's marks."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(r"<!-- partitions: begin -->\n```sql\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def make_partitions(database: Database) -> None:
    """Makes the table in `public`."""
    database.execute(documented_sql())
