"""What the mock was asked and what it served, as figures and as a list of the last requests.

Never holds a key.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasync_crawler.mockapi.reply import ApiRequest, Reply

KEPT_ENTRIES = 100_000


class Journal:
    """Counts requests and keeps the last `KEPT_ENTRIES`."""

    def __init__(self) -> None:
        self._entries: deque[dict[str, object]] = deque(maxlen=KEPT_ENTRIES)
        self._statuses: Counter[int] = Counter()
        self._pages = 0
        self._events = 0

    def note(self, request: ApiRequest, reply: Reply) -> None:
        """Note one request and the reply that is about to be sent."""
        self._statuses[reply.status] += 1
        self._pages += reply.returned is not None
        self._events += reply.returned or 0
        entry: dict[str, object] = {
            "time": time.time(),
            "number": request.number,
            "path": request.path,
            "offset": request.query.get("offset"),
            "limit": request.query.get("limit"),
            "cursor": request.query.get("cursor"),
            "status": reply.status,
            "returned": reply.returned,
            "faults": list(reply.faults),
        }
        for name in ("offset", "limit"):
            text = entry[name]
            if isinstance(text, str) and text.isdecimal():
                entry[name] = int(text)
        self._entries.append(entry)

    def stats(self) -> dict[str, object]:
        """Give the figures: requests by status, pages and events served, the last requests."""
        return {
            "requests": self._statuses.total(),
            "by_status": {str(status): count for status, count in self._statuses.items()},
            "pages": self._pages,
            "events_served": self._events,
            "entries": list(self._entries),
        }
