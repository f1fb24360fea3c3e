"""Offsets to indices, and pages out of chunks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from faults.truth import event_json
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.mockapi.sequence import EventSequence, Span
from datasync_crawler.mockapi.source import (
    GeneratedEvents,
    PageStore,
    RecordedEvents,
    read_recording,
)

if TYPE_CHECKING:
    from pathlib import Path

ORDERS = st.sampled_from(["oldest-first", "newest-first"])


def indices(spans: list[Span]) -> list[int]:
    found: list[int] = []
    for span in spans:
        run = list(range(span.first, span.first + span.count))
        found += reversed(run) if span.backwards else run
    return found


@given(order=ORDERS, grown=st.integers(0, 40), offset=st.integers(0, 80), limit=st.integers(0, 80))
def test_sequence_is_a_list(order: str, grown: int, offset: int, limit: int) -> None:
    """The pages of a set that has grown are those of a plain list."""
    sequence = EventSequence(30, order)
    sequence.grow(grown)
    model = list(range(30 + grown))
    if order == "newest-first":
        model.reverse()
    assert sequence.total == len(model)
    assert indices(sequence.spans(offset, limit)) == model[offset : offset + limit]


@given(order=ORDERS, offset=st.integers(0, 6100), limit=st.integers(0, 4000))
def test_page_is_its_events_one_by_one(order: str, offset: int, limit: int) -> None:
    """Any slice holds the same bytes as its events rendered alone, and caching changes nothing."""
    sequence = EventSequence(6000, order)
    store = PageStore(GeneratedEvents(1), 1_000_000)
    spans = sequence.spans(offset, limit)
    expected = [event_json(1, index) for index in indices(spans)]
    assert b"".join(store.pieces(spans)) == b",".join(expected)
    assert b"".join(store.pieces(spans)) == b",".join(expected)


def test_cache_stays_below_its_bound() -> None:
    """Reading through a large set keeps at most the bytes allowed, and one chunk at least."""
    store = PageStore(GeneratedEvents(1), 2_000_000)
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
    store = PageStore(RecordedEvents(events, newest_first=False), 1000)
    assert b"".join(store.pieces([Span(0, 2)])) == b",".join(events)


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
