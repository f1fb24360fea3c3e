"""How many requests in flight help: learnt from how long answers take.

Pure. The idea is TCP Vegas' (Brakmo and Peterson, 1994), with room for answers that take longer
because we are busy ourselves: more in flight than the server, the network and we can work on only
queue, and every answer takes longer. What queues is in_flight x (1 - shortest / present time).
"""

import math
from typing import Final

#: Answers may take so many times the shortest before it counts as a queue.
TOLERANCE: Final = 1.5
#: Weight of one answer in the present time.
_WEIGHT: Final = 0.2


class InFlight:
    """The number of requests in flight, between *first* and *most*. It moves by one an answer.

    Not below the first: where answers are quick, how long they take says more of our own work
    than of a queue. Two more an answer would make 1.05 to 1.08 of the rate at 300 ms, and twice
    the 429s where a limit isn't told.
    """

    def __init__(self, *, first: int, most: int) -> None:
        self.most = max(1, most)
        self.limit = self.least = min(max(1, first), self.most)
        self._shortest_s: float | None = None
        self._present_s = 0.0
        self._since_change = 0

    def answered(self, took_s: float) -> int:
        """Takes in one answer's time from sending to its last byte; returns the limit.

        A limit that grew or shrank is left alone until that many answers have come: only then
        they tell what it did. At the start it grows with each answer: twice as many in a
        round trip.
        """
        took_s = max(took_s, 1e-6)
        if self._shortest_s is None:
            self._shortest_s = self._present_s = took_s
        # Never forgotten: forgetting takes the queue that we made for the way, and adds to it.
        self._shortest_s = min(self._shortest_s, took_s)
        self._present_s += (took_s - self._present_s) * _WEIGHT
        self._since_change += 1
        usual_s = min(TOLERANCE * self._shortest_s, self._present_s)
        queued = self.limit * (1 - usual_s / self._present_s)
        # A few queued keep everybody busy: the root of the number, more with many than with few.
        few = math.sqrt(self.limit)
        if queued < few:
            self._move(1)
        elif queued > few + 2 and self._since_change >= self.limit:
            self._move(-1)
        return self.limit

    def _move(self, by: int) -> None:
        moved = min(max(self.limit + by, self.least), self.most)
        if moved != self.limit:
            self.limit = moved
            self._since_change = 0
