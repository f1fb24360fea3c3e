"""One reader for all who watch: asks the database once a second while somebody does.

Owns when what is read, and what is known when the database is away. Must not know of HTTP.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec

from datasync_crawler.monitor import board
from datasync_crawler.store.connection import STORE_ERRORS
from datasync_crawler.store.reader import DashboardReader, LedgerView, Run

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Time between two readings, in seconds.
INTERVAL_S: Final = 1.0
#: A reader isn't left without a word for longer than this, in seconds.
PATIENCE_S: Final = 2.0
#: A reading that takes longer means that the database is away or hangs, in seconds.
SLOW_S: Final = 10.0
#: A costly reading (the ledger of a million ranges) is repeated so seldom that it takes at most
#: this share of the time.
MOST_SHARE: Final = 0.05

#: Parts of the page by name, each as JSON: what changes is sent.
Parts = dict[str, bytes]


class _Costly:
    """A reading that rests according to what it costs."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._version: object = None

    def due(self, version: object) -> bool:
        """Whether to read now: something may have changed, and it has rested enough."""
        return version != self._version and time.monotonic() >= self._next_at

    def done(self, version: object, took_s: float) -> None:
        self._version = version
        self._next_at = time.monotonic() + took_s / MOST_SHARE


class _Reading:
    """One reading of the database, under way or done. Times: monotonic seconds."""

    task: "asyncio.Task[None]"

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.ended_at = began_at


class Feed:
    """Reads for the runs that are watched; `parts` says what is known."""

    def __init__(self, reader: DashboardReader) -> None:
        self._reader = reader
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dashboard")
        self._readings: dict[int | None, _Reading] = {}
        self._parts: dict[int | None, Parts] = {}
        self._shared: Parts = {}
        self._ledger: LedgerView | None = None
        self._ledger_rest, self._rejections_rest = _Costly(), _Costly()
        self._series_rest: dict[int | None, _Costly] = {}
        self.run: Run | None = None
        self.away_since: float | None = None
        self.problem: Exception | None = None

    @property
    def ledger(self) -> LedgerView | None:
        """The ledger as last read."""
        return self._ledger

    async def parts(self, run_id: int | None, *, max_age_s: float = INTERVAL_S * 0.9) -> Parts:
        """What the page of a run (None: the newest) is made of, at most *max_age_s* old.

        With the database away, or so slow that it may be: what was known, and that it is away.
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
            "health": _json({"away_s": self._away_s(reading), "read_at": time.time()}),
        }

    @property
    def away_s(self) -> float | None:
        """Since when the newest run can't be read, in seconds; None when it can."""
        reading = self._readings.get(None)
        return None if reading is None else self._away_s(reading)

    async def close(self) -> None:
        """Closes the reader's connection. A reading that hangs then is cut off."""
        closing = asyncio.ensure_future(self._in_thread(self._reader.close))
        await asyncio.wait({closing}, timeout=PATIENCE_S)
        if not closing.done():
            self._reader.cut()
        await closing
        self._thread.shutdown(wait=False)

    def _away_s(self, reading: "_Reading") -> float | None:
        now = time.monotonic()
        if self.away_since is not None:
            return now - self.away_since
        hangs = not reading.task.done() and now - reading.began_at >= SLOW_S
        return now - reading.began_at if hangs else None

    async def _read(self, run_id: int | None, reading: "_Reading") -> None:
        try:
            await self._in_thread(lambda: self._read_all(run_id))
        except STORE_ERRORS as error:
            self.problem = error
            if self.away_since is None:
                self.away_since = time.monotonic()
                logger.warning("The dashboard can't read the database (%s).", type(error).__name__)
        else:
            self.away_since, self.problem = None, None
        finally:
            reading.ended_at = time.monotonic()

    def _read_all(self, run_id: int | None) -> None:
        """In the thread. What was read before a failure stays."""
        run = self._reader.run(run_id)
        if run_id is None:
            self.run = run
        self._shared["runs"] = _json(board.run_lines(self._reader.runs()))
        if run is None:
            self._parts[run_id] = {"run": b"null"}
            return
        # Of the newest run: the ledger is the schema's, whichever run is looked at.
        newest = run if run_id is None else self._reader.run(None)
        self._read_ledger(_version(newest))
        parts = self._parts.setdefault(run_id, {})
        rest = self._series_rest.setdefault(run_id, _Costly())
        version = (run.id, int(run.lasted_s) // 2)
        if rest.due(version):
            started = time.monotonic()
            samples = self._reader.series(run.id, board.POINTS)
            parts["series"] = _json(board.series(samples))
            rest.done(version, max(time.monotonic() - started, 0.05))
        parts["run"] = _json(board.run_state(run, self._ledger))

    def _read_ledger(self, version: object) -> None:
        if self._ledger_rest.due(version):
            started = time.monotonic()
            self._ledger = self._reader.ledger(board.MOST_CELLS)
            self._ledger_rest.done(version, time.monotonic() - started)
            shown = None if self._ledger is None else board.ledger_view(self._ledger)
            self._shared["ledger"] = _json(shown)
        rejected = None if self._ledger is None else (
            self._ledger.rejections, tuple(self._ledger.rejected.items())
        )  # fmt: skip
        if self._rejections_rest.due(rejected):
            started = time.monotonic()
            self._shared["rejections"] = _json(board.rejections_view(self._reader.rejections(8)))
            self._rejections_rest.done(rejected, time.monotonic() - started)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def _version(run: Run | None) -> object:
    """Changes when the ledger may have: pages committed, a run ended, crashed or begun."""
    if run is None:
        return "none"
    pages = run.stats.get("pages/committed"), run.stats.get("crawl/total")
    return run.id, *pages, board.phase(run)


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
