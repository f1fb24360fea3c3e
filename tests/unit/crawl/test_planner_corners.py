"""What APIs seldom do, each by a server that does it all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from virtual import MemoryLedger, Run, Server

from datasync_crawler.crawl.planner import Planner
from datasync_crawler.crawl.sizes import PageSize
from datasync_crawler.crawl.values import (
    Ask,
    Empty,
    Failed,
    Gap,
    LimitRefused,
    Outcome,
    Page,
    Verdict,
)

Answer = Callable[[Ask], Outcome]


def crawl(
    server: Server, ledger: MemoryLedger, *, page_size: int = 100, numbered: bool = False,
    change: Callable[[Run, Answer], Answer] | None = None,
) -> tuple[Verdict, list[float]]:  # fmt: skip
    """One run whose answers *change* replaces; the verdict, and the pauses in seconds."""
    run = Run(server, ledger, Random(1), page_size=page_size, in_flight=4, numbered=numbered)
    if change is not None:
        run.answer = change(run, run.answer)  # type: ignore[method-assign]
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    object.__setattr__(run.planner._reader.world, "pause", pause)
    verdict = asyncio.run(run.run())
    assert isinstance(verdict, Verdict)
    return verdict, pauses


def most(limit: int) -> Callable[[Run, Answer], Answer]:
    """An API that takes no larger limit."""
    return lambda _, answer: lambda ask: LimitRefused(ask) if ask.limit > limit else answer(ask)


def test_a_limit_that_is_too_large_is_lowered_and_remembered() -> None:
    """Common limits are tried one after another; the next run begins with the one that worked."""
    server, ledger = Server(Random(1), 950, 100), MemoryLedger()
    asked: list[int] = []

    def note(run: Run, answer: Answer) -> Answer:
        def noted(ask: Ask) -> Outcome:
            asked.append(ask.limit)
            return most(100)(run, answer)(ask)

        return noted

    assert crawl(server, ledger, page_size=1000, change=note)[0].complete
    assert asked[:4] == [1000, 500, 250, 100]
    assert ledger.page_limit == 100
    asked.clear()
    assert crawl(server, ledger, page_size=1000, change=note)[0].complete
    assert max(asked) <= 100


def test_an_api_that_takes_no_limit_at_all_is_said() -> None:
    """Down to ten events; then it is the setting's name that is wrong."""
    server = Server(Random(1), 950, 100)
    verdict, _ = crawl(server, MemoryLedger(), change=most(5))
    assert not verdict.complete
    assert "the API rejects every page size" in verdict.sentences[0]


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [(lambda ask: Failed(ask, "HTTP 503"), "the first page couldn't be fetched: HTTP 503"),
     (lambda ask: Empty(ask, 0), "the API serves no events")],
)  # fmt: skip
def test_without_a_first_page_there_is_no_crawl(outcome: Answer, sentence: str) -> None:
    """Its cause is the verdict's."""
    verdict, _ = crawl(Server(Random(1), 950, 100), MemoryLedger(), change=lambda *_: outcome)
    assert (verdict.complete, verdict.sentences, verdict.rerun) == (False, (sentence,), True)


@pytest.mark.parametrize("total", ["right", "none"])
def test_an_end_that_cant_be_fetched_is_incomplete(total: str) -> None:
    """All pages are there, but nobody has seen that nothing is behind them."""
    server = Server(Random(1), 500, 100, saying=total)
    end = len(server.view())

    def fail(_: Run, answer: Answer) -> Answer:
        return lambda ask: Failed(ask, "HTTP 500") if ask.offset >= end - 1 else answer(ask)

    verdict, _ = crawl(server, MemoryLedger(), change=fail)
    assert not verdict.complete
    assert "HTTP 500" in verdict.sentences[0]


def test_what_is_behind_the_end_and_cant_be_fetched_is_incomplete() -> None:
    """The last event comes, the request behind it fails."""
    server = Server(Random(1), 500, 100, saying="none")
    end = len(server.view())

    def fail(_: Run, answer: Answer) -> Answer:
        return lambda ask: Failed(ask, "HTTP 500") if ask.offset >= end else answer(ask)

    verdict, _ = crawl(server, MemoryLedger(), change=fail)
    assert not verdict.complete
    assert "what is behind the end couldn't be fetched: HTTP 500" in verdict.sentences[0]


