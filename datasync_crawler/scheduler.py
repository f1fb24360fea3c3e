"""The scheduler: Scrapy's own, without trust in what a JOBDIR holds, and with delayed requests.

The ledger says what is to be fetched; the requests that an earlier process left in
``JOBDIR/requests.queue`` are only counted. Must not decide what is fetched.
"""

import asyncio
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scrapy.core.scheduler import Scheduler

from datasync_crawler import signals

if TYPE_CHECKING:
    from scrapy import Request, Spider
    from twisted.internet.defer import Deferred

logger = logging.getLogger(__name__)

#: Request.meta: seconds to wait before the request is scheduled. Set by retries.
DELAY_META: Final = "delay_s"
#: A file in JOBDIR/requests.queue for as long as a process works with it.
RUNNING: Final = "running"


class LedgerScheduler(Scheduler):
    """Settings: JOBDIR. Stats: scheduler/left_in_jobdir."""

    def open(self, spider: "Spider") -> "Deferred[None] | None":
        """Empties what the last process left; never fails because of it."""
        self._delayed: dict[Request, asyncio.TimerHandle] = {}
        self._stopped = False
        assert self.crawler is not None
        self.crawler.signals.connect(self._stopping, signals.stopping)
        if self.dqdir:
            self._clear_disk_queue(spider, Path(self.dqdir))
            # Gone after a clean stop: what a killed process leaves is told from an empty queue.
            Path(self.dqdir, RUNNING).touch()
        return super().open(spider)

    def close(self, reason: str) -> "Deferred[None] | None":
        """Scrapy writes active.json here."""
        if self.dqdir:
            Path(self.dqdir, RUNNING).unlink(missing_ok=True)
        return super().close(reason)

    def enqueue_request(self, request: "Request") -> bool:
        """Schedules *request*, after ``meta["delay_s"]`` seconds if it has that.

        Returns False for a delayed request of a crawl that is closing: it would come too late.
        """
        delay_s: float = request.meta.pop(DELAY_META, 0.0)
        if delay_s <= 0:
            return super().enqueue_request(request)
        if self._stopped:
            return False
        loop = asyncio.get_running_loop()
        self._delayed[request] = loop.call_later(delay_s, self._release, request)
        return True

    def has_pending_requests(self) -> bool:
        """Delayed requests are pending, too."""
        return bool(self._delayed) or super().has_pending_requests()

    def _release(self, request: "Request") -> None:
        del self._delayed[request]
        assert self.crawler is not None
        self.crawler.engine.crawl(request)

    def _stopping(self) -> None:
        self._stopped = True
        for timer in self._delayed.values():
            timer.cancel()
        self._delayed.clear()

    def _clear_disk_queue(self, spider: "Spider", directory: Path) -> None:
        """Reads what is there, says what was found, and starts with an empty folder.

        After a clean stop the files are whole and agree; anything else (SIGKILL, a full disk, a
        truncated file) is a warning, and the ledger's plan takes its place.
        """
        problem: str | None = None
        left = 0
        try:
            left, problem = self._drain(spider, directory)
        except Exception as error:  # noqa: BLE001  # whatever a broken pickle or index can raise
            problem = f"{type(error).__name__}: {error}"
        if problem:
            logger.warning(
                "JOBDIR's request queue can't be relied on (%s). Nothing is lost: the ledger in "
                "the database says what is still to be fetched, and the queue is rebuilt from it.",
                problem,
            )
        elif left:
            logger.info("JOBDIR holds %d requests of the last run; the ledger replans them.", left)
        if self.stats is not None:
            self.stats.set_value("scheduler/left_in_jobdir", left)
        shutil.rmtree(directory)
        directory.mkdir(parents=True)

    def _drain(self, spider: "Spider", directory: Path) -> tuple[int, str | None]:
        entries = sorted(entry.name for entry in directory.iterdir())
        if not entries:
            return 0, None
        if "active.json" not in entries:
            return 0, "the last process was killed or its active.json is gone"
        self.spider = spider
        wanted: Any = self._read_dqs_state(str(directory))
        queue = self._dq()
        left = 0
        try:
            while queue is not None and queue.pop() is not None:
                left += 1
        finally:
            if queue is not None:
                queue.close()
        if wanted and not left:
            return left, "its files are gone"
        # A queue that was read to its end is deleted by queuelib.
        if any(path.is_file() and path.name != "active.json" for path in directory.rglob("*")):
            return left, "its active.json doesn't name all of its files"
        return left, None
