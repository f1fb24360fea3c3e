"""What a person is told of limits: each thing once, until it changes."""

import math
from collections.abc import Iterable
from typing import Final

from datasync_crawler.ratelimit.limits import Limit

# A learned limit that moves by less than this factor is the same one.
_SAME: Final = 1.5
# An advertised one whose window is longer by more than this is another one.
_LONGER: Final = 1.2


class Messages:
    """Remembers what was said."""

    def __init__(self) -> None:
        self._nonsense: set[str] = set()
        self._window_s = math.inf  # of the advertised limit, as it was said
        self._learned_rate = 0.0

    def nonsense(self, said: Iterable[str]) -> list[str]:
        """The fields that made no sense, each the first time."""
        new = [text for text in said if text.partition(":")[0] not in self._nonsense]
        self._nonsense.update(text.partition(":")[0] for text in new)
        return [f"Ignored, makes no sense: {'; '.join(new)}"] if new else []

    def advertised(
        self, before: int | None, after: int | None, per_window: Limit | None, source: str
    ) -> list[str]:
        """A limit that headers state, when it is new or has changed, and when its window turns out
        to be longer: the first one had begun before.
        """
        window_s = per_window.window_s if per_window else 0.0
        if after is None or (after == before and window_s <= _LONGER * self._window_s):
            return []
        self._window_s = window_s
        change = "" if before in {None, after} else f" changed from {before:,} to"
        text = str(per_window or f"{after:,} requests per window")
        return [f"Rate limit{change or ':'} {text} ({source})"]

    def learned(self, limit: Limit | None) -> list[str]:
        """A limit that was learned from refusals, when it is new or has moved."""
        rate = 0.0 if limit is None else limit.rate_per_s
        said = self._learned_rate
        if limit is None or (said and said / _SAME < rate < said * _SAME):
            return []
        self._learned_rate = rate
        return [f"Rate limit: {limit} (learned from refusals)"]
