"""items.py and log.py: what a page carries, and how little of it a log line shows."""

from __future__ import annotations

from datasync_crawler.api import answers
from datasync_crawler.crawl.values import Ask
from datasync_crawler.events.decoding import PageDecoder
from datasync_crawler.events.event import Rejection
from datasync_crawler.items import EventPage
from datasync_crawler.monitor.log import QuietLogFormatter

BODY = b"""[{"id":"a","name":"kanarienvogel"},{"id":""},{"id":"b"},
{"id":"c", "properties":{}},{"id":"d"}]"""


def page() -> EventPage:
    """Five events at offset 100, of which the second was no event."""
    decoder = PageDecoder()
    wire = decoder.decode(BODY)
    assert wire.indexes is not None
    return EventPage(
        ask=Ask(2, 100, 10),
        ids=answers.known_by(wire),
        events=wire.events,
        indexes=wire.indexes,
        rejections=list(wire.rejections),
        body=BODY,
        decoder=decoder,
    )


def test_a_page_is_named_by_its_place() -> None:
    """Its key is the ledger's, its edges what its first and last event are known by."""
    made = page()
    assert made.key == (2, 100)
    assert (made.first_id, made.last_id, made.before_id, made.received) == ("a", "d", None, 5)


def test_the_overlap_is_no_part_of_the_page() -> None:
    """The event before it is known by its id, and counts for nothing else."""
    made = page()
    made.ask = Ask(2, 100, 9, overlap=1)
    assert (made.before_id, made.received, made.requested) == ("a", 4, 10)
    assert made.first_id.startswith("#")  # an event without an id: by its bytes
    assert made.position(1) == 100


def test_rejecting_keeps_places_and_bytes() -> None:
    """Events move to the rejections with the bytes and the place that they came with; the places
    of those that stay are right, also after a second round.
    """
    made = page()
    assert list(made.indexes) == [0, 2, 3, 4]
    assert [rejection.index for rejection in made.rejections] == [1]
    made.reject([(2, "why"), (0, "so")])
    assert [event.id for event in made.events] == ["b", "d"]
    assert list(made.indexes) == [2, 4]
    assert made.rejections[1:] == [
        Rejection(3, "why", b'{"id":"c", "properties":{}}'),
        Rejection(0, "so", b'{"id":"a","name":"kanarienvogel"}'),
    ]
    made.reject([(1, "too")])
    assert made.rejections[-1] == Rejection(4, "too", b'{"id":"d"}')
    assert len(made.events) + len(made.rejections) == made.received == 5


def test_rejecting_nothing_changes_nothing() -> None:
    """The common case: the events aren't copied."""
    made = page()
    events = made.events
    made.reject([])
    assert made.events is events


def test_a_page_in_a_log_line_shows_no_event() -> None:
    """5,000 events, maybe private ones, don't go into a log: the page's name does."""
    made = page()
    assert repr(made) == str(made) == "<EventPage 100+5 of pass 2>"
    assert "kanarienvogel" not in f"{made} {made!r}"


def test_pages_are_not_compared_by_content() -> None:
    """Two fetches of one page are two items; comparing 5,000 events would be slow, too."""
    assert page() != page()
    assert len({page(), page()}) == 2


def test_a_page_is_no_line_of_the_log() -> None:
    """Scrapy would log each response and each item."""
    formatter = QuietLogFormatter()
    assert formatter.crawled(None, None, None) is None  # type: ignore[arg-type]
    assert formatter.scraped(page(), None, None) is None  # type: ignore[arg-type]
    told = formatter.item_error(page(), Exception(), None, None)  # type: ignore[arg-type]
    assert "kanarienvogel" not in told["msg"] % told["args"]
