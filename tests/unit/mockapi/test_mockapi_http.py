"""The API over real HTTP: endpoints, keys, limits."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest
from faults.truth import truths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inprocess import InProcess

    Start = Callable[..., InProcess]


def ids(first: int, stop: int) -> list[str]:
    return [true.id for true in truths(1, first, stop)]


def test_bulk_pages_are_the_data_set(mock: Start) -> None:
    """Offset and limit give those events, with total, limit and count said beside them."""
    api = mock()
    answer = api.get(offset=1195, limit=10)
    body = answer.json()
    assert answer.status == 200
    assert answer.headers["X-Total-Count"] == "3000"
    assert [event["id"] for event in body["data"]] == ids(1195, 1205)
    assert body["pagination"]["limit"] == 10
    assert body["pagination"]["hasMore"] is True
    assert body["meta"]["total"] == 3000
    assert body["meta"]["returned"] == 10
    assert len(body["meta"]["requestId"]) == 36
    last = api.get(offset=2995, limit=10).json()
    assert [event["id"] for event in last["data"]] == ids(2995, 3000)
    assert last["pagination"] == {"limit": 10, "hasMore": False}
    assert api.get(offset=3000, limit=10).json()["data"] == []


def test_newest_first_grows_in_front(mock: Start) -> None:
    """In newest-first order offset 0 is the newest event, and new ones push the others back."""
    api = mock(order="newest-first")
    assert [one["id"] for one in api.get(limit=3).json()["data"]] == ids(2997, 3000)[::-1]
    api.config(grow=2)
    assert [one["id"] for one in api.get(limit=3).json()["data"]] == ids(2999, 3002)[::-1]
    assert api.stats()["total"] == 3002


def test_limit_is_capped_silently_or_refused(mock: Start) -> None:
    """A limit above the cap is cut and the one used echoed; on demand it is a 400."""
    api = mock(max_limit=100)
    body = api.get(limit=5000).json()
    assert len(body["data"]) == body["pagination"]["limit"] == 100
    api.config(over_limit="error")
    assert api.get(limit=5000).status == 400
    assert api.get(limit=100).status == 200


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": "x"}, {"offset": -1}, {"offset": "x"}])
def test_nonsense_is_refused(mock: Start, query: dict[str, object]) -> None:
    """An offset or limit that can't be is a 400."""
    assert mock().get(**query).status == 400


def test_cursor_walks_through_newest_first(mock: Start) -> None:
    """The regular endpoint, cursor by cursor, gives each event once, though the set grows."""
    api = mock(events=50)
    seen: list[str] = []
    query: dict[str, object] = {"limit": 20, "offset": 30}
    while True:
        body = api.get("/events", **query).json()
        seen += [event["id"] for event in body["data"]]
        if not body["pagination"]["hasMore"]:
            break
        assert body["pagination"]["cursorExpiresIn"] == 116
        query = {"limit": 20, "cursor": body["pagination"]["nextCursor"]}
        api.config(grow=3)
    assert seen == ids(0, 50)[::-1]


def test_cursors_expire(mock: Start) -> None:
    """An expired cursor and one of nonsense are 400 with their codes."""
    api = mock()
    cursor = api.get("/events", limit=5).json()["pagination"]["nextCursor"]
    assert api.get("/events", limit=5, cursor=cursor).status == 200
    assert api.get("/events", cursor="abc").json()["code"] == "INVALID_CURSOR"
    api.config(cursor_ttl=0)
    cursor = api.get("/events", limit=5).json()["pagination"]["nextCursor"]
    refused = api.get("/events", limit=5, cursor=cursor)
    assert (refused.status, refused.json()["code"]) == (400, "CURSOR_EXPIRED")


def test_without_bulk_the_service_takes_it_for_an_id(mock: Start) -> None:
    """A deployment that lacks the bulk route answers the recorded 404."""
    answer = mock(bulk=False).get()
    assert answer.status == 404
    assert answer.json() == {
        "error": "Not Found",
        "message": "Event with id 'bulk' not found",
        "code": "EVENT_NOT_FOUND",
    }
    assert mock().get("/nothing").status == 404


