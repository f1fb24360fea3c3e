"""A test aid: the process kills itself at a chosen point of a chosen transaction.

``DATASYNC_CRASH_POINT=after_commit:3`` is kill -9 right behind the third COMMIT. Unset, nothing
happens. Must not be used for anything but tests.
"""

import os
import signal
from collections.abc import Callable
from itertools import count
from typing import Final

from datasync_crawler.errors import ConfigError

#: Where `Writer` offers to crash.
POINTS: Final = ("before_copy", "after_copy", "before_commit", "after_commit")


def crash_point(spec: str | None) -> Callable[[str], None]:
    """What a Writer calls with each point it passes. *spec*: "point:occurrence", or nothing.

    Writers on several threads share one count. Raises ConfigError.
    """
    if not spec:
        return lambda _: None
    point, _, occurrence = spec.partition(":")
    if point not in POINTS or not (occurrence.isascii() and occurrence.isdigit()):
        raise ConfigError(
            f"DATASYNC_CRASH_POINT is {spec!r}: set it to one of {', '.join(POINTS)}, a colon and "
            "a number, or leave it unset: it is for tests."
        )
    passed, wanted = count(1), int(occurrence)

    def crash(here: str) -> None:
        if here == point and next(passed) == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    return crash
