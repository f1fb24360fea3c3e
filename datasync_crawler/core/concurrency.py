"""How many requests in flight help: learnt from how long answers take.

Pure. The idea is TCP Vegas' (Brakmo and Peterson, 1994): with more in flight than the server, the
network and we can work on, the rest queues somewhere and every answer takes longer. What queues is
in_flight x (1 - shortest / present time); a few queued keep everybody busy, more only wait.
"""

from typing import Final

#: Requests that may queue: below the first another one helps, above the second one is too many.
FEW_QUEUED: Final = 3.0
MANY_QUEUED: Final = 6.0
#: Weight of one answer in the present time.
_WEIGHT: Final = 0.2


class InFlight:
    """The number of requests in flight, between 1 and *most*. It moves by one an answer at most."""

    def __init__(self, *, first: int, most: int) -> None:
        self.most = max(1, most)
        self.limit = min(max(1, first), self.most)
        self._shortest_s: float | None = None
        self._present_s = 0.0
        self._since_change = 0

    def answered(self, took_s: float) -> int:
        """Takes in one answer's time from sending to its last byte; returns the limit.

        A limit that grew or shrank is left alone until that many answers have come: only then
        they tell what it did. At the start it grows with each answer: as many again in one
        round trip.
        """
        took_s = max(took_s, 1e-6)
        if self._shortest_s is None:
            self._shortest_s = self._present_s = took_s
        # Never forgotten: forgetting takes the queue that we made for the way, and adds to it.
        self._shortest_s = min(self._shortest_s, took_s)
        self._present_s += (took_s - self._present_s) * _WEIGHT
        self._since_change += 1
        queued = self.limit * (1 - self._shortest_s / max(self._present_s, self._shortest_s))
        if queued < FEW_QUEUED:
            self._move(1)
        elif queued > MANY_QUEUED and self._since_change >= self.limit:
            self._move(-1)
        return self.limit

    def _move(self, by: int) -> None:
        moved = min(max(self.limit + by, 1), self.most)
        if moved != self.limit:
            self.limit = moved
            self._since_change = 0
