"""The server's clock, by the Date of its answers. HTTP dates and epoch resets are read by it."""

import math
from email.utils import parsedate_to_datetime
from typing import Final

#: A Date is cut to whole seconds, and servers that keep it for a while (uvicorn) lag by up to 2 s.
_DATE_LAG_S: Final = 2.0


class ServerClock:
    """Bounds of the server's epoch seconds minus our monotonic seconds."""

    def __init__(self) -> None:
        self._at_least, self._at_most = -math.inf, math.inf

    def epoch_s(self, now: float, wall: float, date: str | None, *, sent_at: float) -> float:
        """The server's time at `now`: our own, `wall`, unless a Date has proved it wrong.

        When a Date (RFC 9110 §6.6.1) arrives, the server's clock is past it. When the request was
        sent (`sent_at`, monotonic), it was at most _DATE_LAG_S past it.
        """
        try:
            date_s = None if date is None else parsedate_to_datetime(date).timestamp()
        except (ValueError, OverflowError, IndexError, TypeError):
            date_s = None
        if date_s is not None:
            at_least = max(self._at_least, date_s - now)
            at_most = min(self._at_most, date_s + _DATE_LAG_S - sent_at)
            if at_least > at_most:  # its clock was set, or another server answers
                at_least, at_most = date_s - now, date_s + _DATE_LAG_S - sent_at
            self._at_least, self._at_most = at_least, at_most
        # The earliest possible time, so that no wait ends too early.
        at_least, at_most = self._at_least + now, self._at_most + now
        return wall if at_least <= wall <= at_most else at_least
