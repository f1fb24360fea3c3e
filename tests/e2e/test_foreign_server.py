"""Other servers of this kind by settings alone: numbered pages, other names, misbehaviours.

Real ones: test_other_apis.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from crawling import crawl
from support_servers import Answer, serving

if TYPE_CHECKING:
    from collections.abc import Mapping

    from databases import Database


def events(number: int) -> list[dict[str, Any]]:
    return [
        {"id": index + 1, "sessionId": f"s{index % 7}", "type": "click", "name": f"n{index}",
         "properties": {"page": f"/{index}"}, "timestamp": 1_769_541_612_369 + index}
        for index in range(number)
    ]  # fmt: skip


def assert_all_there(database: Database, number: int) -> None:
    """Each event once, with its content."""
    rows = database.execute(
        "SELECT id, session_id, name, properties->>'page', "
        'round(extract(epoch FROM "timestamp") * 1000)::bigint FROM events'
    )
    assert len(rows) == number
    assert set(rows) == {
        (str(one["id"]), one["sessionId"], one["name"], one["properties"]["page"], one["timestamp"])
        for one in events(number)
    }


def quick(**named: object) -> list[str]:
    """Settings with retries that don't wait."""
    return settings(RETRY_BACKOFF_BASE=0.02, RETRY_BACKOFF_CAP=0.05, RETRY_TIMES=3, **named)


def settings(**named: object) -> list[str]:
    return [word for name, value in named.items() for word in ("-s", f"{name}={value}")]


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("with_total", [True, False])
def test_numbered_pages(database: Database, start: int, *, with_total: bool) -> None:
    """Pages numbered from 0 or 1, with a total or none at all; one comes short the first time."""
    everything = events(1100)
    short = [True]

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        size = int(query["size"])
        first = (int(query["page"]) - start) * size
        page = everything[first : first + size] if first >= 0 else []
        if first == 3 * size and short:
            short.clear()
            page = page[:-7]
        return {"X-Total-Count": "1100"} if with_total else {}, {"data": page}

    args = settings(PAGINATION="page", PAGE_START=start, OFFSET_PARAM="page", LIMIT_PARAM="size",
                    BULK_PAGE_SIZE=100)  # fmt: skip
    with serving(answer) as url:
        done = crawl(None, database, *args, env={"API_BASE_URL": url, "API_KEY": "unused"})
    assert done.status == 0, done.log
    assert_all_there(database, 1100)


def test_an_offset_called_cursor_and_other_keys(database: Database) -> None:
    """OFFSET_PARAM=cursor, and list and total elsewhere in the body."""
    everything = events(1100)

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        if path != "/v2/log/all":
            return None
        first, count = int(query["cursor"]), int(query["count"])
        return {}, {
            "result": {"items": everything[first : first + count]},
            "info": {"count": {"all": len(everything)}},
        }

    args = settings(OFFSET_PARAM="cursor", LIMIT_PARAM="count", BULK_PATH="/log/all",
                    EVENTS_KEY="result.items", TOTAL_KEY="info.count.all", PAGINATION="offset",
                    BULK_PAGE_SIZE=150)  # fmt: skip
    with serving(answer) as url:
        done = crawl(None, database, *args, env={"API_BASE_URL": f"{url}/v2", "API_KEY": "unused"})
    assert done.status == 0, done.log
    assert_all_there(database, 1100)


@pytest.mark.parametrize("mode", ["page", "offset"])
@pytest.mark.parametrize("with_total", [True, False])
def test_404_behind_the_end(database: Database, mode: str, *, with_total: bool) -> None:
    """A server that has no empty page but a 404 behind its last one is complete."""
    everything = events(300)

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        size, at = int(query["size"]), int(query["at"])
        first = (at - 1) * size if mode == "page" else at
        page = everything[first : first + size]
        return ({"X-Total-Count": "300"} if with_total else {}, {"data": page}) if page else None

    args = quick(PAGINATION=mode, OFFSET_PARAM="at", LIMIT_PARAM="size", BULK_PAGE_SIZE=50)
    with serving(answer) as url:
        done = crawl(None, database, *args, env={"API_BASE_URL": url, "API_KEY": "unused"})
    assert done.status == 0, done.log
    assert_all_there(database, 300)


def test_a_body_that_isnt_what_its_encoding_says(database: Database) -> None:
    """A page announced as gzip or Brotli that is neither is tried again, the first one too."""
    everything = events(300)
    asked: list[str] = []

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        encodings = ("gzip", "br", None)
        encoding = encodings[min(asked.count(query["offset"]), 2)]
        asked.append(query["offset"])
        first = int(query["offset"])
        page = everything[first : first + int(query["limit"])]
        headers = {"Content-Encoding": encoding} if encoding else {}
        return {"X-Total-Count": "300", **headers}, {"data": page}

    with serving(answer) as url:
        args = quick(BULK_PAGE_SIZE=50)
        done = crawl(None, database, *args, env={"API_BASE_URL": url, "API_KEY": "unused"})
    assert done.status == 0, done.log
    assert_all_there(database, 300)


@pytest.mark.parametrize("with_total", [True, False])
def test_the_last_page_again_behind_the_end(database: Database, *, with_total: bool) -> None:
    """A server that serves its last page for every later number: complete by its total; without
    one the crawl ends all the same.
    """
    everything = events(1200)

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        first = min(int(query["page"]) - 1, 119) * 10
        total = {"X-Total-Count": "1200"} if with_total else {}
        return total, {"data": everything[first : first + 10]}

    args = quick(PAGINATION="page", OFFSET_PARAM="page", BULK_PAGE_SIZE=10)
    with serving(answer) as url:
        done = crawl(None, database, *args, env={"API_BASE_URL": url, "API_KEY": "unused"})
    assert done.status == 0 or not with_total, done.log
    assert_all_there(database, 1200)


