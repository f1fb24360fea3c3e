"""The database room as tests use it: a session, writers and a ledger over one test database."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from faults.crashes import CrashingWriter

from datasync_crawler.crawl.values import Ask
from datasync_crawler.events.event import Event, Rejection
from datasync_crawler.items import EventPage
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.ledger import Ledger
from datasync_crawler.store.session import Session
from datasync_crawler.store.targets import ServerTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from databases import Database

    from datasync_crawler.store.writer import Writer

API = "http://127.0.0.1/api/v1"
SOME_TIME = datetime(2026, 1, 27, 19, 20, 12, 369000, UTC)


class RawByPlace:
    """In a decoder's place: the raw bytes of an event are its place in words."""

    def raw_events(self, body: bytes, indexes: Sequence[int]) -> list[bytes]:
        return [b"raw %d" % index for index in indexes]


def event(event_id: str, **values: Any) -> Event:
    """A normalised event."""
    some = {
        "name": "n",
        "timestamp": SOME_TIME,
        "properties": msgspec.Raw(b'{"page":"/home"}'),
    }
    return Event(event_id, **{**some, **values})


def page(
    events: Sequence[Event | str | None],
    *,
    first: int = 0,
    pass_no: int = 1,
    total: int | None = None,
) -> EventPage:
    """A page of events, or of ids; None is an event without one."""
    good = [
        (index, event(item) if isinstance(item, str) else item)
        for index, item in enumerate(events)
        if item is not None
    ]
    ids = dict(good)
    return EventPage(
        ask=Ask(pass_no, first, len(events)),
        ids=[ids[place].id if place in ids else f"#{place}" for place in range(len(events))],
        events=[item for _, item in good],
        indexes=[index for index, _ in good],
        rejections=[
            Rejection(index, "no id", b"{}") for index, item in enumerate(events) if item is None
        ],
        body=b"",
        decoder=RawByPlace(),  # type: ignore[arg-type]
        total=total,
    )


class Room:
    """A session in *schema*, over the database itself or a proxy's *port*."""

    def __init__(
        self, database: Database, *, schema: str = "public", port: int | None = None
    ) -> None:
        self.database = database
        self.schema = schema
        params = {**database.params, "host": "127.0.0.1"} if port else dict(database.params)
        self.connector = Connector(ServerTarget({**params, "port": str(port or params["port"])}))
        self.session = Session(self.connector, schema)
        self.session.open(api_base_url=API, pagination="offset")
        self.ledger = Ledger(self.connector, schema, max_wait_s=5, stop=threading.Event())
        self._direct = database.connect()
        self._writers: list[Writer] = []

    def writer(
        self,
        *,
        on_duplicate: str = "keep",
        max_wait_s: float = 30,
        stop: threading.Event | None = None,
        crash_point: Callable[[str], None] = lambda _: None,
    ) -> Writer:
        writer = CrashingWriter(
            self.session,
            on_duplicate=on_duplicate,
            max_wait_s=max_wait_s,
            stop=stop or threading.Event(),
            crash_point=crash_point,
        )
        self._writers.append(writer)
        return writer

    def write(self, *pages: EventPage) -> None:
        """Writes one batch with a writer that lives as long as the room."""
        (self._writers[0] if self._writers else self.writer()).write(pages)

    def query(self, statement: str, params: Any = None) -> list[tuple[Any, ...]]:
        with self._direct.cursor() as cursor:
            cursor.execute(statement, params)
            rows = cursor.fetchall() if cursor.description else []
        return [
            tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
            for row in rows
        ]

    def ids(self) -> list[str]:
        return sorted(row[0] for row in self.query("SELECT id FROM events"))

    def counts(self) -> list[tuple[Any, ...]]:
        """The ledger's rows: pass, first offset, received and what became of them."""
        return self.query(
            "SELECT pass, first_offset, received, inserted, duplicates, changed, rejected "
            "FROM checkpoint ORDER BY pass, first_offset"
        )

    def truncate(self) -> None:
        self.query("TRUNCATE events, checkpoint, rejected_events, seams, proofs, leases")

    def cut(self, writer: Writer) -> None:
        """Ends a writer's connection from the server's side."""
        assert writer._connection is not None
        self.query("SELECT pg_terminate_backend(%s)", (writer._connection.info.backend_pid,))

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
        asyncio.run(self.ledger.close())
        self._direct.close()
