"""Reading by cursor: one page after another, from a cursor that the ledger holds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual import Crash, MemoryLeases, MemoryLedger, ProcessLeases

from datasync_crawler.crawl.cursor import read_by_cursor
from datasync_crawler.crawl.ports import World
from datasync_crawler.crawl.reader import Reader
from datasync_crawler.crawl.values import (
    Ask,
    CursorExpired,
    Empty,
    Failed,
    LimitRefused,
    Outcome,
    Page,
    Verdict,
)


class CursorLedger(MemoryLedger):
    """Keeps the cursor of each pass, as the ranges do."""

    def __init__(self) -> None:
        super().__init__()
        self.cursors: dict[int, tuple[str, int]] = {}

    async def cursor(self, pass_no: int) -> tuple[str, int]:
        return self.cursors.get(pass_no, ("", 0))


@dataclass
class Feed:
    """An API by cursor: event number N stands behind cursor "N"."""

    ids: list[str]
    cap: int = 10
    total: bool = True
    says_more: bool = True
    expired: set[str] = field(default_factory=set)
    requests: int = 0
    crash_after: int | None = None

    def get(self, ask: Ask, ledger: CursorLedger) -> Outcome:
        self.requests += 1
        assert ask.cursor is not None
        if ask.cursor in self.expired:
            self.expired.discard(ask.cursor)
            return CursorExpired(ask)
        at = int(ask.cursor or 0)
        ids = self.ids[at : at + min(self.cap, ask.limit)]
        total = len(self.ids) if self.total else None
        if not ids:
            return Empty(ask, total)
        more = at + len(ids) < len(self.ids)
        following = str(at + len(ids)) if more else None
        page = Page(
            ask, ids, new=ledger.commit(ask, ids, total), total=total, next_cursor=following,
            has_more=more if self.says_more else None,
        )  # fmt: skip
        if following:
            ledger.cursors[ask.pass_no] = (following, ask.first + len(ids))
        else:
            ledger.cursors.pop(ask.pass_no, None)
        return page


def read(
    feed: Feed, ledger: CursorLedger, *, page_size: int = 10, redrive: bool = False
) -> Verdict:
    """One run. Raises Crash when the feed has answered `crash_after` requests."""

    async def fetch(ask: Ask) -> Outcome:
        if feed.crash_after is not None and feed.requests >= feed.crash_after:
            raise Crash
        return feed.get(ask, ledger)

    async def pause(seconds: float) -> None:
        raise AssertionError(seconds)

    world = World(ledger, ProcessLeases(MemoryLeases(ledger), 1), fetch, pause, lambda _: None)
    reader = Reader(world, page_size=page_size, in_flight=8, numbered=False)
    return asyncio.run(read_by_cursor(reader, redrive=redrive))


def events(number: int) -> list[str]:
    return [f"e{one}" for one in range(number)]


@given(
    number=st.integers(1, 60), cap=st.integers(1, 12), seed=st.integers(),
    total=st.booleans(), says_more=st.booleans(),
)  # fmt: skip
def test_killed_anywhere_it_goes_on_and_proves_the_set(
    number: int, cap: int, seed: int, *, total: bool, says_more: bool
) -> None:
    """Cursors expire, the process dies: complete is said with every event stored."""
    random = Random(seed)
    feed, ledger = Feed(events(number), cap, total, says_more), CursorLedger()
    for _ in range(random.randrange(4)):
        feed.expired = {str(random.randrange(number))} if random.random() < 0.3 else set()
        feed.crash_after = feed.requests + random.randrange(1, 6)
        try:
            verdict = read(feed, ledger, page_size=12)
        except Crash:
            continue
        assert not verdict.complete or ledger.ids == set(feed.ids)
    feed.crash_after, feed.expired = None, set()
    verdict = read(feed, ledger, page_size=12)
    only_a_full_page = not total and not says_more and number == cap == 12
    assert verdict.complete or only_a_full_page, verdict
    assert not verdict.complete or ledger.ids == set(feed.ids)


def test_an_expired_cursor_starts_over() -> None:
    """Nothing is stored twice; everything is read again from the start."""
    feed, ledger = Feed(events(50)), CursorLedger()
    feed.expired = {"20"}
    assert read(feed, ledger).complete
    assert ledger.ids == set(feed.ids)
    assert feed.requests == 3 + 5


def test_cursors_that_always_expire_end_the_run() -> None:
    """Three passes, then the sentence."""

    class Expiring(Feed):
        def get(self, ask: Ask, ledger: CursorLedger) -> Outcome:
            return CursorExpired(ask) if ask.cursor == "20" else super().get(ask, ledger)

    feed = Expiring(events(50))
    verdict = read(feed, CursorLedger())
    assert (verdict.complete, verdict.rerun) == (False, True)
    assert verdict.sentences == ("the cursor has expired",)
    assert feed.requests == 3 * 2


def test_new_events_in_front_of_a_proved_set_are_few_requests() -> None:
    """The page that holds the head of what was proved ends the run."""
    feed, ledger = Feed(events(100)), CursorLedger()
    assert read(feed, ledger).complete
    feed.ids[0:0] = ["new1", "new2"]
    before = feed.requests
    assert read(feed, ledger).complete
    assert feed.requests - before == 1
    assert ledger.ids == set(feed.ids)
    del feed.ids[50]  # something else has changed: everything is read
    before = feed.requests
    read(feed, ledger)
    assert feed.requests - before >= 10


def test_a_redrive_reads_from_the_start() -> None:
    """What was proved doesn't end it."""
    feed, ledger = Feed(events(100)), CursorLedger()
    assert read(feed, ledger).complete
    before = feed.requests
    assert read(feed, ledger, redrive=True).complete
    assert feed.requests - before == 10


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda page: Failed(page.ask, "HTTP 500"),
         "the page behind event 20 couldn't be fetched: HTTP 500"),
        (lambda page: LimitRefused(page.ask),
         "the page behind event 20 couldn't be fetched: the API rejects every page size"),
        (lambda page: Page(page.ask, page.ids, next_cursor="20", has_more=True),
         "the cursor leads to the same page again (behind event 20)"),
        (lambda page: Page(page.ask, page.ids, has_more=True),
         "behind event 30 the API names neither a cursor"),
        (lambda page: Page(page.ask, page.ids, total=50, has_more=False),
         "the cursor leads to 30 of 50 events only"),
    ],
)  # fmt: skip
def test_a_chain_that_breaks_is_said(change: object, sentence: str) -> None:
    """A page that fails, leads back to itself, or ends before the total."""

    class Broken(Feed):
        def get(self, ask: Ask, ledger: CursorLedger) -> Outcome:
            page = super().get(ask, ledger)
            if ask.cursor == "20" and isinstance(page, Page):
                return change(page)  # type: ignore[operator,no-any-return]
            return page

    verdict = read(Broken(events(50)), CursorLedger())
    assert not verdict.complete
    assert sentence in verdict.sentences[0]


def test_an_empty_feed_proves_nothing() -> None:
    """Nor does a stored cursor that brings no events."""
    verdict = read(Feed([]), CursorLedger())
    assert verdict.sentences == ("the API serves no events",)
    feed, ledger = Feed(events(30)), CursorLedger()
    feed.crash_after = 2
    with pytest.raises(Crash):
        read(feed, ledger)
    feed.crash_after = None
    del feed.ids[15:]
    verdict = read(feed, ledger)
    assert verdict.complete  # read again from the start: what is served now is all there
    assert set(feed.ids) <= ledger.ids


def test_a_limit_that_is_too_large_is_lowered() -> None:
    """And remembered for the next run."""

    class Strict(Feed):
        def get(self, ask: Ask, ledger: CursorLedger) -> Outcome:
            return LimitRefused(ask) if ask.limit > 100 else super().get(ask, ledger)

    ledger = CursorLedger()
    assert read(Strict(events(50), cap=100), ledger, page_size=1000).complete
    assert ledger.page_limit == 100