@pytest.mark.parametrize("size", [5, 5000])
@pytest.mark.parametrize("with_total", [True, False])
def test_numbered_pages_of_a_fixed_size(database: Database, size: int, *, with_total: bool) -> None:
    """Ten a page, whatever is asked for: the numbers count by what came, and none is left out."""
    everything = events(205)

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        first = (int(query["page"]) - 1) * 10
        total = {"X-Total-Count": "205"} if with_total else {}
        return total, {"data": everything[first : first + 10]}

    args = quick(PAGINATION="page", OFFSET_PARAM="page", BULK_PAGE_SIZE=size)
    with serving(answer) as url:
        done = crawl(None, database, *args, env={"API_BASE_URL": url, "API_KEY": "unused"})
    assert done.status == 0, done.log
    assert ("proved against the API's total" in done.log) is with_total
    assert_all_there(database, 205)


def test_a_total_far_beyond_the_end(database: Database) -> None:
    """999,999,999 in the header of a set of a hundred: all is stored, exit 1, in few requests."""
    everything = events(100)
    requests: list[str] = []

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        requests.append(path)
        first = int(query["offset"])
        return {"X-Total-Count": "999999999"}, {"data": everything[first : first + 10]}

    args = quick(BULK_PAGE_SIZE=10)
    with serving(answer) as url:
        done = crawl(None, database, *args, env={"API_BASE_URL": url, "API_KEY": "unused"})
    assert done.status == 1
    assert "offsets 100–" in done.log
    assert len(requests) < 2000
    assert_all_there(database, 100)


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("with_total", [True, False])
def test_a_cursor_that_is_ignored(database: Database, *, fresh: bool, with_total: bool) -> None:
    """One page whatever the cursor, whose name is the same or a new one each time: exit 1 in every
    run, though what came adds up to the total at the second.
    """
    everything = events(30)
    requests: list[str] = []

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        requests.append(path)
        cursor = f"c{len(requests)}" if fresh else "c"
        page = {"data": everything[:10], "pagination": {"nextCursor": cursor}}
        return {"X-Total-Count": "30"} if with_total else {}, page

    args = quick(PAGINATION="cursor", BULK_PAGE_SIZE=10)
    with serving(answer) as url:
        for _ in range(2):
            done = crawl(None, database, *args, env={"API_BASE_URL": url, "API_KEY": "unused"})
            assert done.status == 1
    assert len(requests) < 20
    assert_all_there(database, 10)


@pytest.mark.parametrize("says", [{"hasMore": True, "next": "c"}, {}], ids=["more", "nothing"])
def test_a_cursor_by_another_name(database: Database, says: dict[str, Any]) -> None:
    """Without total and cursor a full page isn't the end, nor one behind which there is more."""

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        return {}, {"data": events(10), "pagination": says}

    args = quick(PAGINATION="cursor", BULK_PAGE_SIZE=10)
    with serving(answer) as url:
        done = crawl(None, database, *args, env={"API_BASE_URL": url, "API_KEY": "unused"})
    assert done.status == 1
    assert "names neither a cursor" in done.log


def test_a_last_cursor_that_leads_to_an_empty_page(database: Database) -> None:
    """Where the last page names a cursor, too, a second run doesn't go on there but from the start,
    and sees the new events in front.
    """
    everything = events(50)

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        first = int(query.get("cursor", 0))
        stop = first + 10
        said = {"nextCursor": str(min(stop, len(everything)))}
        return {}, {"data": newest[first:stop], "pagination": said}

    args = quick(PAGINATION="cursor", BULK_PAGE_SIZE=10)
    newest = everything[:30]
    with serving(answer) as url:
        for _ in range(2):
            done = crawl(None, database, *args, env={"API_BASE_URL": url, "API_KEY": "unused"})
            assert done.status == 0, done.log
            newest = everything[30:] + everything[:30]
    assert_all_there(database, 50)


def test_an_empty_page_that_says_there_is_more(database: Database) -> None:
    """By cursor, without a total, such a page isn't the end: it is asked for again."""
    everything = events(50)
    asked: list[int] = []

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        first = int(query.get("cursor", 0))
        asked.append(first)
        if first == 20 and asked.count(20) == 1:
            return {}, {"data": [], "pagination": {"nextCursor": "20", "hasMore": True}}
        more = first + 10 < 50
        said = {"nextCursor": str(first + 10) if more else None, "hasMore": more}
        return {}, {"data": everything[first : first + 10], "pagination": said}

    args = quick(PAGINATION="cursor", BULK_PAGE_SIZE=10)
    with serving(answer) as url:
        done = crawl(None, database, *args, env={"API_BASE_URL": url, "API_KEY": "unused"})
    assert done.status == 0, done.log
    assert_all_there(database, 50)


def test_a_total_that_a_later_run_isnt_told(database: Database) -> None:
    """By cursor, the first page proves nothing then: all is read again, and the run is complete."""
    everything = events(50)
    totals = {"X-Total-Count": "50"}

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        first = int(query.get("cursor", 0))
        more = first + 10 < 50
        said = {"nextCursor": str(first + 10) if more else None, "hasMore": more}
        return totals, {"data": everything[first : first + 10], "pagination": said}

    args = quick(PAGINATION="cursor", BULK_PAGE_SIZE=10)
    with serving(answer) as url:
        for _ in range(2):
            done = crawl(None, database, *args, env={"API_BASE_URL": url, "API_KEY": "unused"})
            assert done.status == 0, done.log
            totals = {}
    assert_all_there(database, 50)
