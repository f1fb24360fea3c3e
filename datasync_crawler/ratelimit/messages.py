"""Log messages about limits: each once, until the limit changes."""

import math
from collections.abc import Iterable
from typing import Final

from datasync_crawler.ratelimit.limits import Limit

# A learned limit whose rate changes by less than this factor isn't logged again.
_SAME: Final = 1.5
# An advertised limit is logged again when its window is longer by more than this factor.
_LONGER: Final = 1.2


class Messages:
    """Remembers which messages were given."""

    def __init__(self) -> None:
        self._nonsense: set[str] = set()
        self._window_s = math.inf  # of the advertised limit, as last logged
        self._learned_rate = 0.0

    def nonsense(self, fields: Iterable[str]) -> list[str]:
        """A message about invalid fields, once per field."""
        new = [text for text in fields if text.partition(":")[0] not in self._nonsense]
        self._nonsense.update(text.partition(":")[0] for text in new)
        return [f"Ignored invalid rate-limit fields: {'; '.join(new)}"] if new else []

    def advertised(
        self, before: int | None, after: int | None, per_window: Limit | None, source: str
    ) -> list[str]:
        """A message when an advertised limit is new or has changed, or when its window turns out to
        be longer: the first answer may come late in a window.
        """
        window_s = per_window.window_s if per_window else 0.0
        if after is None or (after == before and window_s <= _LONGER * self._window_s):
            return []
        self._window_s = window_s
        change = "" if before in {None, after} else f" changed from {before:,} to"
        text = str(per_window or f"{after:,} requests per window")
        return [f"Rate limit{change or ':'} {text} ({source})"]

    def learned(self, limit: Limit | None) -> list[str]:
        """A message when a learned limit is new or has changed."""
        rate = 0.0 if limit is None else limit.rate_per_s
        last = self._learned_rate
        if limit is None or (last and last / _SAME < rate < last * _SAME):
            return []
        self._learned_rate = rate
        return [f"Rate limit: {limit} (learned from refusals)"]
