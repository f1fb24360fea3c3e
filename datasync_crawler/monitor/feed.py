"""One reader of the database for all viewers, once a second while there are any.

Owns when each part is read, and keeps the last known parts. Must not know of HTTP.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec

from datasync_crawler import stats as stat
from datasync_crawler.errors import DatabaseRefused
from datasync_crawler.monitor import board
from datasync_crawler.store.connection import STORE_ERRORS
from datasync_crawler.store.reader import DashboardReader, LedgerView, Process, Run

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Time between two readings, in seconds.
INTERVAL_S: Final = 1.0
#: Longest wait for a reading, in seconds; then the last known parts are sent.
PATIENCE_S: Final = 2.0
#: A reading that takes longer counts as a database that is away, in seconds.
SLOW_S: Final = 10.0
#: A costly reading (the ledger of a million ranges: 1 s) takes at most this share of the time.
MOST_SHARE: Final = 0.05

#: Parts of the page by name, each as JSON. Only those that changed are sent.
Parts = dict[str, bytes]


class _Costly:
    """A reading that is repeated only after a change, and after a rest according to its cost."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._version: object = None

    def repeat(self, version: object, read: Callable[[], None], *, least_s: float = 0.0) -> None:
        """Calls *read* if *version* has changed and the rest is over."""
        if version == self._version or time.monotonic() < self._next_at:
            return
        began_at = time.monotonic()
        read()
        took_s = max(time.monotonic() - began_at, least_s)
        self._version, self._next_at = version, time.monotonic() + took_s / MOST_SHARE


class _Reading:
    """One reading of the database, under way or done. Times: monotonic seconds."""

    task: "asyncio.Task[None]"

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.ended_at = began_at


class Feed:
    """Reads for the runs that are watched. `run`, the newest, and `ledger` are the last known."""

    def __init__(self, reader: DashboardReader) -> None:
        self._reader = reader
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dashboard")
        self._readings: dict[int | None, _Reading] = {}
        self._parts: dict[int | None, Parts] = {}
        self._shared: Parts = {}
        self._costly: defaultdict[object, _Costly] = defaultdict(_Costly)
        self._away_since: float | None = None
        self._closing = False
        self.ledger: LedgerView | None = None
        self.run: Run | None = None
        self.processes: list[Process] = []
        self.problem: Exception | None = None

    async def parts(self, run_id: int | None, *, max_age_s: float = INTERVAL_S * 0.9) -> Parts:
        """The parts of a run's page (None: the newest run), at most *max_age_s* old.

        When the database is away or doesn't answer: the last known, with how long it has been away.
        """
        now = time.monotonic()
        reading = self._readings.get(run_id)
        if reading is None or (reading.task.done() and now - reading.ended_at >= max_age_s):
            reading = self._readings[run_id] = _Reading(now)
            reading.task = asyncio.ensure_future(self._read(run_id, reading))
        await asyncio.wait({reading.task}, timeout=PATIENCE_S)
        return {
            **self._shared,
            **self._parts.get(run_id, {}),
            "health": _json(self._health(reading)),
        }

    @property
    def away_s(self) -> float | None:
        """For how long the newest run couldn't be read, in seconds; None when it can be."""
        reading = self._readings.get(None)
        return None if reading is None else self._away_s(reading)

    async def close(self) -> None:
        """Closes the reader's connection. A reading that hangs then is cut off."""
        self._closing = True
        closing = asyncio.ensure_future(self._in_thread(self._reader.close))
        await asyncio.wait({closing}, timeout=PATIENCE_S)
        if not closing.done():
            self._reader.cut()
        await closing
        self._thread.shutdown(wait=False)

    def _health(self, reading: _Reading) -> dict[str, Any]:
        """`refused`: the database has answered with an error, which the log holds: its text may
        name the server.
        """
        refused = isinstance(self.problem, DatabaseRefused)
        return {"away_s": self._away_s(reading), "refused": refused, "read_at": time.time()}

    def _away_s(self, reading: _Reading) -> float | None:
        now = time.monotonic()
        if self._away_since is not None:
            return now - self._away_since
        hangs = not reading.task.done() and now - reading.began_at >= SLOW_S
        return now - reading.began_at if hangs else None

    async def _read(self, run_id: int | None, reading: _Reading) -> None:
        try:
            await self._in_thread(lambda: self._read_all(run_id))
        except STORE_ERRORS as error:
            if self._closing:
                return  # it was cut off
            self.problem = error
            if self._away_since is None:
                self._away_since = time.monotonic()
                said = str(error) if isinstance(error, DatabaseRefused) else type(error).__name__
                logger.warning("The dashboard can't read the database (%s).", said)
        else:
            self._away_since, self.problem = None, None
        finally:
            reading.ended_at = time.monotonic()

    def _read_all(self, run_id: int | None) -> None:
        """In the thread. What was read before a failure stays."""
        run = self._reader.run(run_id)
        if run_id is None:
            self.run = run
        self._shared["runs"] = _json(board.run_lines(self._reader.runs()))
        self.processes = self._reader.processes()
        self._shared["processes"] = _json(board.process_lines(self.processes))
        if run is None:
            self._parts[run_id] = {"run": b"null"}
            return
        # Of the newest run: the ledger is the schema's, whichever run is shown.
        newest = run if run_id is None else self._reader.run(None)
        version = _version(newest)
        self._costly["ledger"].repeat(version, self._read_ledger)
        ledger = self.ledger
        rejected = ledger and (ledger.rejections, tuple(ledger.rejected.items()))
        self._costly["rejections"].repeat(rejected, self._read_rejections)
        # Only of a set that stands still: counting its rows costs a scan.
        if newest is not None and board.phase(newest) != "running":
            self._costly["table"].repeat(version, self._read_table)
        self._read_run(run_id, run)

    def _read_run(self, run_id: int | None, run: Run) -> None:
        parts = self._parts.setdefault(run_id, {})

        def read_series() -> None:
            samples = self._reader.series(run.id, board.POINTS)
            parts["series"] = _json(board.series(run.started_at, samples))

        version = run.id, int(run.lasted_s) // 2
        self._costly["series", run_id].repeat(version, read_series, least_s=0.05)
        parts["run"] = _json(board.run_state(run, self.ledger))

    def _read_ledger(self) -> None:
        self.ledger = self._reader.ledger(board.MOST_CELLS)
        self._shared["ledger"] = _json(self.ledger and board.ledger_view(self.ledger))

    def _read_rejections(self) -> None:
        self._shared["rejections"] = _json(board.rejections_view(self._reader.rejections(8)))

    def _read_table(self) -> None:
        table = self._reader.table()
        self._shared["table"] = _json(table and board.table_view(table))

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def _version(run: Run | None) -> object:
    """A value that changes when the ledger may have: a page committed, a run begun or ended."""
    if run is None:
        return "none"
    pages = run.stats.get(stat.PAGES_COMMITTED), run.stats.get(stat.TOTAL)
    return run.id, *pages, board.phase(run)


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
