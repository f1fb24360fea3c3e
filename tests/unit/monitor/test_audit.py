"""The audit: what differs is said with both values, and what no difference means."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from datasync_crawler.events.event import Event
from datasync_crawler.monitor.audit import Audit, differences, lines, meaning, rows_by_id

AT = datetime(2026, 1, 2, tzinfo=UTC)
ROW = ("a", "s", None, "click", "n", '{"x": 1.50, "y": [1]}', None, None, AT)


def served(**changes: Any) -> Event:
    values = {"session_id": "s", "type": "click", "name": "n", "timestamp": AT,
              "properties": msgspec.Raw(b'{"y":[1],"x":1.5}'), **changes}  # fmt: skip
    return Event("a", **values)


def test_json_is_compared_by_value() -> None:
    """Order of keys, blanks and trailing zeros are no difference."""
    assert differences(served(), rows_by_id([ROW])["a"]) == []


@pytest.mark.parametrize(
    ("change", "field", "both"),
    [
        ({"name": "m"}, "name", ("n", "m")),
        ({"properties": None}, "properties", (ROW[5], None)),
        ({"timestamp": AT.replace(day=3)}, "timestamp",
         ("2026-01-02T00:00:00+00:00", "2026-01-03T00:00:00+00:00")),
    ],
)  # fmt: skip
def test_what_differs_is_shown_with_both_values(
    change: dict[str, Any], field: str, both: tuple[str, str]
) -> None:
    """One line an event and field."""
    (found,) = differences(served(**change), rows_by_id([ROW])["a"])
    assert (found.event_id, found.field, (found.stored, found.served)) == ("a", field, both)
    audit = Audit()
    audit.add([served(**change)], rows_by_id([ROW]), 0)
    assert f"stored {both[0]!r}, served {both[1]!r}" in "\n".join(lines(audit))
    assert not audit.is_clean


@pytest.mark.parametrize(("pages", "one_in"), [(5, 2), (30, 10), (60, 20), (300, 100)])
def test_what_no_difference_means(pages: int, one_in: int) -> None:
    """The rule of three: with 95 % confidence fewer than 3 pages in so many differ."""
    audit = Audit(pages=pages, events=5000 * pages)
    assert f"fewer than 1 page in {one_in} does" in meaning(audit)
    assert "too few pages" in meaning(Audit(pages=4, events=20))


def test_an_event_that_isnt_stored_is_named() -> None:
    """It may have been added since."""
    audit = Audit()
    audit.add([served()], {}, 2)
    assert (audit.missing, audit.events, audit.rejected) == (1, 3, 2)
    assert "  a  isn't stored" in lines(audit)
    assert "1 of 1 pages differ" in lines(audit)[-1]
    assert "nothing is known" in meaning(Audit())


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000 + "]" * 100_000])
def test_json_that_python_cannot_read_is_compared(value: str) -> None:
    """A number of 5,000 digits, a hundred thousand levels: no traceback of the audit."""
    audit = Audit()
    audit.add([served(properties=msgspec.Raw(value.encode()))], rows_by_id([ROW]), 0)
    assert audit.differing == 1
