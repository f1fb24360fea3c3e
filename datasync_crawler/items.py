"""EventPage: the item that travels from the spider through the pipelines.

A page, not an event, is the item: the unit of fetching, of committing and of the ledger. Must not
do anything: it carries values between the rooms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from datasync_crawler.core.events import Event, Rejection
from datasync_crawler.core.wire import PageDecoder


@dataclass(slots=True, eq=False)
class EventPage:
    """One response's events.

    first_offset, requested and received are in events; `received` counts all that came, rejected
    ones too. `indexes[i]` is the place in the response of `events[i]`; an event's absolute position
    is first_offset + its place. The last five fields are filled in when the page is committed.
    """

    pass_no: int
    first_offset: int
    requested: int
    received: int
    events: list[Event]
    indexes: Sequence[int]
    rejections: list[Rejection]
    body: bytes = field(repr=False)
    decoder: PageDecoder = field(repr=False)
    #: Nothing in the body can need escaping in a COPY.
    plain: bool = False
    #: What the API said of the whole set, to be kept in `source`.
    total: int | None = None
    page_limit: int | None = None
    next_cursor: str | None = None
    cursor_expires_at: datetime | None = None
    #: What the API says of pages behind this one, of a page by cursor.
    has_more: bool | None = None

    committed: bool = False
    inserted: int = 0
    duplicates: int = 0
    changed: int = 0
    rejected: int = 0

    def __repr__(self) -> str:
        """Short: Scrapy's log lines show the item."""
        return f"<EventPage {self.first_offset}+{self.received} of pass {self.pass_no}>"

    @property
    def key(self) -> tuple[int, int]:
        """The page's place in the ledger."""
        return self.pass_no, self.first_offset

    @property
    def first_id(self) -> str | None:
        """Id of the first event that can be stored, for the edges of neighbouring ranges."""
        return self.events[0].id if self.events else None

    @property
    def last_id(self) -> str | None:
        """Id of the last event that can be stored."""
        return self.events[-1].id if self.events else None

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
