"""Corners of the values that whole pages seldom reach."""

from __future__ import annotations

import pytest

from datasync_crawler.events import fields, scan
from datasync_crawler.events.paths import dig


def test_no_path_leads_nowhere() -> None:
    """A body that is the list itself holds no facts."""
    assert dig({"a": 1}, ()) is None


def test_a_nested_timestamp_is_no_instant() -> None:
    """It is kept out of memory, and is rejected when timestamps are normalised."""
    event = fields.Reader(fields.Names()).read(b'{"id":"a","timestamp":{"s":1},"more":2}')
    assert not isinstance(event, str)
    assert event.timestamp == ()


@pytest.mark.parametrize(
    ("served", "fits"), [(b"[1,2]", True), (b'{"a":1,"b":2}', False), (b'{"a" 1}', True)]
)
def test_fields_are_counted_in_objects_alone(served: bytes, *, fits: bool) -> None:
    """What is no object, or malformed, is somebody else's business."""
    assert scan.has_at_most(served, 1) is fits


def test_an_object_without_the_list_has_nothing_to_count() -> None:
    """Whatever else stands in it."""
    assert scan._count(b'{"other":[1,2]}', 0, ("data",), 5) is None
    assert scan._count(b"[1,2]", 0, ("data",), 5) is None
    assert scan.count(b"[1,2,3,4]", (), 2) == 3  # one more than asked about, however many there are
