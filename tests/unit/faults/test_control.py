"""The control endpoints, by which a test looks into a mock that runs and changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from inprocess import InProcess

    Start = Callable[..., InProcess]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:80", "Origin": "http://[::1]:80"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
    ],
)
def test_control_is_not_for_web_pages(mock: Start, headers: dict[str, str], status: int) -> None:
    """A page that a browser on this machine shows can't stop a test's API, nor read of it."""
    running = mock()
    answer = running.request("POST", "/__mock__/config", headers, "{}")
    assert answer.status == status
    assert running.request("GET", "/__mock__/stats", headers).status == status


def test_control_refuses_nonsense(mock: Start) -> None:
    """What can't be changed or isn't known is refused with a sentence, and nothing is changed."""
    api = mock()
    for changes in (
        {"seed": 2}, {"plugin": ["x"]}, {"nonsense": 1}, {"events": "many"}, {"fault": ["nope"]},
        {"grow": -1}, {"insert": [1]}, {"order": "sideways"}, {"rate_window": 0}, {"bulk": 1},
        {"api_key": None}, {"fault": [1]}, {"latency_ms": True}, {"events": True},
    ):  # fmt: skip
        refused = api.config(**changes)
        assert refused.status == 400, changes
        assert refused.json()["error"]
    assert api.request("POST", "/__mock__/config", {}, "[]").status == 400
    assert api.request("GET", "/__mock__/nothing", {}).status == 404
    assert api.stats()["total"] == 3000


def test_stats_tell_what_was_served(mock: Start) -> None:
    """Every request is an entry with offset, limit, status, count and fault; the key is in none."""
    api = mock(fault=("html:offset=500",), api_key="secret-canary")
    key = {"X-API-Key": "secret-canary"}
    api.get(headers=key, offset=0, limit=100)
    api.get(headers=key, offset=500, limit=100)
    api.get(headers=key, limit=1)
    api.get(headers={}, api_key="secret-canary", limit=1)
    stats = api.stats()
    entries = stats["entries"]
    assert "secret-canary" not in str(stats)
    assert [(one["number"], one["offset"], one["limit"]) for one in entries] == [
        (1, 0, 100), (2, 500, 100), (3, None, 1), (4, None, 1),
    ]  # fmt: skip
    assert [one["status"] for one in entries] == [200, 200, 200, 401]
    assert [one["returned"] for one in entries] == [100, None, 1, None]
    assert [one["faults"] for one in entries] == [[], ["html"], [], []]
    assert stats["by_status"] == {"200": 3, "401": 1}
    assert (stats["pages"], stats["events_served"]) == (2, 101)
    assert stats["struck"] == {"html:offset=500": 1}
