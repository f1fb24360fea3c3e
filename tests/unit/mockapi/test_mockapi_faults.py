"""The schedule of faults, and the few that come with the mock."""

from __future__ import annotations

import http.client
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from faults.truth import truths
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.mockapi.faults import When, load_plugins, parse_fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from inprocess import Answer, InProcess

    Start = Callable[..., InProcess]

BUILT_IN = ("429", "500", "503", "reset-mid", "cut-length", "short-page", "growing")


def struck(start: Start, spec: str) -> Answer:
    """Ask for one page under one fault."""
    api = start(fault=(spec,))
    return api.get(offset=1000, limit=500)


def test_statuses(mock: Start) -> None:
    """Error statuses come as such, with Retry-After where the fault has one."""
    assert struck(mock, "500:start=1").status == 500
    assert "Retry-After" not in struck(mock, "503:start=1").headers
    assert struck(mock, "503:start=1,retry_after=3").headers["Retry-After"] == "3"
    refused = struck(mock, "429:start=1,retry_after=7")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "7")
    assert refused.json()["rateLimit"]["retryAfter"] == 7


def test_connections_end_in_mid_body(mock: Start) -> None:
    """A reset connection, and a body that ends before its Content-Length."""
    with pytest.raises(ConnectionResetError):
        struck(mock, "reset-mid:start=1")
    with pytest.raises(http.client.IncompleteRead):
        struck(mock, "cut-length:start=1")


def test_a_page_is_short_and_the_set_grows(mock: Start) -> None:
    """Half a page is served as a page; growth happens before the page is cut."""
    page = struck(mock, "short-page:keep=0.1,start=1").json()
    assert [one["id"] for one in page["data"]] == [one.id for one in truths(1, 1000, 1050)]
    assert page["pagination"]["hasMore"] is True
    assert struck(mock, "growing:by=5,start=1").json()["meta"]["total"] == 3005


def test_schedule_by_request_number(mock: Start) -> None:
    """`every`, `burst` and `times` count requests; a changed list keeps what was counted."""
    api = mock(fault=("503:every=3,burst=2,times=3",))
    assert [api.get(limit=1).status for _ in range(8)] == [200, 200, 503, 503, 200, 503, 200, 200]
    api.config(fault=["503:every=3,burst=2,times=3", "growing"])
    assert [api.get(limit=1).status for _ in range(3)] == [200, 200, 200]


@given(every=st.integers(1, 9), burst=st.integers(1, 9), start=st.integers(1, 20))
def test_schedule_counts_from_the_start(every: int, burst: int, start: int) -> None:
    """From the start on, `burst` of each `every` requests are struck, and none before."""
    asked = range(10)
    when = When(every=every, burst=burst, start=start)
    hits = [number for number in range(1, start + every) if when.strikes(number, asked)]
    assert hits == list(range(start, start + min(every, burst)))
    assert When(every=every, start=start).strikes(start + every, asked)
    assert When(offset=9).strikes(1, asked)
    assert not When(offset=10).strikes(1, asked)


@pytest.mark.parametrize(
    "spec",
    ["nope", "503:nope=1", "short-page:keep=much", "503:every=0", "503:burst=0", "503:every=x"],
)
def test_a_wrong_fault_is_refused(spec: str) -> None:
    """An unknown fault, key or value is refused with a sentence."""
    with pytest.raises(ValueError, match=r"\w+"):
        parse_fault(spec)


def test_a_plugin_that_is_missing_is_refused() -> None:
    """The sentence names the module and what to look at."""
    with pytest.raises(ValueError, match=r"no_such_module.*PYTHONPATH"):
        load_plugins(["no_such_module"])


def test_a_handful_comes_with_the_mock() -> None:
    """Without plug-ins the list names those that a user tries out, each with a sentence."""
    probe = "from datasync_crawler.mockapi import faults; print(faults.fault_list())"
    listed = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    ).stdout
    lines = dict(line.split(maxsplit=1) for line in listed.splitlines())
    assert tuple(lines) == BUILT_IN
    assert all(text.strip() for text in lines.values())
