"""EventPage: the item that passes from the spider through the pipelines.

The item is a page, not an event: the unit of fetching, of committing and of the ledger. Holds
values only: must not do I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from datasync_crawler.crawl.values import Ask
from datasync_crawler.events.decoding import PageDecoder
from datasync_crawler.events.event import Event, Rejection


@dataclass(slots=True, eq=False)
class EventPage:
    """One response's events, less those of its overlap with the page before.

    `ids`: the identity of each event of the whole response, the overlap first. `indexes[i]` is the
    index of `events[i]` in the response. `request_no`: the number of its request, for the spider.
    The last five fields are set when the page is committed.
    """

    ask: Ask
    ids: Sequence[str] = field(repr=False)
    events: list[Event]
    indexes: Sequence[int]
    rejections: list[Rejection]
    body: bytes = field(repr=False)
    decoder: PageDecoder = field(repr=False)
    request_no: int = 0
    #: No other page is in flight that could share its transaction.
    alone: bool = False
    #: Nothing in the body can need escaping in a COPY.
    plain: bool = False
    #: The API's total in this response.
    total: int | None = None
    next_cursor: str | None = None
    cursor_expires_at: datetime | None = None
    #: Whether the API announces more pages; for a page by cursor.
    has_more: bool | None = None
    #: Age of the response in seconds, if a cache may have sent it.
    cached_s: float = 0.0

    committed: bool = False
    #: Its lease is another process's: it must not be committed.
    fenced: bool = False
    inserted: int = 0
    duplicates: int = 0
    changed: int = 0
    rejected: int = 0

    def __repr__(self) -> str:
        """Short: Scrapy's log lines show the item."""
        return f"<EventPage {self.first_offset}+{self.received} of pass {self.pass_no}>"

    @property
    def pass_no(self) -> int:
        """Above 0: a pass over the set; below 0: a pass that checks other ranges."""
        return self.ask.pass_no

    @property
    def first_offset(self) -> int:
        """The ledger's offset of the first event after the overlap."""
        return self.ask.first

    @property
    def requested(self) -> int:
        """The limit in the request, in events; never 0."""
        return self.ask.limit

    @property
    def received(self) -> int:
        """Events after the overlap, with the rejected ones."""
        return len(self.ids) - self.ask.overlap

    @property
    def repeated(self) -> int:
        """Events whose id came before in the same response."""
        return len(self.ids) - len(set(self.ids))

    @property
    def checks(self) -> bool:
        """Whether the page checks other ranges, whose rejections it then doesn't replace."""
        return self.pass_no < 0 and not self.ask.redrive

    @property
    def key(self) -> tuple[int, int]:
        """The page's place in the ledger."""
        return self.pass_no, self.first_offset

    @property
    def before_id(self) -> str | None:
        """The identity of the last event of the overlap."""
        return self.ids[self.ask.overlap - 1] if self.ask.overlap else None

    @property
    def first_id(self) -> str:
        """The identity of the first event after the overlap."""
        return self.ids[self.ask.overlap]

    @property
    def last_id(self) -> str:
        """The identity of the last event."""
        return self.ids[-1]

    def position(self, index: int) -> int:
        """The ledger's offset of the event at *index* in the response."""
        return self.first_offset + index - self.ask.overlap

    def reject(self, refused: Sequence[tuple[int, str]]) -> None:
        """Moves events to the rejections: pairs of place in `events` and reason."""
        if not refused:
            return
        bad = {place for place, _ in refused}
        places = [self.indexes[place] for place, _ in refused]
        raws = self.decoder.raw_events(self.body, places)
        for index, (_, reason), raw in zip(places, refused, raws, strict=True):
            self.rejections.append(Rejection.of(index, reason, raw))
        kept = [place for place in range(len(self.events)) if place not in bad]
        self.indexes = [self.indexes[place] for place in kept]
        self.events = [self.events[place] for place in kept]
