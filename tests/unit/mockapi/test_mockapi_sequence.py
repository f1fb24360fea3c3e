"""Offsets to indices, and pages out of chunks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.mockapi import dataset
from datasync_crawler.mockapi.sequence import EventSequence, Order, Span
from datasync_crawler.mockapi.source import (
    GeneratedEvents,
    PageStore,
    ReplayedEvents,
    read_recording,
)

if TYPE_CHECKING:
    from pathlib import Path

ORDERS = st.sampled_from(["oldest-first", "newest-first"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["grow", "insert", "delete", "resize"]),
        st.integers(0, 40),
        st.integers(0, 9),
    ),
    max_size=12,
)


def indices(spans: list[Span]) -> list[int]:
    found: list[int] = []
    for span in spans:
        run = list(range(span.first, span.first + span.count))
        found += reversed(run) if span.backwards else run
    return found


@given(order=ORDERS, steps=STEPS, offset=st.integers(0, 60), limit=st.integers(0, 60))
def test_sequence_is_a_list(
    order: Order, steps: list[tuple[str, int, int]], offset: int, limit: int
) -> None:
    """Whatever happens to the set, its pages are those of a plain list with the same fate."""
    sequence, model = EventSequence(30, order), list(range(30))
    if order == "newest-first":
        model.reverse()
    ends = {"oldest-first": len, "newest-first": lambda _: 0}[order]
    for step, place, count in steps:
        whole = indices(sequence.spans(0, 10**6))
        if step == "grow":
            sequence.grow(count)
            new = [one for one in indices(sequence.spans(0, 10**6)) if one not in whole]
            assert len(new) == count
            model[ends(model) : ends(model)] = new
        elif step == "insert":
            at = min(place, len(model))
            sequence.insert(at, count)
            model[at:at] = indices(sequence.spans(at, count))
        elif step == "delete":
            sequence.delete(place, count)
            del model[place : place + count]
        else:
            sequence.resize(min(place, len(model)))
            cut = len(model) - min(place, len(model))
            model = model[cut:] if order == "newest-first" else model[: len(model) - cut]
    assert indices(sequence.spans(0, 10**6)) == model
    assert len(set(model)) == len(model) == sequence.total
    assert indices(sequence.spans(offset, limit)) == model[offset : offset + limit]


@given(order=ORDERS, offset=st.integers(0, 6100), limit=st.integers(0, 4000))
def test_page_is_its_events_one_by_one(order: Order, offset: int, limit: int) -> None:
    """Any slice holds the same bytes as its events rendered alone, and caching changes nothing."""
    sequence = EventSequence(6000, order)
    sequence.insert(2500, 7)
    store = PageStore(GeneratedEvents(1, "mixed"), 1_000_000)
    spans = sequence.spans(offset, limit)
    expected = [dataset.event_json(1, index) for index in indices(spans)]
    assert b"".join(store.pieces(spans)) == b",".join(expected)
    assert b"".join(store.pieces(spans)) == b",".join(expected)
    assert store.events(spans) == expected


def test_cache_stays_below_its_bound() -> None:
    """Reading through a large set keeps at most the bytes allowed, and one chunk at least."""
    store = PageStore(GeneratedEvents(1, "mixed"), 2_000_000)
    for first in range(0, 60_000, 1200):
        store.pieces([Span(first, 1200)])
        assert store._held_bytes <= 2_000_000
    assert store._held_bytes == sum(len(chunk.body) for chunk in store._chunks.values())


@pytest.mark.parametrize(
    "text", ['[{"id":"é"}, {"id": 2}]', '{"x":[1],"data": [{"id":"é"} ,{"id": 2}],"m":1}']
)
def test_recording_keeps_its_bytes(tmp_path: Path, text: str) -> None:
    """Each event of a recording is cut out byte by byte, in both shapes."""
    path = tmp_path / "page.json"
    path.write_text(text, encoding="utf-8")
    events = read_recording(path)
    assert events == ['{"id":"é"}'.encode(), b'{"id": 2}']
    store = PageStore(ReplayedEvents(events, newest_first=False), 1000)
    assert b"".join(store.pieces([Span(0, 2)])) == b",".join(events)
    assert store.source.sort_key(1) == ("2", 1)


@pytest.mark.parametrize("text", ["", "null", "{}", '{"data":{}}', '{"data":[1', "<html>"])
def test_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    """A file without a list of events is refused with a sentence."""
    path = tmp_path / "page.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="holds no recorded response"):
        read_recording(path)


def test_empty_recording_is_a_recording(tmp_path: Path) -> None:
    """A recorded page without events holds none."""
    path = tmp_path / "page.json"
    path.write_text(json.dumps({"data": []}), encoding="utf-8")
    assert read_recording(path) == []
