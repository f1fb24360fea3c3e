"""What these tests share: the tables, in a database of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rooms import Room

if TYPE_CHECKING:
    from collections.abc import Iterator

    from databases import Database


@pytest.fixture
def room(database: Database) -> Iterator[Room]:
    """The tables in an empty database, and the connections that the test makes."""
    room = Room(database)
    yield room
    room.close()
