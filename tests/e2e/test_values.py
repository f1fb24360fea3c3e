"""Odd and bad events, end to end: what is stored, what is rejected, and why."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from crawling import crawl, stored_events
from faults.badevents import bad_event, make_plan
from faults.truth import truth
from mockserver import MockServer

if TYPE_CHECKING:
    from databases import Database
    from faults.badevents import BadEvent
    from faults.truth import Truth

EVENTS = 2000
EACH = 7


def expectation() -> tuple[dict[str, Truth], dict[int, BadEvent], Counter[str]]:
    """By the mock's own plan: rows, rejected events by position, fates of the odd ones."""
    plan = make_plan("all", EACH)
    rows: dict[str, Truth] = {}
    rejected: dict[int, BadEvent] = {}
    fates: Counter[str] = Counter()
    for index in range(EVENTS):
        odd = bad_event(plan, 1, index)
        fates[odd.outcome if odd else "good"] += 1
        if odd is not None and odd.outcome == "rejected":
            rejected[index] = odd
        else:
            one = truth(1, index) if odd is None else odd.truth
            assert one is not None
            rows.setdefault(one.id, one)
    return rows, rejected, fates


@pytest.mark.parametrize("zone", ["UTC", "America/St_Johns", "Asia/Kathmandu"])
def test_each_odd_event_meets_its_own_fate(database: Database, zone: str) -> None:
    """Every kind of bad event costs itself alone, under any time zone: the rest is exact."""
    rows, rejected, fates = expectation()
    name = database.params["dbname"]
    database.execute(f"ALTER DATABASE {name} SET timezone = '{zone}'")
    with MockServer("--events", str(EVENTS), "--fault", f"bad-events:each={EACH}") as mock:
        done = crawl(mock, database, "-s", "BULK_PAGE_SIZE=250", env={"TZ": zone})
    assert done.status == 0, done.log
    stored = stored_events(database)
    assert stored.keys() == rows.keys()
    altered = [(rows[key], stored[key]) for key in rows if rows[key] != stored[key]]
    assert not altered, altered[:2]
    found = database.execute('SELECT "position", page_offset, reason, raw FROM rejected_events')
    assert {row[0] for row in found} == rejected.keys()
    for position, page_offset, reason, raw in found:
        assert bytes(raw) == rejected[position].raw, reason
        first = 0 if position < 250 else 250 + (position - 250) // 249 * 249
        assert page_offset == first
        assert reason
    sums = database.execute(
        "SELECT sum(received), sum(inserted), sum(duplicates), sum(changed), sum(rejected) "
        "FROM checkpoint WHERE pass = 1"
    )
    twice = fates["duplicate"] + fates["changed"]
    assert sums == [(EVENTS, len(rows), twice, fates["changed"], len(rejected))]


def test_numbers_and_added_fields_stay_exact(database: Database) -> None:
    """A 30-digit integer comes back digit by digit; fields that the API added are in `extra`."""
    kinds = "big-integer+extra-fields"
    plan = make_plan(kinds, 10)
    with MockServer("--events", "200", "--fault", f"bad-events:kind={kinds},each=10") as mock:
        done = crawl(mock, database)
    assert done.status == 0, done.log
    big = bad_event(plan, 1, 9)
    extra = bad_event(plan, 1, 19)
    assert big is not None
    assert extra is not None
    served = json.loads(big.raw)
    text = database.value("SELECT properties::text FROM events WHERE id = %s", (served["id"],))
    assert json.loads(text) == served["properties"]
    served = json.loads(extra.raw)
    known = {"id", "sessionId", "userId", "type", "name", "properties", "timestamp", "session"}
    kept = database.value("SELECT extra FROM events WHERE id = %s", (served["id"],))
    assert kept == {name: value for name, value in served.items() if name not in known}
    assert database.value("SELECT count(*) FROM events WHERE extra IS NOT NULL") == 10
