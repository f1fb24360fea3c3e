"""The budget that the server's headers speak of: how much is left, and until when.

Owns what is known of the present window and of how the server rounds its end. It doesn't know
of pauses or of requests in flight, only of what it is told.
"""

import math

from datasync_crawler.core.ratelimit.headers import Advice

# Headers without a usable reset: the wait after the last budget, doubled each time it was short,
# that is, refused: who answers with nothing left, each time, lets one through for each wait.
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
        # The least that an answer said since one that surely is later than those before it: its
        # request went out after they had come. Answers overtake each other.
        self.remaining: int | None = None
        self.closed_until: float | None = None  # monotonic s
        self.learnt_from = ""
        self.cautious = False  # what we made of the headers was wrong once: take them as said
        self._length_s: float | None = None  # as the server says, or as learnt
        self._first_reset_s: float | None = None
        self._least_used_reset_s = 0.0
        self._refills = False
        self._told_at = 0.0  # when the answer came that `remaining` is from
        self._blind_waits = 0

    def learn(
        self, advice: Advice, *, now: float, sent_at: float, probe: bool, refused: bool = False
    ) -> None:
        """Take in what an answer said that arrived `now` to a request sent at `sent_at`.

        `probe`: that went alone because the window before was thought to be over. `refused`: 429.
        """
        first = self.remaining is None or self.closed_until is None
        fresh = first or probe or self._is_over(now, sent_at, advice)
        newer = fresh or sent_at >= self._told_at
        self._learn_kind(advice)
        if fresh:
            self._learn_length(advice)
        self.limit = self.limit if advice.limit is None else advice.limit
        self.learnt_from = advice.learnt_from
        said = self._count_left(advice, fresh=fresh)
        in_force = newer or self.remaining is None or said < self.remaining
        if in_force:
            self.remaining, self._told_at = said, now
        self._move_end(self._latest_end(advice, now), now - sent_at, fresh=fresh, may_rise=in_force)
        self._wait_blindly(now, refused=refused)

    def forget(self) -> None:
        """The server has stopped telling."""
        self.limit = self.remaining = self.closed_until = None

    def _is_over(self, now: float, sent_at: float, advice: Advice) -> bool:
        """Whether this answer speaks of a later window than the one we know: it was sent after
        that one's end, or it is a straggler that says that what was to come is spent already.
        """
        over_at = math.inf if self.closed_until is None else self.closed_until
        return sent_at >= over_at or (now >= over_at and advice.remaining == 0)

    def _move_end(
        self, ends_at: float | None, travel_s: float, *, fresh: bool, may_rise: bool
    ) -> None:
        """The earliest end that an answer allows, until an answer in force speaks of another."""
        if self.closed_until is None or ends_at is None or fresh:
            self.closed_until = ends_at
            return
        # Rounding and the way back move an end by up to a second and the answer's travel.
        is_another = may_rise and ends_at > self.closed_until + 1.0 + travel_s
        self.closed_until = ends_at if is_another else min(self.closed_until, ends_at)

    def _count_left(self, advice: Advice, *, fresh: bool) -> int:
        """What is left; we count ourselves when there is a limit and its end, but no count."""
        if advice.remaining is not None:
            return advice.remaining
        return max(0, ((self.limit if fresh else self.remaining) or 0) - 1)

    def _wait_blindly(self, now: float, *, refused: bool) -> None:
        """Nothing left, and no word on until when."""
        if self.remaining:
            self._blind_waits = 0
        elif self.closed_until is None:
            self._blind_waits = max(1, self._blind_waits + refused)
            wait_s = _BLIND_WAIT_S * 2.0 ** min(self._blind_waits, 10)
            self.closed_until = now + min(wait_s, _LONGEST_BLIND_WAIT_S)

    @property
    def length_s(self) -> float | None:
        """How long a window is, if that is known and has never misled."""
        return None if self.cautious or self._refills else self._length_s

    def _latest_end(self, advice: Advice, now: float) -> float | None:
        """The latest moment at which the window of this answer can end."""
        length_s = self.length_s
        if advice.reset_in_s is None:
            return None if length_s is None else now + length_s
        end_in_s = advice.reset_in_s + (1.0 if advice.reset_is_whole else 0.0)
        if self._refills and not self.cautious and advice.limit and advice.remaining is not None:
            return now + end_in_s / max(1, advice.limit - advice.remaining)
        if length_s is not None and advice.reset_in_s < length_s + 1.0:
            end_in_s = min(end_in_s, length_s)
        return now + end_in_s

    def _learn_length(self, advice: Advice) -> None:
        """Two windows that begin with about the same round number of seconds left are that long.

        Said "20" can mean 20 s, or 20.9 s rounded down; "19" and "20.6" (epoch seconds) are
        then 20 as well. Nobody sets a window of 21 s. Should it be wrong, it costs one 429,
        which makes us cautious.
        """
        if advice.window_s is not None:
            self._length_s = advice.window_s
            return
        if advice.limit is None or (advice.remaining or 0) < advice.limit - 1:
            return  # not a window's beginning
        before_s, self._first_reset_s = self._first_reset_s, advice.reset_in_s
        if before_s is None or advice.reset_in_s is None:
            return
        near = [_nearest_round(before_s), _nearest_round(advice.reset_in_s)]
        if near[0] is not None and near[0] == near[1]:
            self._length_s = near[0]
        elif self._length_s is not None and advice.reset_in_s >= self._length_s + 1.0:
            self._length_s = None

    def _learn_kind(self, advice: Advice) -> None:
        """A reset that moves away as requests are spent is a bucket's, when it will be full:
        then the next token comes long before.
        """
        if not advice.limit or advice.remaining is None or advice.reset_in_s is None:
            return
        if advice.remaining >= advice.limit - 1:
            self._least_used_reset_s = advice.reset_in_s
        elif advice.remaining <= advice.limit // 2 and self._least_used_reset_s:
            self._refills = advice.reset_in_s > 2 * (self._least_used_reset_s + 1.0)


def _nearest_round(seconds: float) -> float | None:
    """The length that people would set which is less than a second away: 2, 5, 10, 15."""
    for length_s in (2.0, 5.0 * round(seconds / 5)):
        if length_s > 0 and abs(seconds - length_s) < 1.0:
            return length_s
    return None
