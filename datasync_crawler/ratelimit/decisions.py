"""What the limiter answers: values alone."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["ok", "limited", "unauthorized", "failed"]
# "permit": one of the shared row is needed (`shared`).
Reason = Literal["", "in flight", "probe", "pause", "limit", "permit"]


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request may be sent. `delay_s` 0.0: yes, and it counts as sent."""

    delay_s: float
    reason: Reason


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an answer means, and the log messages about it.

    limited: all requests pause, no retry is used up; unauthorized: 401, or 403 that isn't a rate
    limit's; failed: 5xx.
    """

    kind: Kind
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """Our share of the slowest limit's current window; None where not known."""

    limit: int | None
    remaining: int
    reset_in_s: float | None
    window_s: float | None
    source: str
