"""Bad and odd events: their bytes and their fate."""

from __future__ import annotations

import json

import pytest
from faults import badevents
from faults.truth import event_json, truth

from datasync_crawler.mockapi import dataset


@pytest.mark.parametrize("kind", badevents.KINDS)
def test_each_kind_stands_at_its_index(kind: str) -> None:
    """An overlaid block holds the bad events at the planned indices, and good ones elsewhere."""
    plan = badevents.make_plan(kind, 7)
    source = badevents.BadSource(1, plan)
    for number in (0, 5):
        events = source.block(number)
        for position, raw in enumerate(events):
            index = number * dataset.BLOCK_EVENTS + position
            bad = badevents.bad_event(plan, 1, index)
            assert (bad is not None) == (index % 7 == 6)
            assert raw == (bad.raw if bad else event_json(1, index))


@pytest.mark.parametrize(
    "kind", [kind for kind, (outcome, _) in badevents.KINDS.items() if outcome == "stored"]
)
def test_odd_events_are_valid_and_tell_what_is_stored(kind: str) -> None:
    """An event that must be stored is valid JSON, and its truth is what its bytes say."""
    bad = badevents.bad_event(badevents.make_plan(kind, 2), 1, 41)
    assert bad is not None
    event = json.loads(bad.raw)
    true = bad.truth
    assert bad.outcome == "stored"
    assert true is not None
    assert str(event["id"]) == true.id
    assert event.get("properties") == true.properties
    assert event.get("session") == true.session
    name = event.get("name")
    assert (None if name is None else str(name)) == true.name
    known = {"id", "sessionId", "userId", "type", "name", "properties", "timestamp", "session"}
    assert ({key: event[key] for key in event.keys() - known} or None) == true.extra


@pytest.mark.parametrize("kind", badevents.KINDS)
def test_fates(kind: str) -> None:
    """A rejected event has no truth; a duplicate's truth is that of the event before it."""
    bad = badevents.bad_event(badevents.make_plan(kind, 2), 1, 41)
    assert bad is not None
    if bad.outcome == "rejected":
        assert bad.truth is None
    if bad.outcome in ("duplicate", "changed"):
        assert bad.truth == truth(1, 40)
        assert json.loads(bad.raw)["id"] == truth(1, 40).id
        assert (bad.raw == event_json(1, 40)) == (bad.outcome == "duplicate")


def test_instants_of_odd_timestamps() -> None:
    """Odd but readable timestamps keep their microseconds."""
    plain = truth(1, 41).instant_us
    for kind in badevents.KINDS:
        bad = badevents.bad_event(badevents.make_plan(kind, 2), 1, 41)
        assert bad is not None
        if kind.startswith("timestamp-") and bad.truth is not None:
            assert bad.truth.instant_us == plain + 123
    shifted = badevents.bad_event(badevents.make_plan("timestamp-offset", 2), 1, 41)
    zulu = badevents.bad_event(badevents.make_plan("timestamp-iso-us", 2), 1, 41)
    assert shifted is not None
    assert zulu is not None
    assert "+02:00" in json.loads(shifted.raw)["timestamp"]
    assert shifted.raw != zulu.raw


def test_all_takes_the_kinds_in_turn() -> None:
    """`all` puts one kind after the other."""
    plan = badevents.make_plan("all", 10)
    found = [plan.kind_at(10 * place + 9) for place in range(2 * len(badevents.KINDS))]
    assert found == list(badevents.KINDS) * 2
    assert badevents.make_plan("no-id+nan", 10).kind_at(19) == "nan"
