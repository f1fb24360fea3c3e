"""The fast path into PostgreSQL: pages in, one transaction for rows, rejections and ledger.

Owns COPY, the merge of rows whose ids are there already, the search for a row that PostgreSQL
refuses, and what happens when the connection or a COMMIT is lost. Must not run on the event loop:
a Writer belongs to one thread at a time.
"""

import io
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import psycopg2
from psycopg2.extras import execute_values

from datasync_crawler.core import copyrows
from datasync_crawler.core.events import Event
from datasync_crawler.errors import DatabaseLost, DatabaseUnreachable
from datasync_crawler.items import EventPage
from datasync_crawler.store import queries
from datasync_crawler.store.connection import close_quietly, describe, is_connection_lost
from datasync_crawler.store.session import Session

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

logger = logging.getLogger(__name__)

#: Events inserted and events whose stored content differs, of one page.
Counts = tuple[int, int]

#: After a duplicate key so many transactions merge first: a COPY that fails costs its time twice
#: and bloats the table, and duplicates come in swarms (a refetched range, a lost ledger).
MERGE_FIRST: Final = 20
#: Bytes handed to libpq at once. psycopg2's default of 8 KiB takes the GIL 200 times a page.
COPY_BUFFER_BYTES: Final = 1 << 20
#: Deadlocks and serialization failures are tried again so often.
CONFLICT_RETRIES: Final = 10
#: A transaction under way when the crawl is told to stop may still take so long, in seconds.
STOP_GRACE_S: Final = 2.0


class WriteStats(msgspec.Struct):
    """What a writer did, in counts and seconds; read by the pipeline after each batch."""

    transactions: int = 0
    rows: int = 0
    merges: int = 0
    refused_rows: int = 0
    reconnects: int = 0
    seconds: float = 0.0