def test_key_is_asked_for_and_expires(mock: Start) -> None:
    """No key and a wrong key are 401; so is the right one after its time."""
    api = mock(key_expires_after=2)
    assert api.get(headers={}).status == 401
    assert api.get(headers={"X-API-Key": "wrong"}).status == 401
    assert [api.get(limit=1).status for _ in range(3)] == [200, 200, 401]
    api.config(key_expires_after=None, api_key="new")
    assert api.get(limit=1).status == 401
    assert api.get(headers={"X-API-Key": "new"}, limit=1).status == 200


def test_each_key_has_a_rate_limit_of_its_own(mock: Start) -> None:
    """What one key has used up, the other one still has."""
    api = mock(other_key=("second",), rate_limit=2, rate_window=60.0)
    for key in ("demo-key", "second"):
        answers = [api.get(headers={"X-API-Key": key}, limit=1).status for _ in range(3)]
        assert answers == [200, 200, 429], key
    assert api.get(headers={"X-API-Key": "third"}, limit=1).status == 401


def test_key_in_the_query_is_none(mock: Start) -> None:
    """A crawler that puts the key into the URL gets no page."""
    assert mock().get(headers={}, api_key="demo-key", limit=1).status == 401


def test_rate_limit_speaks_and_changes(mock: Start) -> None:
    """Headers on every response, 429 in the service's words, a new limit in mid-crawl."""
    api = mock(rate_limit=2)
    assert [api.get(limit=1).headers["X-RateLimit-Remaining"] for _ in range(2)] == ["1", "0"]
    refused = api.get(limit=1)
    assert refused.status == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    body = refused.json()
    assert body["code"] == "RATE_LIMIT_EXCEEDED"
    assert body["rateLimit"]["retryAfter"] == int(refused.headers["Retry-After"])
    api.config(rate_limit=5)
    assert [api.get(limit=1).status for _ in range(4)] == [200, 200, 200, 429]
    api.config(rate_limit=None)
    free = api.get(limit=1)
    assert free.status == 200
    assert "X-RateLimit-Limit" not in free.headers


def test_shapes_and_gzip(mock: Start) -> None:
    """A bare list, data alone, and a compressed body hold the same events."""
    api = mock(gzip=True)
    plain = api.get(limit=3).json()["data"]
    packed = api.get(headers={"X-API-Key": "demo-key", "Accept-Encoding": "gzip"}, limit=3)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed.body))["data"] == plain
    api.config(shape="list")
    assert api.get(limit=3).json() == plain
    api.config(shape="data")
    assert api.get(limit=3).json() == {"data": plain}


def test_replay_serves_a_recording(mock: Start, tmp_path: Path) -> None:
    """A recorded response is served event by event, at most all of it, and can't grow."""
    recording = tmp_path / "page.json.gz"
    events = [{"id": str(number), "name": "é"} for number in range(7)]
    text = json.dumps({"data": events}, ensure_ascii=False)
    recording.write_bytes(gzip.compress(text.encode()))
    api = mock(events=None, replay=str(recording))
    assert api.get(limit=10).json()["data"] == events
    assert [one["id"] for one in api.get("/events", limit=2).json()["data"]] == ["6", "5"]
    assert api.config(grow=1).status == 400
    assert api.config(events=8).status == 400
    assert api.config(events=3).status == 200
    assert api.get(limit=10).json()["meta"]["total"] == 3
    assert mock(events=5, replay=str(recording)).stats()["total"] == 5
    with pytest.raises(ValueError, match="makes events up"):
        mock(replay=str(recording), fault=("bad-events",))


def test_only_the_api_is_served(mock: Start) -> None:
    """Without a plug-in there is nothing but the API's own endpoints."""
    api = mock(plugin=())
    assert api.get(limit=1).status == 200
    assert api.request("GET", "/__mock__/stats", {}).status == 404
    assert api.config(events=1).status == 404