def test_an_answer_from_a_cache_proves_nothing() -> None:
    """It is waited for until the cache has forgotten, at most a minute, and asked for again."""
    server, ledger = Server(Random(1), 500, 100), MemoryLedger()
    seen: set[tuple[int, int]] = set()

    def cache(_: Run, answer: Answer) -> Answer:
        def cached(ask: Ask) -> Outcome:
            outcome = answer(ask)
            if isinstance(outcome, Page) and (ask.offset, ask.limit) not in seen:
                seen.add((ask.offset, ask.limit))
                return replace(outcome, cached_s=300.0)
            return outcome

        return cached

    verdict, pauses = crawl(server, ledger, change=cache)
    assert verdict.complete
    assert pauses
    assert max(pauses) == 60.0
    server.insert(0)
    seen.clear()
    assert crawl(server, ledger, change=cache)[0].complete
    assert ledger.ids == set(server.ids)


def test_a_cache_that_never_expires_proves_nothing() -> None:
    """Each reading is tried three times; then the run says so."""
    server = Server(Random(1), 500, 100, saying="none")

    def cache(_: Run, answer: Answer) -> Answer:
        def cached(ask: Ask) -> Outcome:
            outcome = answer(ask)
            return replace(outcome, cached_s=5.0) if isinstance(outcome, Page) else outcome

        return cached

    verdict, pauses = crawl(server, MemoryLedger(), change=cache)
    assert not verdict.complete
    assert "cache" in verdict.sentences[0]
    assert len(pauses) < 50


def test_a_set_that_grows_with_each_answer_keeps_no_run_for_ever() -> None:
    """What was there when the run began is read and proved; the rest is the next run's."""
    server, ledger = Server(Random(1), 500, 100), MemoryLedger()
    there = set(server.ids)

    def grow(_: Run, answer: Answer) -> Answer:
        def grown(ask: Ask) -> Outcome:
            server.insert(len(server.ids))
            return answer(ask)

        return grown

    verdict, _ = crawl(server, ledger, change=grow)
    assert there <= ledger.ids
    assert server.requests < 300
    assert verdict.complete or verdict.rerun


@pytest.mark.parametrize("numbered", [False, True])
def test_rejected_events_are_fetched_again(*, numbered: bool) -> None:
    """In the fewest pages that hold all of them, before anything else."""
    server, ledger = Server(Random(1), 1000, 100), MemoryLedger()
    assert crawl(server, ledger, numbered=numbered)[0].complete

    async def rejected() -> list[int]:
        return [3, 90, 150, 730]

    ledger.rejected_positions = rejected  # type: ignore[method-assign]
    run = Run(server, ledger, Random(1), page_size=100, in_flight=4, numbered=numbered)
    run.planner = Planner(run.planner._reader, redrive=True)
    asked: list[Ask] = []
    answer = run.answer

    def note(ask: Ask) -> Outcome:
        asked.append(ask)
        return answer(ask)

    run.answer = note  # type: ignore[method-assign]
    verdict = asyncio.run(run.run())
    assert isinstance(verdict, Verdict)
    assert verdict.complete
    again = [ask.first for ask in asked if ask.redrive]
    assert again == ([0, 100, 700] if numbered else [3, 150, 730])


@pytest.mark.parametrize("says", [100, 37])
def test_numbered_pages_that_are_shorter_than_asked_for_set_the_width(says: int) -> None:
    """Page 2 begins where page 1 ended, whatever was asked for: the first page is read twice."""
    server, ledger = Server(Random(1), 500, says), MemoryLedger()

    def paged(run: Run, _: Answer) -> Answer:
        def page(ask: Ask) -> Outcome:
            width = says
            number = ask.offset // run.planner._reader.sizes.size
            ids = server.ids[number * width : (number + 1) * width]
            server.requests += 1
            if not ids:
                return Empty(ask, 500)
            return Page(ask, ids, new=ledger.commit(ask, ids, 500), total=500)

        return page

    verdict, _ = crawl(server, ledger, page_size=200, numbered=True, change=paged)
    assert verdict.complete
    assert ledger.ids == set(server.ids)


@pytest.mark.parametrize("size", [2, 3, 8, 20, 61])
def test_a_wide_overlap_fits_into_pages_that_become_shorter(size: int) -> None:
    """Each request of a gap reaches behind the one before, however short pages are now."""
    run = Run(Server(Random(1), 1000, 300), MemoryLedger(), Random(1), page_size=300, in_flight=4)
    reader = run.planner._reader
    reader.recall(None, 60)
    assert reader.width == 60
    reader.sizes = PageSize.of(size)
    stops = [ask.first + ask.count for ask in reader._pieces([Gap(100, 400)])]
    assert reader.step > 0
    assert stops == sorted(set(stops))
    assert stops[-1] == 400
