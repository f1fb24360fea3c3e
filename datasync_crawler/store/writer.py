"""Writing of pages: rows, rejections and ledger in one transaction.

Owns COPY, the merge of rows whose ids are stored already, and recovery from a lost connection or
COMMIT. Must not run on the event loop: a Writer is used by one thread at a time.
"""

import logging
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import msgspec
import psycopg2
from psycopg2.extras import execute_values

from datasync_crawler.crawl.values import Lease
from datasync_crawler.errors import DatabaseUnreachable
from datasync_crawler.events import copyrows
from datasync_crawler.items import EventPage
from datasync_crawler.store import queries
from datasync_crawler.store.connection import (
    Backend,
    close_quietly,
    describe,
    is_connection_lost,
)
from datasync_crawler.store.rejected_rows import copy_in, find_unstorable, is_caused_by_row
from datasync_crawler.store.session import Session
from datasync_crawler.store.statements import Outage

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

#: Of one page: events inserted, and events whose stored content differs.
Counts = tuple[int, int]
#: Transactions after a duplicate that merge at once: a failed COPY costs its time twice and bloats
#: the table, and duplicates come together (a refetched range, a lost ledger).
MERGE_FIRST: Final = 4
#: Retries after deadlocks and serialization failures.
CONFLICT_RETRIES: Final = 10
#: Longest time that a batch may still wait for the database after a stop, in seconds.
STOP_GRACE_S: Final = 2.0


