"""Bad and odd events: which indices hold one, what bytes they are served as, what becomes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from datasync_crawler.mockapi.dataset import Timestamps
    from datasync_crawler.mockapi.faults import Fault


def plan_of(faults: Iterable[Fault]) -> None:
    return None


class Overlay:
    def __init__(self, seed: int, timestamps: Timestamps, plan: None) -> None: ...

    def lay_over(self, events: list[bytes], first_index: int) -> None: ...
