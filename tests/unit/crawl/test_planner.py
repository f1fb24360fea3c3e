"""The planner against virtual servers: whatever they do, "complete" is true.

Each server is crawled in several seeds, with 1 to 16 requests in flight, at once and killed and
resumed on the way. `table.py` prints the same for any number of seeds.
"""

from __future__ import annotations

import asyncio
import math
from random import Random

import pytest
from virtual import KINDS, MemoryLedger, Run, Server, Story

from datasync_crawler.crawl.values import Ask, NoEndpoint, Outcome, Verdict

SEEDS = 3


def crawl(
    server: Server, ledger: MemoryLedger, *, page_size: int, in_flight: int = 4, seed: int = 1
) -> Verdict:
    """One run to its verdict."""
    run = Run(server, ledger, Random(seed), page_size=page_size, in_flight=in_flight)
    verdict = asyncio.run(run.run())
    assert isinstance(verdict, Verdict)
    return verdict


@pytest.mark.parametrize("crashes", [False, True], ids=["", "killed"])
@pytest.mark.parametrize("kind", KINDS, ids="/".join)
def test_complete_is_never_said_of_a_set_with_events_missing(
    kind: tuple[str, str, str], *, crashes: bool
) -> None:
    """The crawl ends, in a bounded number of requests, and what was there all the time is stored
    when the verdict is "complete".
    """
    for seed in range(SEEDS):
        told = Story.tell(f"{kind}{seed}", kind, crashes=crashes)
        assert not (told.outcome == "complete" and told.missing), seed
        assert told.requests <= 60 * told.pages + 200, seed


@pytest.mark.parametrize(
    ("story", "kind", "crashes"),
    [
        ("kit100246", ("still", "pages+capped", "behind"), True),
        ("kit100721", ("one-out", "pages+capped-late", "behind"), True),
        ("kit100033", ("head", "ties+pages", "capped"), False),
    ],
)
def test_stories_that_were_complete_with_events_missing(
    story: str, kind: tuple[str, str, str], *, crashes: bool
) -> None:
    """An end that had moved, and aligned pages with an event twice, were believed."""
    told = Story.tell(story, kind, crashes=crashes)
    assert told.outcome == "incomplete" or not told.missing


@pytest.mark.parametrize("kind", KINDS, ids="/".join)
def test_later_runs_say_no_more_than_is_true(kind: tuple[str, str, str]) -> None:
    """Two more runs after the first verdict: a proof of before, or an unfinished pass, is no
    excuse.
    """
    for seed in range(2):
        told = Story.tell(f"later {kind}{seed}", kind, crashes=seed > 0, runs=3)
        assert not (told.outcome == "complete" and told.missing), seed


def test_a_single_event_behind_the_end_says_nothing_of_the_page_size() -> None:
    """One event came in at the end: the next pages are as long as before."""
    server, ledger = Server(Random(1), 500, 100, saying="none"), MemoryLedger()
    run = Run(server, ledger, Random(1), page_size=100, in_flight=1)
    answer, grown = run.answer, []

    def grow(ask: Ask) -> Outcome:
        if ask.offset >= 499 and not grown:
            grown.append(ask)
            outcome = answer(ask)
            server.insert(500)
            return outcome
        return answer(ask)

    run.answer = grow  # type: ignore[method-assign]
    assert isinstance(asyncio.run(run.run()), Verdict)
    assert set(server.ids) <= ledger.ids
    assert run.planner._reader.sizes.size == 100


@pytest.mark.parametrize("total", [1, 2, 99, 100, 101, 199, 1000, 2345])
@pytest.mark.parametrize("in_flight", [1, 16])
def test_a_still_set_costs_a_request_in_a_page_size_and_one_at_the_end(
    total: int, in_flight: int
) -> None:
    """Pages of 100 bring 99 events each behind the first; then nothing is behind the last. A total
    that only the single page has said may be made up from its end: one request more.
    """
    server, ledger = Server(Random(1), total, 100), MemoryLedger()
    assert crawl(server, ledger, page_size=100, in_flight=in_flight).complete
    assert ledger.ids == server.persistent
    assert server.requests <= 1 + math.ceil(max(total - 100, 0) / 99) + 1 + (total <= 100)


@pytest.mark.parametrize("place", [0, 500, 1000])
def test_one_event_more_costs_few_requests(place: int) -> None:
    """One event comes in at the front, in the middle or at the end while the set is read."""
    for seed in range(10):
        server, ledger = Server(Random(seed), 1000, 100, moving="one-in"), MemoryLedger()
        server.once_at = 5
        server.random = Random(0)
        server.random.choice = lambda places: place  # type: ignore[method-assign,assignment]
        assert crawl(server, ledger, page_size=100, in_flight=1, seed=seed).complete
        assert set(server.ids) <= ledger.ids
        assert server.requests <= 1 + math.ceil(900 / 99) + 4


