"""Crash points: the process ends at a chosen point of a chosen transaction.

A Scrapy add-on puts them into a crawl, by `CRAWL_ARGUMENTS` and `crash_environment`:
``DATASYNC_CRASH_POINT=after_commit:3`` is kill -9 right behind the third COMMIT.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from datasync_crawler.pipelines import postgres
from datasync_crawler.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from scrapy.settings import BaseSettings

POINTS: Final = ("before_copy", "after_copy", "before_commit", "after_commit")
CRAWL_ARGUMENTS: Final = ("-s", 'ADDONS={"faults.crashes.CrashAddon": 0}')


def crash_environment(point: str, occurrence: int) -> dict[str, str]:
    """What a crawl with `CRAWL_ARGUMENTS` has in its environment."""
    search = (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))
    return {
        "DATASYNC_CRASH_POINT": f"{point}:{occurrence}",
        "PYTHONPATH": os.pathsep.join(filter(None, search)),
    }


class CrashingWriter(Writer):
    """A writer that calls *crash_point* with each of the `POINTS` that it passes."""

    def __init__(self, *args: Any, crash_point: Callable[[str], None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._crash_point = crash_point

    def _transaction(self, *args: Any) -> None:
        self._crash_point("before_copy")
        super()._transaction(*args)
        self._crash_point("after_commit")

    def _store_rows(self, *args: Any) -> Any:
        counts = super()._store_rows(*args)
        self._crash_point("after_copy")
        return counts

    def _learn_total(self, *args: Any) -> Any:
        """The last statement before COMMIT."""
        total = super()._learn_total(*args)
        self._crash_point("before_commit")
        return total


def killer(spec: str) -> Callable[[str], None]:
    """Give a crash point that sends SIGKILL; *spec* is "point:occurrence".

    Writers on several threads share one count. Raises ValueError.
    """
    point, _, occurrence = spec.partition(":")
    if point not in POINTS:
        raise ValueError(f"No crash point is called {point!r}, only {', '.join(POINTS)}.")
    passed, wanted = count(1), int(occurrence)

    def crash(here: str) -> None:
        if here == point and next(passed) == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    return crash


class CrashAddon:
    """Gives the pipeline writers that crash where DATASYNC_CRASH_POINT says."""

    def update_settings(self, settings: BaseSettings) -> None:
        """Called by Scrapy before the pipeline is made."""
        crash_point = killer(os.environ["DATASYNC_CRASH_POINT"])
        vars(postgres)["Writer"] = partial(CrashingWriter, crash_point=crash_point)
