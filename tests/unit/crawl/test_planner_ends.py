"""Where the end of the set is, and what is never taken for it."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from virtual import MemoryLedger, Run, Server, Story

from datasync_crawler.crawl.planner import GROWING, UNENDING
from datasync_crawler.crawl.reader import Round
from datasync_crawler.crawl.seams import Comparison
from datasync_crawler.crawl.values import Ask, Empty, Joined, Outcome, Page, Verdict


def crawl(server: Server, ledger: MemoryLedger, *, in_flight: int = 4, **replaced: object) -> Run:
    """A run of a server with pages of its own size, to its verdict: `planning` of the run."""
    run = Run(server, ledger, Random(1), page_size=max(server.cap, 2), in_flight=in_flight)
    for name, value in replaced.items():
        setattr(run, name, value)
    return run


def verdict_of(run: Run) -> Verdict:
    """The verdict of one run."""
    verdict = asyncio.run(run.run())
    assert isinstance(verdict, Verdict)
    return verdict


@pytest.mark.parametrize("in_flight", [1, 8])
@pytest.mark.parametrize("saying", ["none", "behind", "ahead", "half"])
def test_a_set_of_any_size_is_read_to_its_end_without_a_total(saying: str, in_flight: int) -> None:
    """900 pages and more: the pages that are requested ahead double until the end is there."""
    server, ledger = Server(Random(1), 9000, 10, saying=saying), MemoryLedger()
    assert verdict_of(crawl(server, ledger, in_flight=in_flight)).complete
    assert ledger.ids == server.persistent
    assert server.requests <= 1.2 * 9000 / 9


@pytest.mark.parametrize("saying", ["behind", "ahead", "rising"])
def test_the_page_size_is_learned_whatever_the_total_says(saying: str) -> None:
    """A total that rises with each answer makes no page the last one."""
    server, ledger = Server(Random(1), 5000, 100, saying=saying), MemoryLedger()
    run = Run(server, ledger, Random(1), page_size=1000, in_flight=4)
    assert verdict_of(run).complete
    assert run.planner._reader.sizes.size == 100


def test_a_total_that_is_always_ahead_is_known_by_two_empty_answers() -> None:
    """It follows the offset that was asked for: it is no total, and keeps nothing going."""
    server, ledger = Server(Random(1), 1000, 100, saying="rising"), MemoryLedger()
    verdict = verdict_of(crawl(server, ledger))
    assert (verdict.complete, verdict.total) == (True, None)
    assert server.requests < 30


@pytest.mark.parametrize("saying", ["behind", "right"])
@pytest.mark.parametrize("answering", ["plain", "last-page", "inclusive"])
def test_pages_of_one_event_show_no_end_by_themselves(answering: str, saying: str) -> None:
    """The only event of an answer is the last one of the answer, not of the set."""
    server = Server(Random(1), 12, 1, answering=answering, saying=saying)
    ledger = MemoryLedger()
    verdict = verdict_of(crawl(server, ledger))
    assert not (verdict.complete and server.persistent - ledger.ids)
    assert verdict.complete or verdict.sentences[0]


def test_an_empty_answer_in_the_middle_is_not_the_end() -> None:
    """Without a total, and with pages behind it: the offsets are named."""
    server, ledger = Server(Random(1), 2000, 100, saying="none"), MemoryLedger()
    run = crawl(server, ledger)
    answer = run.answer

    def holed(ask: Ask) -> Outcome:
        return Empty(ask) if 900 <= ask.offset + ask.limit - 1 < 1000 else answer(ask)

    run.answer = holed  # type: ignore[method-assign]
    verdict = verdict_of(run)
    assert not (verdict.complete and server.persistent - ledger.ids)


@pytest.mark.parametrize("moving", ["still", "tail"])
def test_a_last_page_that_is_served_for_ever_is_the_end_at_the_first_gap(moving: str) -> None:
    """No total but what each answer ends with, and a set that may grow: most end complete."""
    complete = 0
    for seed in range(6):
        server = Server(Random(seed), 800, 30, moving=moving, answering="last-page",
                        saying="behind")  # fmt: skip
        server.rate, ledger = 0.05, MemoryLedger()
        verdict = verdict_of(crawl(server, ledger))
        assert not (verdict.complete and server.persistent - ledger.ids)
        complete += verdict.complete
    assert complete >= 4


def test_a_server_that_begins_again_behind_its_end_is_left() -> None:
    """The same events come at any offset, and there is no total: it could go on for ever."""
    server, ledger = Server(Random(1), 1003, 100, saying="none"), MemoryLedger()
    run = crawl(server, ledger)

    def around(ask: Ask) -> Outcome:
        server.requests += 1
        ids = [server.ids[place % 1003] for place in range(ask.offset, ask.offset + ask.limit)]
        return Page(ask, ids, new=ledger.commit(ask, ids, None))

    run.answer = around  # type: ignore[method-assign]
    run.planner._reader.in_flight = 1
    verdict = verdict_of(run)
    assert ledger.ids == server.persistent
    assert verdict.complete or verdict.sentences == (UNENDING,)
    assert server.requests < 1000


def test_a_set_that_grows_as_fast_as_it_is_read_ends_with_a_sentence() -> None:
    """A third of a page of events comes in with each request."""
    server, ledger = Server(Random(1), 300, 10, saying="none"), MemoryLedger()
    run = crawl(server, ledger)
    answer = run.answer

    def grow(ask: Ask) -> Outcome:
        server.insert(len(server.ids), 3)
        return answer(ask)

    run.answer = grow  # type: ignore[method-assign]
    verdict = verdict_of(run)
    assert verdict.complete or verdict.sentences[0] in {GROWING, UNENDING}
    assert server.requests < 3000


@pytest.mark.parametrize("answering", ["rounded", "pages"])
@pytest.mark.parametrize("saying", ["right", "none"])
def test_offsets_that_are_rounded_down_are_noticed(answering: str, saying: str) -> None:
    """It is read again by aligned pages, and proved by counts or a pass that brings nothing new."""
    server = Server(Random(1), 2030, 100, answering=answering, saying=saying)
    ledger = MemoryLedger()
    assert verdict_of(crawl(server, ledger)).complete
    assert ledger.ids == server.persistent
    before = server.requests
    assert verdict_of(crawl(server, ledger)).complete
    assert server.requests - before <= 3.5 * 21


def test_ids_that_another_source_has_stored_are_read_once() -> None:
    """Each id is a conflict: that is no sign of a set that moves."""
    server = Server(Random(1), 2000, 100)
    ledger = MemoryLedger(ids=set(server.ids))
    assert verdict_of(crawl(server, ledger)).complete
    assert server.requests <= 22


def test_seams_of_a_narrower_overlap_are_not_stored_after_it_was_widened() -> None:
    """What waits to be stored may have joined by chance, as the order has just turned out to be
    unstable: a crawl was called complete with two events missing.
    """
    run = crawl(Server(Random(1), 300, 30), MemoryLedger())
    now = Round(joined=[Joined(59, "deep", 1)])
    run.planner._reader._widen(Comparison("doubt", 1, disorder=True), now)
    assert (now.widened, now.joined) == (True, [])


@pytest.mark.parametrize("kind", [("roll", "plain", "right"), ("roll", "rounded", "right")])
def test_counts_that_match_by_chance_prove_nothing(kind: tuple[str, str, str]) -> None:
    """As many events have gone at the front as came in at the end, and pages don't overlap."""
    for seed in range(10):
        told = Story.tell(f"counts{seed}", kind, numbered=True)
        assert not (told.outcome == "complete" and told.missing), seed
