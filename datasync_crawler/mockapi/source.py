"""Sources of event bytes (generated or recorded), and pages cut from their rendered chunks.

Owns the chunks in memory. Must not know requests, limits or faults.
"""

from __future__ import annotations

import gzip
from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

import msgspec

from datasync_crawler.mockapi import dataset

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from datasync_crawler.mockapi.sequence import Span

Piece = bytes | memoryview


class EventSource(Protocol):
    """A source of the events' bytes, block by block."""

    block_events: int
    total: int | None
    """Number of events, None when it is unlimited."""

    def block(self, number: int) -> Sequence[bytes]:
        """Returns the events of block `number`, in index order."""


class GeneratedEvents:
    """The data set `seed`, without end."""

    block_events = dataset.BLOCK_EVENTS
    total: int | None = None

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def block(self, number: int) -> list[bytes]:
        """Render one block."""
        return dataset.render(dataset.plan(self.seed, number))


class RecordedEvents:
    """The events of a recorded response, each byte as recorded."""

    block_events = 1000

    def __init__(self, events: Sequence[bytes], *, newest_first: bool) -> None:
        # A recording stands in the served order; index 0 is the oldest event.
        self._events = list(reversed(events)) if newest_first else list(events)
        self.total: int | None = len(events)

    def block(self, number: int) -> list[bytes]:
        """Returns the recorded events of the block, fewer in the last one."""
        start = number * self.block_events
        return self._events[start : start + self.block_events]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A rendered block: its events with commas between; event n starts at ends[n] + n."""

    body: memoryview
    ends: Sequence[int]
    """Bytes of the first n events, commas not counted."""

    def piece(self, start: int, stop: int) -> memoryview:
        """Returns events [start, stop) of the chunk, joined by commas, without a copy."""
        return self.body[self.ends[start] + start : self.ends[stop] + stop - 1]


class PageStore:
    """Pages sliced out of joined chunks, the last used chunks kept up to `cache_bytes`."""

    def __init__(self, source: EventSource, cache_bytes: int) -> None:
        self.source = source
        self._cache_bytes = cache_bytes
        self._held_bytes = 0
        self._chunks: OrderedDict[tuple[int, bool], Chunk] = OrderedDict()

    def pieces(self, spans: Iterable[Span]) -> list[Piece]:
        """Returns the events of the spans as few byte pieces, with commas between events."""
        found: list[Piece] = []
        size = self.source.block_events
        for span in spans:
            last = span.first + span.count
            numbers = range(span.first // size, (last - 1) // size + 1) if span.count else range(0)
            for number in reversed(numbers) if span.backwards else numbers:
                start = max(span.first - number * size, 0)
                stop = min(last - number * size, size)
                if found:
                    found.append(b",")
                chunk = self._chunk(number, backwards=span.backwards)
                if span.backwards:
                    count = len(chunk.ends) - 1
                    start, stop = count - stop, count - start
                found.append(chunk.piece(start, stop))
        return found

    def _chunk(self, number: int, *, backwards: bool) -> Chunk:
        key = (number, backwards)
        chunk = self._chunks.get(key)
        if chunk is not None:
            self._chunks.move_to_end(key)
            return chunk
        events = self.source.block(number)
        if backwards:
            events = events[::-1]
        ends = list(accumulate(map(len, events), initial=0))
        chunk = Chunk(memoryview(b",".join(events)), ends)
        self._chunks[key] = chunk
        self._held_bytes += len(chunk.body)
        while self._held_bytes > self._cache_bytes and len(self._chunks) > 1:
            _, dropped = self._chunks.popitem(last=False)
            self._held_bytes -= len(dropped.body)
        return chunk


class _Recording(msgspec.Struct):
    data: list[msgspec.Raw]


def read_recording(path: Path) -> list[bytes]:
    """Read the events of a recorded response (`{"data": […]}` or a bare list; .gz too).

    Each event keeps its bytes as they are in the file.

    Raises:
        ValueError: the file holds no list of events; the sentence names what was expected.
        OSError: the file can't be read.

    """
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    try:
        found = msgspec.json.decode(raw, type=_Recording | list[msgspec.Raw])
    except ValueError as error:
        msg = f'{path} holds no recorded response: a list of events, or an object with "data".'
        raise ValueError(msg) from error
    events = found.data if isinstance(found, _Recording) else found
    return [bytes(event) for event in events]
