"""What is remembered of limits: one row a key, ages and the pause by the database's own clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from datasync_crawler.errors import CrawlError
from datasync_crawler.store.rate_limits import LimitMemory, Remembered, keep_pause
from datasync_crawler.store.targets import ServerTarget

if TYPE_CHECKING:
    from databases import Database
    from rooms import Room

KEY = "kanarienvogel"


def test_what_was_learned_comes_back_with_its_age(room: Room) -> None:
    """How long ago it was written and how long the pause still lasts, of this key alone."""
    memory = LimitMemory(room.connector, "public", KEY)
    assert memory.recall() == Remembered()
    memory.remember({"limit": 4}, paused_for_s=100)
    room.query("UPDATE rate_limits SET updated_at = updated_at - interval '1 min', "
               "paused_until = paused_until - interval '1 min'")  # fmt: skip
    said = memory.recall()
    assert said.learned == {"limit": 4}
    assert 60 <= said.age_s < 70
    assert 30 < said.paused_for_s <= 40
    assert LimitMemory(room.connector, "public", "another").recall() == Remembered()
    assert KEY not in str(room.query("SELECT * FROM rate_limits"))


def test_a_command_waits_for_a_short_pause_and_refuses_a_long_one(room: Room) -> None:
    """Up to a minute; a longer one is told with its end."""
    target, slept = ServerTarget(dict(room.database.params)), []
    memory = LimitMemory(room.connector, "public", KEY)
    keep_pause(target, "public", KEY, sleep=slept.append)
    memory.remember({}, paused_for_s=0)
    keep_pause(target, "public", KEY, sleep=slept.append)
    assert slept == []
    memory.remember({}, paused_for_s=40)
    keep_pause(target, "public", KEY, sleep=slept.append)
    assert [30 < pause_s <= 40 for pause_s in slept] == [True]
    memory.remember({}, paused_for_s=500)
    with pytest.raises(CrawlError, match=r"asks for a pause of \d+ s\. Run the same command"):
        keep_pause(target, "public", KEY, sleep=slept.append)


def test_a_schema_without_tables_has_no_pause(database: Database) -> None:
    """A command before the first crawl: what is missing is for it to say."""
    keep_pause(ServerTarget(dict(database.params)), "public", KEY, sleep=pytest.fail)
