"""Where event bytes come from: the generated data set or a recorded response, in joined chunks.

Owns the rendered chunks in memory and the slicing of pages out of them. Must not know of requests,
limits or faults of responses.
"""

from __future__ import annotations

import gzip
import json
from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from datasync_crawler.mockapi import dataset

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from datasync_crawler.mockapi.sequence import Span

Piece = bytes | memoryview


class EventSource(Protocol):
    """Gives the bytes of the events of one block, by absolute index."""

    block_events: int

    @property
    def total(self) -> int | None:
        """Events there are, None when there is no end to them."""

    def block(self, number: int) -> Sequence[bytes]:
        """Give the events of block `number`, in index order."""

    def sort_key(self, index: int) -> tuple[str, int]:
        """Give id and instant (ms since the epoch) of the event, for a cursor."""


class GeneratedEvents:
    """The data set `seed`, without end, with `overlay` (bad events) laid over each block."""

    block_events = dataset.BLOCK_EVENTS
    total: int | None = None

    def __init__(
        self, seed: int, timestamps: dataset.Timestamps, overlay: BlockOverlay | None = None
    ) -> None:
        self.seed = seed
        self.timestamps = timestamps
        self._overlay = overlay

    def block(self, number: int) -> Sequence[bytes]:
        """Render one block and lay the overlay over it."""
        events = dataset.render(dataset.plan(self.seed, number), self.timestamps)
        if self._overlay is not None:
            self._overlay.lay_over(events, number * self.block_events)
        return events

    def sort_key(self, index: int) -> tuple[str, int]:
        """Give id and instant of the event."""
        event_id = dataset.truth(self.seed, index, self.timestamps).id
        return event_id, dataset.order_key_ms(self.seed, index)


class BlockOverlay(Protocol):
    """Changes events of a block in place, by absolute index."""

    def lay_over(self, events: list[bytes], first_index: int) -> None:
        """Replace events of the block that starts at `first_index`."""


class ReplayedEvents:
    """The events of a recorded response, each byte as recorded."""

    block_events = 1000

    def __init__(self, events: Sequence[bytes], *, newest_first: bool) -> None:
        # A recording stands in newest-first order; index 0 is the oldest event.
        self._events = list(reversed(events)) if newest_first else list(events)
        self.total: int | None = len(events)

    def block(self, number: int) -> Sequence[bytes]:
        """Give the recorded events of the block, fewer in the last one."""
        start = number * self.block_events
        return self._events[start : start + self.block_events]

    def sort_key(self, index: int) -> tuple[str, int]:
        """Give the recorded id; the instant is the index, since a recording has its own order."""
        event = json.loads(self._events[index].decode("utf-8", "surrogateescape"))
        return str(event.get("id") if isinstance(event, dict) else None), index


@dataclass(frozen=True, slots=True)
class Chunk:
    """A rendered block: its events with commas between; event n starts at ends[n] + n."""

    body: memoryview
    ends: Sequence[int]
    """Bytes of the first n events, commas not counted."""

    def piece(self, start: int, stop: int) -> memoryview:
        """Give events [start, stop) of the chunk, joined by commas, without a copy."""
        return self.body[self.ends[start] + start : self.ends[stop] + stop - 1]


class PageStore:
    """Pages sliced out of joined chunks, the last used chunks kept up to `cache_bytes`."""

    def __init__(self, source: EventSource, cache_bytes: int) -> None:
        self.source = source
        self._cache_bytes = cache_bytes
        self._held_bytes = 0
        self._chunks: OrderedDict[tuple[int, bool], Chunk] = OrderedDict()

    def pieces(self, spans: Iterable[Span]) -> list[Piece]:
        """Give the events of the spans as few byte pieces, commas between events included."""
        found: list[Piece] = []
        size = self.source.block_events
        for span in spans:
            index, last = span.first, span.first + span.count
            parts: list[tuple[int, int, int]] = []
            while index < last:
                number, start = divmod(index, size)
                stop = min(size, start + last - index)
                parts.append((number, start, stop))
                index += stop - start
            for number, start, stop in reversed(parts) if span.backwards else parts:
                if found:
                    found.append(b",")
                found.append(self._piece(number, start, stop, backwards=span.backwards))
        return found

    def events(self, spans: Iterable[Span]) -> list[bytes]:
        """Give the events of the spans one by one: for faults that change single events."""
        found: list[bytes] = []
        size = self.source.block_events
        for span in spans:
            for index in span.indices():
                number, position = divmod(index, size)
                found.append(bytes(self._piece(number, position, position + 1, backwards=False)))
        return found

    def _piece(self, number: int, start: int, stop: int, *, backwards: bool) -> memoryview:
        chunk = self._chunk(number, backwards=backwards)
        if backwards:
            count = len(chunk.ends) - 1
            return chunk.piece(count - stop, count - start)
        return chunk.piece(start, stop)

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


def read_recording(path: Path) -> list[bytes]:
    """Read the events of a recorded response (`{"data": […]}` or a bare list; .gz too).

    Each event's bytes are cut out of the file, not written anew.

    Raises:
        ValueError: the file holds no list of events; the sentence says what was looked for.
        OSError: the file can't be read.

    """
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    text = raw.decode("utf-8", "surrogateescape")
    try:
        start = _list_start(text)
        return [
            text[low:high].encode("utf-8", "surrogateescape") for low, high in _items(text, start)
        ]
    except (ValueError, IndexError) as error:
        msg = f'{path} holds no recorded response: a list of events, or an object with "data".'
        raise ValueError(msg) from error


def _skip(text: str, place: int) -> int:
    while text[place] in " \t\r\n":
        place += 1
    return place


def _list_start(text: str) -> int:
    """Find the bracket that opens the list of events, at the top or under the key `data`."""
    decoder = json.JSONDecoder()
    place = _skip(text, 0)
    if text[place] == "[":
        return place
    while text[place] in "{,":
        key, place = decoder.raw_decode(text, _skip(text, place + 1))
        place = _skip(text, _skip(text, place) + 1)
        if key == "data" and text[place] == "[":
            return place
        _, place = decoder.raw_decode(text, place)
        place = _skip(text, place)
    raise ValueError("no list under data")


def _items(text: str, start: int) -> Iterable[tuple[int, int]]:
    """Give (start, end) of each item of the list that opens at `start`."""
    decoder = json.JSONDecoder()
    place = _skip(text, start + 1)
    while text[place] != "]":
        _, end = decoder.raw_decode(text, place)
        yield place, end
        place = _skip(text, end)
        if text[place] == ",":
            place = _skip(text, place + 1)