class Writer:
    """Writes batches of pages on a connection of its own."""

    def __init__(
        self,
        session: Session,
        *,
        on_duplicate: str,
        max_wait_s: float,
        stop: threading.Event,
        crash_point: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._session = session
        self._update = on_duplicate == "update"
        self._max_wait_s = max_wait_s
        self._stop = stop
        # Tests kill the process here: before_copy, after_copy, before_commit, after_commit.
        self._crash_point = crash_point
        self._connection: Connection | None = None
        self._had_connection = False
        self._merge_first = 0
        self._ledger = queries.load("ledger", session.schema)
        columns = ", ".join(queries.quote_identifier(name) for name in copyrows.COLUMNS)
        self._events = {
            name: statement.replace("{columns}", columns)
            for name, statement in queries.load("events", session.schema).items()
        }
        self._source: tuple[int | None, int | None] = (None, None)
        self.stats = WriteStats()

    def write(self, pages: Sequence[EventPage]) -> None:
        """Commits *pages*, each with its rows, rejections and ledger row, and fills in its counts.

        All in one transaction, unless PostgreSQL refuses a row: then a transaction a page, and
        the row is rejected. Raises DatabaseLost when the database stays away longer than
        DB_MAX_WAIT or the crawl is told to stop meanwhile; and any other psycopg2.Error that no
        row of these pages is to blame for (disk full, missing rights…): nothing is committed then
        but pages that say so.
        """
        started = time.monotonic()
        try:
            self._write(pages)
        finally:
            self.stats.seconds += time.monotonic() - started

    def reset_stats(self) -> None:
        """Begins to count anew."""
        self.stats = WriteStats()

    def close(self) -> None:
        """Closes the connection."""
        close_quietly(self._connection)
        self._connection = None

    # --- one batch, whatever happens ------------------------------------------------------------

    def _write(self, pages: Sequence[EventPage]) -> None:
        conflicts = 0
        lost_at: float | None = None
        while pending := [page for page in pages if not page.committed]:
            try:
                self._reconnect(pending)
                pending = [page for page in pending if not page.committed]
                if pending:
                    self._transaction(pending)
            except DatabaseUnreachable as error:
                lost_at = self._wait(lost_at, str(error))
            except psycopg2.Error as error:
                self._rollback()
                if is_connection_lost(error):
                    self.close()
                    lost_at = self._wait(lost_at, describe(error))
                elif _is_conflict(error) and conflicts < CONFLICT_RETRIES:
                    conflicts += 1
                    if isinstance(error, psycopg2.errors.UniqueViolation):
                        self.close()  # so that the ledger is read again
                elif _is_refusal(error):
                    self._write_with_refusals(pending)
                else:
                    raise

    def _write_with_refusals(self, pages: Sequence[EventPage]) -> None:
        """PostgreSQL refused a row: page by page, so that it costs itself alone."""
        if len(pages) > 1:
            for page in pages:
                self._write([page])
            return
        page = pages[0]
        refused = self._find_refused(page)
        if not refused:
            raise psycopg2.DataError(
                f"PostgreSQL refuses {page!r}, but none of its rows by itself."
            )
        self.stats.refused_rows += len(refused)
        page.reject(refused)

    def _reconnect(self, pages: Sequence[EventPage]) -> None:
        """Connects if need be; then the ledger says which pages a lost COMMIT did commit."""
        if self._connection is not None and not self._connection.closed:
            return
        if self._had_connection:
            self._session.ensure_locked()
            self.stats.reconnects += 1
        self._connection = self._session.connector.connect()
        self._had_connection = True
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = on")
            cursor.execute(
                self._ledger["committed_ranges"], {"ranges": tuple(page.key for page in pages)}
            )
            found = {(row[0], row[1]): row[2:] for row in cursor.fetchall()}
        for page in pages:
            if page.key in found:
                _fill(page, *found[page.key])

    def _wait(self, lost_at: float | None, cause: str) -> float:
        """Waits a moment for a lost database. Raises DatabaseLost when it's been too long."""
        now = time.monotonic()
        if lost_at is None:
            lost_at = now
            logger.warning(
                "The database is away (%s): waiting up to %.0f s for it.", cause, self._max_wait_s
            )
        away_s = now - lost_at
        if away_s >= self._max_wait_s or (self._stop.is_set() and away_s >= STOP_GRACE_S):
            raise DatabaseLost(
                f"The database has been away for {away_s:.0f} s ({cause}). What was committed is "
                "safe: run the crawl again when it is back. DB_MAX_WAIT says how long to wait."
            )
        time.sleep(min(0.05 + away_s / 4, 2.0))
        return lost_at

    def _rollback(self) -> None:
        if self._connection is not None and not self._connection.closed:
            try:
                self._connection.rollback()
            except psycopg2.Error:
                self.close()

    # --- one transaction --------------------------------------------------------------------------

    def _transaction(self, pages: Sequence[EventPage]) -> None:
        connection = self._connection
        assert connection is not None  # _reconnect
        self._crash_point("before_copy")
        with connection.cursor() as cursor:
            counts = self._store_rows(cursor, pages)
            self._crash_point("after_copy")
            for page in pages:
                self._store_rejections(cursor, page)
            self._store_ledger(cursor, pages, counts)
            self._learn_source(cursor, pages)
            self._crash_point("before_commit")
            connection.commit()
            self._crash_point("after_commit")
        for page, (inserted, changed) in zip(pages, counts, strict=True):
            _fill(page, inserted, len(page.events) - inserted, changed, len(page.rejections))
        self.stats.transactions += 1
        self.stats.rows += sum(len(page.events) for page in pages)

    def _store_rows(self, cursor: "Cursor", pages: Sequence[EventPage]) -> list[Counts]:
        """Stores the pages' events; returns (inserted, changed) for each page.

        COPY straight into the table; on a duplicate key, back to the savepoint and merge.
        """
        if not any(page.events for page in pages):
            return [(0, 0)] * len(pages)
        if self._merge_first == 0 and not self._update:
            cursor.execute("SAVEPOINT rows")
            try:
                _copy(cursor, self._events["copy_events"], b"".join(map(_rows, pages)))
            except psycopg2.errors.UniqueViolation:
                cursor.execute("ROLLBACK TO SAVEPOINT rows")
                self._merge_first = MERGE_FIRST
            else:
                return [(len(page.events), 0) for page in pages]
        counts = self._merge(cursor, pages)
        if self._merge_first:
            self._merge_first -= 1
        return counts

    def _merge(self, cursor: "Cursor", pages: Sequence[EventPage]) -> list[Counts]:
        self.stats.merges += 1
        cursor.execute(self._events["make_incoming"])
        numbered = [_rows(page, prefix=b"%d\t" % number) for number, page in enumerate(pages)]
        _copy(cursor, self._events["copy_incoming"], b"".join(numbered))
        if self._update:
            changed = _by_page(cursor, self._events["count_changed"])
            inserted = _by_page(cursor, self._events["merge_update"])
        else:
            inserted = _by_page(cursor, self._events["merge_keep"])
            changed = {}
            if sum(inserted.values()) < sum(len(page.events) for page in pages):
                changed = _by_page(cursor, self._events["count_changed"])
        return [(inserted.get(number, 0), changed.get(number, 0)) for number in range(len(pages))]

    def _store_rejections(self, cursor: "Cursor", page: EventPage) -> None:
        cursor.execute(
            self._events["clear_rejections"],
            {"first": page.first_offset, "stop": page.first_offset + page.received},
        )
        if page.rejections:
            execute_values(
                cursor,
                self._events["insert_rejections"],
                [
                    (
                        page.first_offset + rejection.index,
                        page.first_offset,
                        rejection.reason,
                        rejection.raw,
                    )
                    for rejection in page.rejections
                ],
            )

    def _store_ledger(
        self, cursor: "Cursor", pages: Sequence[EventPage], counts: Sequence[Counts]
    ) -> None:
        execute_values(
            cursor,
            self._ledger["insert_ranges"],
            [
                (
                    page.pass_no,
                    page.first_offset,
                    page.requested,
                    page.received,
                    inserted,
                    len(page.events) - inserted,
                    changed,
                    len(page.rejections),
                    page.first_id,
                    page.last_id,
                    self._session.run_id,
                    page.next_cursor,
                    page.cursor_expires_at,
                )
                for page, (inserted, changed) in zip(pages, counts, strict=True)
            ],
        )

    def _learn_source(self, cursor: "Cursor", pages: Sequence[EventPage]) -> None:
        newest = pages[-1]
        learnt = newest.total, newest.page_limit
        if learnt not in {(None, None), self._source}:
            cursor.execute(
                self._ledger["learn_source"],
                {"total": newest.total, "page_limit": newest.page_limit},
            )
            self._source = learnt

    # --- rows that PostgreSQL refuses -------------------------------------------------------------

    def _find_refused(self, page: EventPage) -> list[tuple[int, str]]:
        """Places in page.events that PostgreSQL refuses, with the reason, by bisection.

        Everything is rolled back: the page is written whole afterwards, without them.
        """
        connection = self._connection
        assert connection is not None  # _reconnect
        refused: list[tuple[int, str]] = []
        with connection.cursor() as cursor:
            cursor.execute(self._events["make_incoming"])
            halves = [(0, len(page.events))]
            while halves:
                start, stop = halves.pop()
                reason = self._refusal(cursor, page.events[start:stop])
                if reason is None:
                    continue
                if stop - start == 1:
                    refused.append((start, f"PostgreSQL refuses it: {reason}"[:200]))
                else:
                    middle = (start + stop) // 2
                    halves += [(middle, stop), (start, middle)]
        connection.rollback()
        return refused

    def _refusal(self, cursor: "Cursor", events: Sequence[Event]) -> str | None:
        cursor.execute("SAVEPOINT probe")
        try:
            # The merge also meets what the index refuses (54000), and no duplicate key disturbs.
            _copy(cursor, self._events["copy_incoming"], copyrows.encode(events, prefix=b"0\t"))
            cursor.execute(self._events["merge_keep"])
        except psycopg2.Error as error:
            if not _is_refusal(error):
                raise
            cursor.execute("ROLLBACK TO SAVEPOINT probe")
            return describe(error)
        cursor.execute("ROLLBACK TO SAVEPOINT probe")
        return None


def _rows(page: EventPage, prefix: bytes = b"") -> bytes:
    return copyrows.encode(page.events, plain=page.plain, prefix=prefix)


def _copy(cursor: "Cursor", statement: str, rows: bytes) -> None:
    cursor.copy_expert(statement, io.BytesIO(rows), COPY_BUFFER_BYTES)


def _by_page(cursor: "Cursor", statement: str) -> dict[int, int]:
    cursor.execute(statement)
    return dict(cursor.fetchall())


def _is_refusal(error: psycopg2.Error) -> bool:
    """Classes 22 (data exception) and 54 (program limit exceeded): a row is to blame."""
    return error.pgcode is not None and error.pgcode[:2] in {"22", "54"}


def _is_conflict(error: psycopg2.Error) -> bool:
    """Nothing is wrong with the rows: try again.

    Class 40 is a deadlock or a serialization failure. A duplicate key outside the COPY's savepoint
    is a range that our own lost connection committed after all.
    """
    return isinstance(error, psycopg2.errors.UniqueViolation) or (error.pgcode or "")[:2] == "40"


def _fill(page: EventPage, inserted: int, duplicates: int, changed: int, rejected: int) -> None:
    page.inserted, page.duplicates = inserted, duplicates
    page.changed, page.rejected = changed, rejected
    page.committed = True
