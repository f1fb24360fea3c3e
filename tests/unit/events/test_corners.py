"""Corners of the values that whole pages seldom reach."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_report import GOOD

from datasync_crawler.api import secrets
from datasync_crawler.events import fields, scan
from datasync_crawler.events.paths import dig
from datasync_crawler.monitor import report


def test_no_path_leads_nowhere() -> None:
    """A body that is the list itself holds no facts."""
    assert dig({"a": 1}, ()) is None


def test_a_nested_timestamp_is_no_instant() -> None:
    """It is kept out of memory, and is rejected when timestamps are normalised."""
    event = fields.read(b'{"id":"a","timestamp":{"s":1},"more":2}')
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


def test_a_secret_at_the_very_end_is_taken_out() -> None:
    """Whole or cut."""
    assert secrets._without_beginning("abcdefgh", "key abcdefgh", "*") == "key *"
    assert secrets.without("abcdefgh", "key abcdef", "*") == "key *"


@pytest.mark.parametrize(
    ("method", "said"), [("cursor", "none: read by cursor"), ("counts", "none: counted")]
)
def test_a_proof_without_seams_says_what_took_their_place(method: str, said: str) -> None:
    """By cursor the API's own chain, by numbered pages the count."""
    assert GOOD.proof is not None
    figures = replace(GOOD, seams={}, proof=replace(GOOD.proof, method=method))
    assert f"seams             {said}" in report.proof_lines(figures)
