"""The probe: a request that is sent alone, because its answer decides about the others."""

from typing import Final

# A probe may hang until the download's time-out; after this wait another one is sent.
_PATIENCE_S: Final = 10.0


class Probe:
    """Times are monotonic seconds."""

    def __init__(self) -> None:
        self.is_due = True  # the next request is a probe; the first one is, too
        self._sent_at: float | None = None

    def is_awaited(self, now: float) -> bool:
        """Whether the others have to wait for its answer."""
        return self._sent_at is not None and now < self._sent_at + _PATIENCE_S

    def sent(self, now: float, *, alone: bool) -> None:
        """A request is sent; `alone`: it is a probe for a reason of its own."""
        if self.is_due or alone or self._sent_at is not None:
            self._sent_at = now

    def ended(self, sent_at: float) -> bool:
        """Whether the request sent at *sent_at* was the probe, or was sent after it."""
        is_probe = self._sent_at is not None and sent_at >= self._sent_at
        if is_probe:
            self._sent_at = None
        return is_probe