class WriteStats(msgspec.Struct):
    """What a writer did since the last `reset_stats`, in counts and seconds."""

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
    ) -> None:
        self._session = session
        self._update = on_duplicate == "update"
        self._max_wait_s = max_wait_s
        self._stop = stop
        self._connection: Connection | None = None
        self._backend: Backend | None = None
        self._merge_first = 0
        self._ledger = queries.load("ledger", session.schema)
        self._leases = queries.load("leases", session.schema)
        columns = ", ".join(queries.quote_identifier(name) for name in copyrows.COLUMNS)
        self._events = {
            name: statement.replace("{columns}", columns)
            for name, statement in queries.load("events", session.schema).items()
        }
        self._total: int | None = None
        self.stats = WriteStats()

    def write(self, pages: Sequence[EventPage]) -> None:
        """Commits *pages*, each with its rows, rejections and ledger row, and fills in its counts.

        All in one transaction, unless PostgreSQL refuses a row: then each page has its own, and the
        row is rejected. Raises DatabaseLost when the database stays away longer than DB_MAX_WAIT or
        the crawl is stopped meanwhile, and psycopg2.Error for what no row caused (disk full,
        missing rights). Pages with `committed` set are stored even then. A page whose lease is lost
        isn't committed: `fenced` is set instead.
        """
        started = time.monotonic()
        try:
            self._write(pages)
        finally:
            self.stats.seconds += time.monotonic() - started

    def reset_stats(self) -> None:
        """Sets all counts to zero."""
        self.stats = WriteStats()

    def close(self) -> None:
        """Closes the connection."""
        close_quietly(self._connection)
        self._connection = None

    # --- one batch, with retries ----------------------------------------------------------------

    def _write(self, pages: Sequence[EventPage]) -> None:
        conflicts = 0
        outage = Outage(self._max_wait_s, self._stop, grace_s=STOP_GRACE_S, level=logging.WARNING)
        attempt = self._transaction
        while pending := [page for page in pages if not page.committed and not page.fenced]:
            try:
                self._reconnect(pending)
                pending = [page for page in pending if not page.committed]
                if pending:
                    attempt(pending)
                attempt = self._transaction
            except DatabaseUnreachable as error:
                outage.wait(error)
            except UnicodeEncodeError:
                self._rollback()
                attempt = self._reject_unstorable
            except psycopg2.Error as error:
                self._rollback()
                if is_caused_by_row(error):
                    if attempt == self._reject_unstorable:
                        raise
                    attempt = self._reject_unstorable
                elif self._is_lost(error):
                    self.close()
                    outage.wait(describe(error))
                elif _is_conflict(error) and conflicts < CONFLICT_RETRIES:
                    conflicts += 1
                    self._merge_first = MERGE_FIRST
                    self.close()  # so that the ledger is read again
                else:
                    raise

    def _reconnect(self, pages: Sequence[EventPage]) -> None:
        """Connects if need be, and reads which pages a lost COMMIT has committed."""
        if self._connection is not None and not self._connection.closed:
            return
        connection = self._session.connector.connect()
        try:
            with connection, connection.cursor() as cursor:
                if self._backend is not None:
                    self._backend.end(connection)
                cursor.execute(
                    self._ledger["committed_ranges"], {"ranges": tuple(page.key for page in pages)}
                )
                found = {(row[0], row[1]): row[2:] for row in cursor.fetchall()}
                backend = Backend.of(connection)
        except BaseException:
            close_quietly(connection)
            raise
        if self._backend is not None:
            self.stats.reconnects += 1
        self._connection, self._backend = connection, backend
        for page in pages:
            if page.key in found:
                _fill(page, *found[page.key])

    def _is_lost(self, error: psycopg2.Error) -> bool:
        broken = self._connection is not None and self._connection.closed
        return bool(broken) or is_connection_lost(error)

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
        with connection.cursor() as cursor:
            counts = self._store_rows(cursor, pages)
            known = self._store_rejections(cursor, pages)
            if self._fence(cursor, pages):
                connection.rollback()
                return
            self._store_ledger(cursor, pages, counts, known)
            total = self._learn_total(cursor, pages)
            connection.commit()
        self._total = total
        for page, (inserted, changed), again in zip(pages, counts, known, strict=True):
            rejected = len(page.rejections) - again
            _fill(page, inserted, page.received - inserted - rejected, changed, rejected)
        self.stats.transactions += 1
        self.stats.rows += sum(len(page.events) for page in pages)

    def _fence(self, cursor: "Cursor", pages: Sequence[EventPage]) -> bool:
        """Marks the pages whose leases are another process's; returns whether there are any.

        From here on to the end of the transaction nobody can claim the leases of the others.
        """
        leases = {page.ask.lease for page in pages if page.ask.lease is not None}
        if not leases:
            return False
        keys = tuple((lease.number, lease.epoch) for lease in leases)
        cursor.execute(self._leases["fence"], {"leases": keys})
        held = {Lease(*row) for row in cursor.fetchall()}
        for page in pages:
            page.fenced = page.ask.lease is not None and page.ask.lease not in held
        return held != leases

    def _store_rows(self, cursor: "Cursor", pages: Sequence[EventPage]) -> list[Counts]:
        """Stores the pages' events; returns (inserted, changed) for each page.

        COPY straight into the table; on a duplicate key, back to the savepoint and merge.
        """
        if not any(page.events for page in pages):
            return [(0, 0)] * len(pages)
        if self._merge_first == 0:
            cursor.execute("SAVEPOINT rows")
            try:
                copy_in(cursor, self._events["copy_events"], b"".join(map(_rows, pages)))
            except psycopg2.errors.UniqueViolation:
                cursor.execute("ROLLBACK TO SAVEPOINT rows")
            else:
                return [(len(page.events), 0) for page in pages]
        counts = self._merge(cursor, pages)
        clean = all(
            len(page.events) == inserted for page, (inserted, _) in zip(pages, counts, strict=True)
        )
        self._merge_first = max(self._merge_first - 1, 0) if clean else MERGE_FIRST
        return counts

    def _merge(self, cursor: "Cursor", pages: Sequence[EventPage]) -> list[Counts]:
        """Stores the rows that aren't stored yet, through a temporary table.

        `changed` counts against what was stored before; of several rows of one new id, against
        the one that is kept: the first, or with ON_DUPLICATE=update the last.
        """
        self.stats.merges += 1
        cursor.execute(self._events["make_incoming"])
        numbered = [_rows(page, prefix=b"%d\t" % number) for number, page in enumerate(pages)]
        copy_in(cursor, self._events["copy_incoming"], b"".join(numbered))
        rows = sum(len(page.events) for page in pages)
        known, changed = self._compare(cursor)
        inserted = [0] * len(pages)
        if self._update:
            if known < rows or changed:
                inserted, new = self._insert(cursor, "merge_update", pages)
                if known + sum(inserted) < rows:
                    cursor.execute(self._events["compare_overwritten"], {"new": list(new)})
                    for number, overwritten in cursor.fetchall():
                        changed[number] = changed.get(number, 0) + overwritten
        elif known < rows:
            inserted, _ = self._insert(cursor, "merge_keep", pages)
            if known + sum(inserted) < rows:  # an id twice in this batch, or another writer's
                _, changed = self._compare(cursor)
        return [(inserted[number], changed.get(number, 0)) for number in range(len(pages))]

    def _compare(self, cursor: "Cursor") -> tuple[int, dict[int, int]]:
        """How many rows' ids are stored, and of each page how many with other content."""
        cursor.execute(self._events["compare"])
        found = cursor.fetchall()
        return sum(row[1] for row in found), {row[0]: row[2] for row in found if row[2]}

    def _insert(
        self, cursor: "Cursor", statement: str, pages: Sequence[EventPage]
    ) -> tuple[list[int], set[str]]:
        """Merges, and counts what is new for the page whose row of an id was taken; the new ids.

        Counted here because INSERT doesn't return its source's columns, and a join takes three
        times as long.
        """
        cursor.execute(self._events[statement])
        new = {event_id for (event_id,) in cursor.fetchall()}
        if self._update and new:
            cursor.execute(self._events["inserted_ids"], {"ids": list(new)})
            new = {event_id for (event_id,) in cursor.fetchall()}
        left = set(new)
        inserted = []
        for page in reversed(pages) if self._update else pages:
            before = len(left)
            left.difference_update([event.id for event in page.events])
            inserted.append(before - len(left))
        return (inserted[::-1] if self._update else inserted), new

    def _store_rejections(self, cursor: "Cursor", pages: Sequence[EventPage]) -> list[int]:
        """Replaces these ranges' rejections; returns how many of each page were stored already.

        One statement for all pages: a round trip for each of fifty small pages costs more than
        their rows. Where ranges overlap, each page has its own, and the last one counts.
        """
        checking = [self._add_rejections(cursor, page) if page.checks else 0 for page in pages]
        ranges = [page for page in pages if not page.checks]
        spans = sorted((page.first_offset, page.first_offset + page.received) for page in ranges)
        if any(stop > first for (_, stop), (first, _) in pairwise(spans)):
            for page in ranges:
                self._store_rejections(cursor, [page])
            return checking
        if spans:
            execute_values(cursor, self._events["clear_rejections"], spans, page_size=len(spans))
        rejected = [
            (page.position(rejection.index), page.first_offset, rejection.reason, rejection.raw)
            for page in ranges
            for rejection in page.rejections
        ]
        execute_values(cursor, self._events["insert_rejections"], rejected)
        return checking

    def _add_rejections(self, cursor: "Cursor", page: EventPage) -> int:
        """Adds the rejections of a page that checks others, without replacing any. Returns how many
        were stored already.
        """
        if not page.rejections:
            return 0
        raws = [rejection.raw for rejection in page.rejections]
        cursor.execute(self._events["known_rejections"], {"raws": raws})
        known = {bytes(row[0]) for row in cursor.fetchall()}
        new = {one.raw: one for one in page.rejections if one.raw not in known}
        places = [page.position(one.index) for one in new.values()]
        cursor.execute(self._events["taken_positions"], {"positions": places})
        ((taken, behind),) = cursor.fetchall()
        rows = []
        for place, one in zip(places, new.values(), strict=True):
            position = place
            if place in taken:
                position, behind = behind, behind + 1
            rows.append((position, page.first_offset, one.reason, one.raw))
        execute_values(cursor, self._events["insert_rejections"], rows)
        return len(page.rejections) - len(new)

    def _store_ledger(
        self,
        cursor: "Cursor",
        pages: Sequence[EventPage],
        counts: Sequence[Counts],
        known: Sequence[int],
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
                    len(page.events) - inserted + again,
                    changed,
                    len(page.rejections) - again,
                    page.repeated,
                    page.before_id,
                    page.first_id,
                    page.last_id,
                    page.total,
                    self._session.run_id,
                    page.next_cursor,
                    page.cursor_expires_at,
                )
                for page, (inserted, changed), again in zip(pages, counts, known, strict=True)
            ],
        )

    def _learn_total(self, cursor: "Cursor", pages: Sequence[EventPage]) -> int | None:
        """Updates the total in `source`; returns its value after the commit."""
        total = pages[-1].total
        if total is None or total == self._total:
            return self._total
        cursor.execute(self._ledger["learn_total"], {"total": total})
        return total

    # --- rows that PostgreSQL refuses -------------------------------------------------------------

    def _reject_unstorable(self, pages: Sequence[EventPage]) -> None:
        """Finds and rejects the rows that PostgreSQL refuses, one page at a time."""
        if len(pages) > 1:
            for page in pages:
                self._write([page])
            return
        page = pages[0]
        assert self._connection is not None  # _reconnect
        refused = find_unstorable(self._connection, self._events, page.events)
        if not refused:
            raise psycopg2.ProgrammingError(
                f"PostgreSQL refuses {page!r}, but none of its rows by itself."
            )
        self.stats.refused_rows += len(refused)
        page.reject(refused)


def _rows(page: EventPage, prefix: bytes = b"") -> bytes:
    return copyrows.encode(page.events, plain=page.plain, prefix=prefix)


def _is_conflict(error: psycopg2.Error) -> bool:
    """Whether the same rows may succeed at the next attempt.

    Class 40 is a deadlock or a serialization failure. A duplicate key outside the COPY's savepoint
    is a range that a lost connection of ours has committed.
    """
    return isinstance(error, psycopg2.errors.UniqueViolation) or (error.pgcode or "")[:2] == "40"


def _fill(page: EventPage, inserted: int, duplicates: int, changed: int, rejected: int) -> None:
    page.inserted, page.duplicates = inserted, duplicates
    page.changed, page.rejected = changed, rejected
    page.committed = True
