"""How many requests may be in flight: the smallest of four limits, one number.

Pure. From latency it follows TCP Vegas (Brakmo and Peterson, 1994), with room for answers that take
longer because we are busy ourselves: more in flight than the server, the network and we can work on
only queue, and every answer takes longer. What queues is in flight x (1 - shortest / present time).
"""

import math
from typing import Final

#: Answers may take so many times the shortest before it counts as a queue.
_TOLERANCE: Final = 1.5
#: Weight of one answer in the present time; of the largest body, what an answer leaves of it.
_WEIGHT: Final = 0.2
_SIZE_KEPT: Final = 0.98


class InFlightLimit:
    """The smallest of: `most` (WORKERS), what latency says helps, what the server allows at the
    same time, and what memory allows (`max_bytes` of bodies, in flight and waiting).

    From latency it begins at `first` and isn't less: where answers are quick, how long they take
    says more of our own work than of a queue.
    """

    def __init__(self, *, first: int, most: int, max_bytes: int) -> None:
        self.by_latency = self._least = min(max(1, first), max(1, most))
        self.by_server: int | None = None
        self._most = max(1, most)
        self._max_bytes = max_bytes
        self._largest_bytes = 0.0  # of the bodies seen; it fades
        self._shortest_s = math.inf
        self._present_s = 0.0
        self._since_change = 0
        self._is_reached = False  # by the last request that went out

    def limit(self, waiting_bytes: int = 0) -> int:
        """Requests in flight at most, 1 or more; `waiting_bytes`: bodies that wait to be stored."""
        most = self.by_latency if self.by_server is None else min(self.by_latency, self.by_server)
        if self._largest_bytes:
            room = (self._max_bytes - waiting_bytes) / self._largest_bytes
            most = min(most, int(max(1.0, room)))
        return max(1, most)

    def sent(self, in_flight: int) -> None:
        """A request went out, the `in_flight`-th."""
        self._is_reached = in_flight >= self.by_latency

    def answered(self, took_s: float, size: int) -> None:
        """A page came, `took_s` after it was asked for, of `size` bytes.

        The limit moves by one, and only while it is reached: else answers say nothing of it. At the
        start it grows with each answer: twice as many in a round trip. Before it shrinks again, so
        many answers have to come: only then they tell what a change did.
        """
        self._largest_bytes = max(float(size), self._largest_bytes * _SIZE_KEPT)
        took_s = max(took_s, 1e-6)
        self._present_s += (took_s - self._present_s) * (_WEIGHT if self._present_s else 1.0)
        # Never forgotten: forgetting takes the queue that we made for the way, and adds to it.
        self._shortest_s = min(self._shortest_s, took_s)
        self._since_change += 1
        usual_s = min(_TOLERANCE * self._shortest_s, self._present_s)
        queued = self.by_latency * (1 - usual_s / self._present_s)
        # A few queued keep everybody busy: the root of the number, more with many than with few.
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
