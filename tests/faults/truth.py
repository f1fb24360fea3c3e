"""What a correct crawl stores of each event of the mock's data set.

Comes from the same plan that the bytes are rendered from, and never from the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from datasync_crawler.mockapi import dataset

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Truth:
    """What a correct crawl stores of one event: the columns of `events` by their names.

    `instant_us` is microseconds since the Unix epoch, UTC. `properties`, `session` and `extra` are
    the values that the columns' JSON must equal; `extra` is None when there is nothing to keep.
    """

    id: str
    session_id: str | None
    user_id: str | None
    type: str | None
    name: str | None
    properties: object
    instant_us: int
    session: object
    extra: object = None


@lru_cache(maxsize=16)
def _planned(seed: int, block: int) -> dataset.Block:
    return dataset.plan(seed, block)


@lru_cache(maxsize=16)
def _rendered(seed: int, block: int) -> list[bytes]:
    return dataset.render(_planned(seed, block))


def event_json(seed: int, index: int) -> bytes:
    """Give the JSON bytes of the event at `index` (0 is the oldest), whatever the index."""
    block, position = divmod(index, dataset.BLOCK_EVENTS)
    return _rendered(seed, block)[position]


def truth(seed: int, index: int) -> Truth:
    """Give what a correct crawl stores of the event at `index`, by the plan, not by its bytes."""
    block_number, position = divmod(index, dataset.BLOCK_EVENTS)
    block = _planned(seed, block_number)
    session = block.session_table[block.sessions[position]]
    instant_us = (block.first_second + block.seconds[position]) * 1_000_000
    if dataset.FORMATS[position % len(dataset.FORMATS)] in (dataset.ISO_MS, dataset.UNIX_MS):
        instant_us += block.millis[position] % 1000 * 1000
    return Truth(
        id=block.ids[position].decode(),
        session_id=session.id,
        user_id=session.user_id,
        type=dataset.TYPES[block.types[position]],
        name="event_" + block.names[position].decode(),
        properties={"page": dataset.PAGES[block.pages[position] % len(dataset.PAGES)]},
        instant_us=instant_us,
        session={
            "id": session.id,
            "deviceType": session.device,
            "browser": session.browser,
        },
    )


def truths(seed: int, start: int, stop: int) -> Iterator[Truth]:
    """Give the truth of the events at `start` up to, not including, `stop`, in index order."""
    for index in range(start, stop):
        yield truth(seed, index)
