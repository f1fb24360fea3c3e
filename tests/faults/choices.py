"""A base for faults that have a parameter of a few words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from datasync_crawler.mockapi.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class ChoosingFault(Fault):
    """Checks the parameters named in `choices`. Raises ValueError."""

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __post_init__(self) -> None:
        """Check."""
        for key, allowed in self.choices.items():
            if getattr(self, key) not in allowed:
                msg = f"Fault {self.fault_name}: {key} must be one of {', '.join(allowed)}."
                raise ValueError(msg)
