"""The number of requests that may be in flight: the smallest of four limits. Pure.

The limit by latency follows TCP Vegas (Brakmo and Peterson, 1994): beyond what the server, the
network and we can process, requests only queue. The queue is estimated as in flight x (1 - shortest
/ current latency), with a tolerance for the time that we are busy ourselves.
"""

import math
from typing import Final

#: Latency up to this multiple of the shortest doesn't count as a queue.
_TOLERANCE: Final = 1.5
#: Weight of one answer in the current latency; decay of the largest body per answer.
_WEIGHT: Final = 0.2
_SIZE_KEPT: Final = 0.98


class InFlightLimit:
    """The smallest of: `most` (WORKERS), the limit by latency, the server's limit of concurrent
    requests, and memory (`max_bytes` of bodies, in flight and waiting).

    The limit by latency starts at `first` and never falls below it: where answers are fast, their
    latency is mostly our own processing.
    """

    def __init__(self, *, first: int, most: int, max_bytes: int) -> None:
        self.by_latency = self._least = min(max(1, first), max(1, most))
        self.by_server: int | None = None
        self._most = max(1, most)
        self._max_bytes = max_bytes
        self._largest_bytes = 0.0  # of the bodies seen; it decays
        self._shortest_s = math.inf
        self._current_s = 0.0
        self._since_change = 0
        self._is_reached = False  # by the last request that went out

    def limit(self, waiting_bytes: int = 0) -> int:
        """Requests in flight at most, 1 or more; `waiting_bytes`: bodies not stored yet."""
        most = self.by_latency if self.by_server is None else min(self.by_latency, self.by_server)
        if self._largest_bytes:
            room = (self._max_bytes - waiting_bytes) / self._largest_bytes
            most = min(most, int(max(1.0, room)))
        return max(1, most)

    @property
    def latency_s(self) -> float:
        """The current latency, smoothed; 0.0 before the first answer."""
        return self._current_s

    def sent(self, in_flight: int) -> None:
        """Records that a request was sent; `in_flight` includes it."""
        self._is_reached = in_flight >= self.by_latency

    def answered(self, took_s: float, size: int) -> None:
        """Takes in a page of `size` bytes that came `took_s` after its request.

        The limit moves by one, and only while it is reached: otherwise latency isn't caused by it.
        It grows with each answer, so it doubles per round trip. It shrinks only after as many
        answers as are in flight: earlier ones don't show the effect of the last change.
        """
        self._largest_bytes = max(float(size), self._largest_bytes * _SIZE_KEPT)
        took_s = max(took_s, 1e-6)
        self._current_s += (took_s - self._current_s) * (_WEIGHT if self._current_s else 1.0)
        # Never reset: a new minimum would contain our own queue, and the limit would grow on it.
        self._shortest_s = min(self._shortest_s, took_s)
        self._since_change += 1
        usual_s = min(_TOLERANCE * self._shortest_s, self._current_s)
        queued = self.by_latency * (1 - usual_s / self._current_s)
        # A short queue keeps the server busy; the square root scales it with the limit.
        few = math.sqrt(self.by_latency)
        if queued < few and self._is_reached:
            self._move(1)
        elif queued > few + 2 and self._since_change >= self.by_latency:
            self._move(-1)

    def _move(self, by: int) -> None:
        moved = min(max(self.by_latency + by, self._least), self._most)
        if moved != self.by_latency:
            self.by_latency = moved
            self._since_change = 0