@pytest.mark.parametrize(("front", "behind"), [(0, 0), (3, 0), (0, 7), (3, 250), (450, 30)])
def test_a_closed_set_is_not_read_again(front: int, behind: int) -> None:
    """A second run looks at head and tail, and fetches what is new."""
    server, ledger = Server(Random(1), 5000, 100), MemoryLedger()
    assert crawl(server, ledger, page_size=100).complete
    before = server.requests
    server.insert(0, front)
    server.insert(len(server.ids), behind)
    assert crawl(server, ledger, page_size=100).complete
    assert ledger.ids == set(server.ids)
    assert server.requests - before <= 6 + math.ceil(front / 99) + math.ceil(behind / 99)


@pytest.mark.parametrize("change", ["middle", "tail gone", "head gone"])
def test_a_closed_set_whose_anchors_dont_fit_is_read_again(change: str) -> None:
    """An event that comes into the middle, or an anchor that is gone: a new pass finds all."""
    server, ledger = Server(Random(1), 1000, 100), MemoryLedger()
    assert crawl(server, ledger, page_size=100).complete
    if change == "middle":
        server.insert(500)
    else:
        server.delete(0 if change == "head gone" else len(server.ids) - 1)
    assert crawl(server, ledger, page_size=100).complete
    assert set(server.ids) <= ledger.ids


def test_an_order_that_is_unstable_among_neighbours_is_read_with_a_wide_overlap() -> None:
    """Groups of seven in any order: at most one and a half requests a page, in a long crawl."""
    server = Server(Random(1), 30_000, 250, answering="ties")
    ledger = MemoryLedger()
    assert crawl(server, ledger, page_size=250).complete
    assert ledger.ids == server.persistent
    assert server.requests <= 1.5 * 120


def test_a_total_that_counts_what_is_never_served_is_said() -> None:
    """The end is there, the total says more: incomplete, with the sentence, in few requests."""
    server, ledger = Server(Random(1), 1000, 100, saying="more"), MemoryLedger()
    verdict = crawl(server, ledger, page_size=100)
    assert not verdict.complete
    assert "serves none behind the first 1,000" in verdict.sentences[0]
    assert server.requests < 50


def test_ids_that_are_served_twice_are_said_and_remembered() -> None:
    """A second pass brings nothing new: complete, with a word; the next run knows it."""
    server, ledger = Server(Random(1), 1000, 100, answering="far-twice"), MemoryLedger()
    verdict = crawl(server, ledger, page_size=100)
    assert verdict.complete
    assert verdict.sentences == ("5 of the API's 1,005 are ids that it serves more than once.",)
    before = server.requests
    assert crawl(server, ledger, page_size=100).complete
    assert server.requests - before <= 3


def test_offsets_that_are_ignored_are_noticed() -> None:
    """The same page at each offset: no endpoint for offsets, after a few requests."""
    server, ledger = Server(Random(1), 1000, 100, answering="ignores"), MemoryLedger()
    run = Run(server, ledger, Random(1), page_size=100, in_flight=4)
    assert isinstance(asyncio.run(run.run()), NoEndpoint)
    assert server.requests < 10


@pytest.mark.parametrize("in_flight", [1, 8])
def test_pages_that_cant_be_fetched_are_named(in_flight: int) -> None:
    """Some requests fail for good: they are asked for in later rounds, and all is there."""
    server, ledger = Server(Random(1), 2000, 100), MemoryLedger()
    run = Run(server, ledger, Random(1), page_size=100, in_flight=in_flight, failing=0.2)
    verdict = asyncio.run(run.run())
    assert isinstance(verdict, Verdict)
    assert not (verdict.complete and server.persistent - ledger.ids)
    if not verdict.complete:
        assert "HTTP 503" in verdict.sentences[0]


@pytest.mark.parametrize("saying", ["right", "none", "flips"])
def test_numbered_pages_are_proved_by_counts_or_a_second_pass(saying: str) -> None:
    """Without an overlap: a total that stands still and matches, else everything twice."""
    server, ledger = Server(Random(1), 1030, 100, saying=saying), MemoryLedger()
    run = Run(server, ledger, Random(1), page_size=100, in_flight=4, numbered=True)
    verdict = asyncio.run(run.run())
    assert isinstance(verdict, Verdict)
    assert verdict.complete
    assert ledger.ids == server.persistent
    assert server.requests <= (15 if saying == "right" else 50)
