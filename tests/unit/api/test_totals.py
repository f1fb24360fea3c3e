"""The total that a response states, wherever it stands."""

from __future__ import annotations

import pytest

from datasync_crawler.api.totals import read_total


@pytest.mark.parametrize(
    ("header", "in_body", "total"),
    [("", None, None), ("", 5, 5), (" 42 ", None, 42), ("3", 5, 5), ("7", 5, 7), ("0", None, 0)],
)
def test_the_larger_of_header_and_body(header: str, in_body: int | None, total: int | None) -> None:
    """Either may be stale or missing; none is no total, which isn't 0."""
    assert read_total(header, in_body) == (total, None)


@pytest.mark.parametrize("header", ["-1", "1.5", "many", "9" * 16, "٣"])
def test_a_header_that_is_no_whole_number_is_named(header: str) -> None:
    """The body's total counts then."""
    assert read_total(header, 5) == (5, "the header X-Total-Count isn't a whole number")
