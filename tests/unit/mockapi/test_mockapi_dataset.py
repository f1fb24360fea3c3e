"""The generated data set against its own truth and against the recorded page."""

from __future__ import annotations

import gzip
import json
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from faults.truth import event_json, truth, truths
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.mockapi import dataset

SAMPLE = range(3 * dataset.BLOCK_EVENTS)


def instant_us(value: object) -> int:
    """Read the four formats of the API with the standard library alone."""
    if isinstance(value, int):
        return value * (1000 if value > 10**11 else 1_000_000)
    assert isinstance(value, str)
    moment = datetime.fromisoformat(value)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def test_bytes_say_what_truth_says() -> None:
    """Every event's bytes, read independently, hold exactly what truth promises."""
    for index in SAMPLE:
        event = json.loads(event_json(7, index))
        true = truth(7, index)
        assert list(event) == [
            *("id", "sessionId", "userId", "type", "name", "properties", "timestamp", "session")
        ]
        assert event["id"] == true.id
        assert event["sessionId"] == true.session_id
        assert event["userId"] == true.user_id
        assert event["type"] == true.type
        assert event["name"] == true.name
        assert event["properties"] == true.properties
        assert event["session"] == true.session
        assert instant_us(event["timestamp"]) == true.instant_us


@given(seed=st.integers(0, 2**40), index=st.integers(-12_000_000, 10**9))
def test_any_index_is_had_alone(seed: int, index: int) -> None:
    """An event far out is the same as in its block, and is a version 4 UUID."""
    true = truth(seed, index)
    assert json.loads(event_json(seed, index))["id"] == true.id
    assert uuid.UUID(true.id).version == 4
    assert list(truths(seed, index, index + 1)) == [true]


def test_ids_are_unique_and_depend_on_the_seed() -> None:
    """No id comes twice in two data sets of 60,000 events each."""
    ids = {
        event_id
        for seed in (1, 2)
        for block in range(50)
        for event_id in dataset.plan(seed, block).ids
    }
    assert len(ids) == 2 * 50 * dataset.BLOCK_EVENTS


def test_instants_rise_with_the_index() -> None:
    """A higher index is a later event, also by the instants that the coarse formats keep."""
    instants = [true.instant_us for true in truths(3, 0, SAMPLE.stop)]
    assert all(early < late for early, late in pairwise(instants))


def _recorded() -> list[dict[str, Any]]:
    for folder in Path(__file__).resolve().parents:
        for place in (folder, folder / "shared"):
            path = place / "data" / "recorded-events-page.json.gz"
            if path.exists():
                events: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))[
                    "data"
                ]
                return events
    pytest.skip("the recorded page is not here")


def test_looks_like_the_recorded_page() -> None:
    """Sizes, fields, formats and the mix of types are those of the real service."""
    recorded = _recorded()
    made = [json.loads(event_json(1, index)) for index in range(6000)]
    sizes = [len(event_json(1, index)) for index in range(6000)]
    assert min(sizes) >= 332 - 3  # seconds alone are three digits shorter
    assert max(sizes) <= 355
    assert sum(sizes) / len(sizes) == pytest.approx(345.4, abs=2)
    assert [list(made[0]), list(made[0]["session"])] == [
        *(list(recorded[0]), list(recorded[0]["session"]))
    ]
    types_made = Counter(event["type"] for event in made)
    types_recorded = Counter(event["type"] for event in recorded)
    assert types_made.keys() == types_recorded.keys()
    for name, count in types_recorded.items():
        assert types_made[name] / len(made) == pytest.approx(count / len(recorded), abs=0.02)
    assert [type(event["timestamp"]) for event in made[:3]] == [
        type(event["timestamp"]) for event in recorded[:3]
    ]


def test_all_four_formats_are_there() -> None:
    """The set mixes ISO with milliseconds, Unix ms, Unix s and ISO with a space."""
    seen = Counter()
    for index in range(1200):
        value = json.loads(event_json(1, index))["timestamp"]
        if isinstance(value, int):
            seen["ms" if value > 10**11 else "s"] += 1
        else:
            seen["space" if " " in value else "iso"] += 1
    assert set(seen) == {"ms", "s", "space", "iso"}
    assert min(seen.values()) >= 100


def test_sessions_are_shared_by_neighbours() -> None:
    """Neighbours share sessions, and a session has one user."""
    true = list(truths(1, 0, 1200))
    users = {one.session_id: one.user_id for one in true}
    assert len(users) <= dataset.SESSIONS_PER_BLOCK + 2
    assert all(users[one.session_id] == one.user_id for one in true)
    assert len({one.session_id for one in true[:40]}) <= 5
