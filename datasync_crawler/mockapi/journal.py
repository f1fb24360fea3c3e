"""What the mock was asked and what it served: figures in memory, a JSON line a request on disk.

Never holds a key. The list in memory is bounded, the file is not.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

    from datasync_crawler.mockapi.reply import ApiRequest, Reply

KEPT_ENTRIES = 100_000


class Journal:
    """Counts requests, keeps the last `KEPT_ENTRIES`, and writes them to `path` if one is given."""

    def __init__(self, path: str | None = None) -> None:
        self._entries: deque[dict[str, object]] = deque(maxlen=KEPT_ENTRIES)
        self._statuses: Counter[int] = Counter()
        self._pages = 0
        self._events = 0
        self._keys_in_query = 0
        # A line at a time: a killed mock leaves whole lines.
        self._file: TextIO | None = None
        if path is not None:
            self._file = Path(path).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115

    def note(self, request: ApiRequest, reply: Reply) -> None:
        """Note one request and the reply that is about to be sent."""
        self._statuses[reply.status] += 1
        self._pages += reply.returned is not None
        self._events += reply.returned or 0
        self._keys_in_query += request.key_in_query
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
            "key_in_query": request.key_in_query,
        }
        for name in ("offset", "limit"):
            text = entry[name]
            if isinstance(text, str) and text.isdecimal():
                entry[name] = int(text)
        self._entries.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")

    def stats(self) -> dict[str, object]:
        """Give the figures: requests by status, pages and events served, the last requests."""
        return {
            "requests": self._statuses.total(),
            "by_status": {str(status): count for status, count in self._statuses.items()},
            "pages": self._pages,
            "events_served": self._events,
            "keys_in_query": self._keys_in_query,
            "entries": list(self._entries),
        }

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
