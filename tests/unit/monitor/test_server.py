"""monitor/server.py: what the page doesn't serve, it closes."""

from __future__ import annotations

import asyncio
import base64
import threading
from typing import TYPE_CHECKING, Any

from datasync_crawler.errors import DatabaseLost
from datasync_crawler.monitor import connections, feed, server
from datasync_crawler.monitor.server import Dashboard
from datasync_crawler.store.reader import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import pytest

PASSWORD = "right"


class KnownFeed:
    """In the feed's place: what it knows is given."""

    problem = None
    away_s = None
    ledger = None

    def __init__(self, run: Run | None = None, text: bytes = b"null") -> None:
        self.run = run
        self._text = text
        self._number = 0

    async def parts(self, run_id: int | None, **_: Any) -> dict[str, bytes]:
        self._number += 1
        return {"run": self._text, "health": b"%d" % self._number}

    async def close(self) -> None:
        pass


def serve(
    act: Callable[[int], Coroutine[Any, Any, None]], feed: KnownFeed, password: str = ""
) -> None:
    """Runs *act* with the port of a page that is served."""

    async def run() -> None:
        dashboard = Dashboard(feed, host="127.0.0.1", port=0, password=password)  # type: ignore[arg-type]
        await dashboard.start()
        try:
            await act(int(dashboard.url.rsplit(":", 1)[1].strip("/")))
        finally:
            await dashboard.stop()

    asyncio.run(run())


async def ask(port: int, path: str, password: str | None = None) -> bytes:
    """The whole answer: the server closes the connection behind it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    header = ""
    if password is not None:
        header = f"Authorization: Basic {base64.b64encode(f':{password}'.encode()).decode()}\r\n"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


async def is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


def test_connections_are_bounded_and_silent_ones_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a connection is closed at once; within it, one that says nothing is, too."""
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 5)

    async def act(port: int) -> None:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await is_closed(reader)
            writer.close()
        assert not any(reader.at_eof() for reader, _ in idle)
        idle[0][1].write(b"GET / HTTP/1.1\r\nHost: loc")  # half a request is silence, too
        for reader, writer in idle:
            assert await is_closed(reader)
            writer.close()
        assert (await ask(port, "/page.css")).startswith(b"HTTP/1.1 200")

    monkeypatch.setattr(connections, "PATIENCE_S", 2.0)
    serve(act, KnownFeed())


def test_a_reader_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose reader takes nothing ends; one that is read goes on meanwhile."""
    monkeypatch.setattr(connections, "PATIENCE_S", 0.3)
    monkeypatch.setattr(server, "INTERVAL_S", 0.01)
    feed = KnownFeed()

    async def many(run_id: int | None, **_: Any) -> dict[str, bytes]:
        feed._number += 1
        return {"run": b"%d" % feed._number + b"x" * 500_000}

    monkeypatch.setattr(feed, "parts", many)

    async def act(port: int) -> None:
        reader, reading = await asyncio.open_connection("127.0.0.1", port)
        _, silent = await asyncio.open_connection("127.0.0.1", port)
        silent.transport.pause_reading()
        for writer in (reading, silent):
            writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for wanted in (2, 1):
            while len(made[0]._streams) != wanted:
                await reader.readexactly(100_000)
        await reader.readexactly(2_000_000)
        for writer in (reading, silent):
            writer.transport.abort()

    made: list[connections.Connections] = []

    def make(*args: Any) -> connections.Connections:
        made.append(connections.Connections(*args))
        return made[0]

    monkeypatch.setattr(server, "Connections", make)
    serve(act, feed)


def test_guesses_side_by_side_are_no_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong passwords share one delay, whatever connection they come by: no two sleep at once."""
    asleep, most = 0, 0
    sleep = asyncio.sleep

    async def counted(delay_s: float) -> None:
        nonlocal asleep, most
        asleep += 1
        most = max(most, asleep)
        await sleep(min(delay_s, 0.01))
        asleep -= 1

    monkeypatch.setattr(server.asyncio, "sleep", counted)

    async def act(port: int) -> None:
        answers = await asyncio.gather(*(ask(port, "/", f"guess {n}") for n in range(20)))
        assert all(answer.startswith(b"HTTP/1.1 401") for answer in answers)
        assert (await ask(port, "/", PASSWORD)).startswith(b"HTTP/1.1 200")

    serve(act, KnownFeed(), PASSWORD)
    assert most == 1


def test_health_says_that_figures_are_malformed() -> None:
    """What another role has written into crawl_runs isn't taken for health."""
    run = Run(1, "h", 1, 0.0, None, 1.0, 0.0, None, {}, malformed=True)

    async def act(port: int) -> None:
        answer = await ask(port, "/healthz")
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"malformed figures in crawl_runs" in answer

    serve(act, KnownFeed(run))


class HangingReader:
    """A database that answers nothing until it is cut off."""

    def __init__(self) -> None:
        self.is_cut = threading.Event()

    def run(self, run_id: int | None) -> Run | None:
        self.is_cut.wait()
        raise DatabaseLost("cut off")

    def cut(self) -> None:
        self.is_cut.set()

    def close(self) -> None:
        pass


def test_a_reading_that_the_end_cuts_off_is_no_lost_database(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the database is slow: nothing is logged, since nothing is wrong."""
    monkeypatch.setattr(feed, "PATIENCE_S", 0.01)

    async def end() -> None:
        reading = feed.Feed(HangingReader())  # type: ignore[arg-type]
        await reading.parts(None)
        await reading.close()

    asyncio.run(end())
    assert caplog.messages == []
