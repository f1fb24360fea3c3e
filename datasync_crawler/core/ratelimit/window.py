"""The budget that the server's headers speak of: how much is left, and until when.

Owns what is known of the present window and of how the server rounds its end. It doesn't know
of pauses or of requests in flight, only of what it is told.
"""

from datasync_crawler.core.ratelimit.headers import Advice

# Headers without a usable reset: the wait after the last budget, doubled each time it was short.
_BLIND_WAIT_S = 1.0
_LONGEST_BLIND_WAIT_S = 60.0


class Window:
    """The present window as the headers tell it.

    `closed_until` is never earlier than the true end, as far as that can be known: a reset in
    whole seconds may have been rounded down, so a second is added, until the length of the
    window is known: no window ends later than one length after any moment within it. The
    earliest end that any answer of the window allows is the one that holds.
    """

    def __init__(self) -> None:
        self.limit: int | None = None
        self.remaining: int | None = None  # the least that an answer of this window said
        self.closed_until: float | None = None  # monotonic s
        self.learnt_from = ""
        self.rounds_down = False  # seen: an end that came later than the reset had said
        self._length_s: float | None = None
        self._first_reset_s: float | None = None
        self._blind_waits = 0

    def learn(self, advice: Advice, *, now: float, sent_at: float) -> None:
        """Take in what an answer said that arrived `now` to a request sent at `sent_at`."""
        ends_at = self._latest_end(advice, now)
        fresh = self._is_fresh(ends_at, now=now, sent_at=sent_at)
        if fresh and ends_at is not None:
            self._learn_length(advice)
            ends_at = self._latest_end(advice, now)
        if advice.limit is not None:
            self.limit = advice.limit
        said = advice.remaining
        if said is None:  # a limit and its end, but no count: then we count
            before = self.limit if fresh else self.remaining
            said = max(0, (before or 0) - 1)
        self.learnt_from = advice.learnt_from
        if fresh or self.remaining is None:
            self.remaining, self.closed_until = said, ends_at
        else:
            self.remaining = min(self.remaining, said)
            if ends_at is not None:
                self.closed_until = min(ends_at, self.closed_until or ends_at)
        if self.closed_until is None and self.remaining == 0:
            self._blind_waits += 1
            wait_s = _BLIND_WAIT_S * 2.0 ** min(self._blind_waits, 10)
            self.closed_until = now + min(wait_s, _LONGEST_BLIND_WAIT_S)
        elif self.remaining:
            self._blind_waits = 0

    def forget(self) -> None:
        """The server has stopped telling."""
        self.limit = self.remaining = self.closed_until = None

    def _is_fresh(self, ends_at: float | None, *, now: float, sent_at: float) -> bool:
        """Whether this answer speaks of a later window than the one we know."""
        if self.closed_until is None or sent_at >= self.closed_until:
            return True
        # Rounding and the way back move an end by up to a second and the answer's travel.
        return ends_at is not None and ends_at > self.closed_until + 1.0 + (now - sent_at)

    def _latest_end(self, advice: Advice, now: float) -> float | None:
        """The latest moment at which the window of this answer can end."""
        length_s = advice.window_s or self._length_s
        if advice.reset_in_s is None:
            return None if length_s is None else now + length_s
        margin_s = 1.0 if advice.reset_is_whole else 0.0
        end_in_s = advice.reset_in_s + margin_s
        if length_s is not None and not self.rounds_down and advice.reset_in_s <= length_s:
            end_in_s = min(end_in_s, length_s)
        return now + end_in_s

    def _learn_length(self, advice: Advice) -> None:
        """Two windows that begin with the same round number of seconds left are that long.

        Said "20" can mean 20 s, or 20.9 s rounded down. Nobody sets a window of 21 s, so when
        it is said twice at a window's beginning it is taken for the length; 19 or 59 may well
        be 20 or 60 rounded down, and keep the second's margin. Should it be wrong, it costs one
        429, which sets `rounds_down`.
        """
        reset_s, self._first_reset_s = self._first_reset_s, advice.reset_in_s
        is_round = reset_s is not None and (reset_s == 2 or reset_s % 5 == 0) and reset_s > 0
        if is_round and reset_s == advice.reset_in_s:
            self._length_s = reset_s
        elif self._length_s is not None and (advice.reset_in_s or 0) > self._length_s:
            self._length_s = None
