"""Other servers of this kind by settings alone: json-server, numbered pages, other names."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from crawling import crawl
from support_servers import Answer, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from databases import Database

EVENTS = 2500
PACKAGE = "json-server@0.17.4"


def events(number: int) -> list[dict[str, Any]]:
    return [
        {"id": index + 1, "sessionId": f"s{index % 7}", "type": "click", "name": f"n{index}",
         "properties": {"page": f"/{index}"}, "timestamp": 1_769_541_612_369 + index}
        for index in range(number)
    ]  # fmt: skip


def assert_all_there(database: Database, number: int = EVENTS) -> None:
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


@pytest.fixture(scope="module")
def json_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a json-server from npm that serves our events."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("npm isn't installed: json-server can't be had")
    folder: Path = tmp_path_factory.mktemp("json-server")
    installed = subprocess.run(
        [npm, "install", "--silent", "--no-audit", "--no-fund", PACKAGE],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if installed.returncode:
        pytest.skip(f"npm can't install {PACKAGE}: {installed.stderr[-200:]}")
    (folder / "db.json").write_text(json.dumps({"events": events(EVENTS)}))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [str(folder / "node_modules/.bin/json-server"), "--quiet", "--host", "127.0.0.1",
         "--port", str(port), "db.json"],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    try:
        while True:
            try:
                urlopen(f"{url}/events?_limit=1", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, "json-server has ended"
                assert time.monotonic() < deadline, "json-server doesn't answer"
        yield url
    finally:
        process.terminate()
        process.wait(30)


def test_json_server(database: Database, json_server: str) -> None:
    """`_start`/`_limit`, a bare list, numeric ids, a header for the total; run twice."""
    args = settings(BULK_PATH="/events", OFFSET_PARAM="_start", LIMIT_PARAM="_limit",
                    BULK_PAGE_SIZE=200)  # fmt: skip
    env = {"API_BASE_URL": json_server, "API_KEY": "unused"}
    done = crawl(None, database, *args, env=env)
    assert done.status == 0, done.log
    assert_all_there(database)
    again = crawl(None, database, *args, env=env)
    assert again.status == 0, again.log
    assert again.line("run: new ") == "0"


def test_json_server_by_numbered_pages(database: Database, json_server: str) -> None:
    """The same server by `_page`/`_limit`, which it counts from 1."""
    args = settings(BULK_PATH="/events", OFFSET_PARAM="_page", LIMIT_PARAM="_limit",
                    BULK_PAGE_SIZE=300, PAGINATION="page")  # fmt: skip
    done = crawl(None, database, *args, env={"API_BASE_URL": json_server, "API_KEY": "unused"})
    assert done.status == 0, done.log
    assert_all_there(database)


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
