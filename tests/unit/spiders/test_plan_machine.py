"""The plan against a simulated server and a ledger in memory: it ends, and what it says is true.

The server grows, shrinks, serves short pages and fails; runs crash and resume. Whatever happens,
`Plan.ranges()` comes to an end, asks for no key of the ledger twice, and either every event that
was there all the time is stored, or Incomplete says that it isn't sure.
"""

from __future__ import annotations

import asyncio
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasync_crawler.core import ranges
from datasync_crawler.core.paging import Paging, Wanted
from datasync_crawler.core.ranges import Range
from datasync_crawler.spiders.heard import Incomplete
from datasync_crawler.spiders.plan import Plan
from datasync_crawler.store.ledger import LedgerState, LedgerSums

PAGE = 5
#: More requests than any of these sets can honestly need: the plan goes round.
MOST_REQUESTS = 3000


class Crash(Exception):
    """The process ends here."""


class Stats(dict[str, Any]):
    def set_value(self, key: str, value: Any) -> None:
        self[key] = value

    def inc_value(self, key: str, count: int = 1) -> None:
        self[key] = self.get(key, 0) + count

    def get_value(self, key: str, default: Any = None) -> Any:
        return self.get(key, default)


class FakeLedger:
    """`store.ledger.Ledger` in memory; the doubt of a run is what its stats said last."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, int], int] = {}
        self.ids: set[int] = set()
        self.last_ids: dict[int, str] = {}
        self.inserted = 0
        self.total: int | None = None
        self.runs: list[Stats] = []

    def commit(self, wanted: Wanted, ids: list[int], total: int | None) -> int:
        key = wanted.pass_no, wanted.range.first
        assert key not in self.rows, f"{key} is in the ledger already"
        self.rows[key] = len(ids)
        self.last_ids[wanted.range.first + len(ids)] = str(ids[-1])
        new = len(set(ids) - self.ids)
        self.ids.update(ids)
        self.inserted += new
        self.total = self.total if total is None else total
        return new

    def committed(self) -> list[Range]:
        return [Range(first, received) for (_, first), received in self.rows.items()]

    def state(self) -> LedgerState:
        last = max((number for number, _ in self.rows), default=0)
        reach = max((piece.stop for piece in self.committed()), default=0)
        return LedgerState(last, reach, self.total, None, "offset")

    def holes(self, total: int, *, after: int = 0, most: int = 1000) -> list[Range]:
        return ranges.holes(self.committed(), total, after=after)[:most]

    def coverage(self, total: int) -> int:
        return total - sum(hole.count for hole in self.holes(total, most=10**9))

    def sums(self) -> LedgerSums:
        received = sum(self.rows.values())
        duplicates = received - self.inserted
        return LedgerSums(received, self.inserted, duplicates, 0, 0, len(self.rows), 0)

    def standing_doubt(self) -> str | None:
        for stats in reversed(self.runs):
            if stats.get("crawl/in_doubt") or stats.get("crawl/complete"):
                doubt: str | None = stats.get("crawl/in_doubt")
                return doubt
        return None

    def last_id_before(self, end: int) -> str | None:
        return self.last_ids.get(end)

    def rejected_positions(self) -> list[int]:
        return []

    def live_cursor(self) -> tuple[str, int]:
        return "", 0


class Server:
    """Ids in order; `changes` are (after so many requests, what, where, how many)."""

    def __init__(self, size: int, changes: list[tuple[int, str, float, int]]) -> None:
        self.ids = list(range(size))
        self._next = size
        self._changes = sorted(changes)
        self.requests = 0
        #: There from the start to now.
        self.steady = set(self.ids)

    def serve(self, first: int, count: int) -> tuple[list[int], int]:
        self.requests += 1
        while self._changes and self._changes[0][0] <= self.requests:
            _, kind, share, number = self._changes.pop(0)
            self.change(kind, share, number)
        return self.ids[first : first + count], len(self.ids)

    def change(self, kind: str, share: float, number: int) -> None:
        place = int(share * len(self.ids))
        if kind == "delete":
            self.steady.difference_update(self.ids[place : place + number])
            del self.ids[place : place + number]
        else:
            place = len(self.ids) if kind == "append" else place
            self.ids[place:place] = range(self._next, self._next + number)
            self._next += number


class Crawl:
    """One run: what the spider does, in an order that *random* chooses."""

    def __init__(
        self, ledger: FakeLedger, server: Server, random: Random, faults: SimpleNamespace
    ) -> None:
        self.ledger, self.server, self.random, self.faults = ledger, server, random, faults
        self.stats = Stats()
        ledger.runs.append(self.stats)
        numbered = 0 if faults.numbered else None
        self.plan = Plan(
            ledger,  # type: ignore[arg-type]
            self._in_thread,
            Paging("", "", "offset", "limit", "cursor", numbered),
            lambda: self.stats,
            page_size=PAGE,
            pagination="page" if faults.numbered else "offset",
            in_flight=3,
        )

    async def _in_thread(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    async def run(self, crash_after: int | None) -> None:
        """Raises Incomplete or Crash; returns when the plan says that all is proved."""
        wanted = self.plan.ranges()
        under_way: list[Wanted] = []
        following = asyncio.ensure_future(anext(wanted))
        waited = 0
        try:
            while True:
                await asyncio.sleep(0)
                if following.done() and len(under_way) < 3:
                    try:
                        under_way.append(following.result())
                    except StopAsyncIteration:
                        return
                    following = asyncio.ensure_future(anext(wanted))
                elif under_way:
                    waited = 0
                    self._answer(under_way.pop(self.random.randrange(len(under_way))))
                    assert self.server.requests < MOST_REQUESTS, "the plan goes round"
                    if crash_after is not None and self.server.requests >= crash_after:
                        raise Crash
                else:
                    waited += 1
                    assert waited < 100, "the plan waits for nothing"
        finally:
            following.cancel()

    def _answer(self, wanted: Wanted) -> None:
        plan, first, count = self.plan, wanted.range.first, wanted.range.count
        ids, total = self.server.serve(first, count)
        if self.random.random() < self.faults.failing:
            plan.given_up(first)
            return
        if ids and self.random.random() < self.faults.short:
            ids = ids[: self.random.randint(1, len(ids))]
        said = None if self.faults.silent else total
        plan.learn_total(said, len(ids))
        if not ids:
            (plan.given_up if plan.is_before_the_end(first) else plan.empty)(first)
            return
        plan.learn_page_size(first, count, count, len(ids))
        new = self.ledger.commit(wanted, ids, plan.total)
        page = SimpleNamespace(
            first_offset=first, requested=count, received=len(ids), inserted=new,
            duplicates=len(ids) - new, next_cursor=None, pass_no=wanted.pass_no,
            last_id=str(ids[-1]),
            events=[SimpleNamespace(id=one) for one in ids],
        )  # fmt: skip
        plan.committed(page)  # type: ignore[arg-type]


FAULTS = st.builds(
    SimpleNamespace,
    failing=st.sampled_from([0.0, 0.0, 0.1, 0.4]),
    short=st.sampled_from([0.0, 0.0, 0.3]),
    silent=st.booleans(),
    numbered=st.booleans(),
)
KINDS = ("insert", "append", "delete")


def changes(kind: str) -> st.SearchStrategy[list[tuple[int, str, float, int]]]:
    """Of one kind in one example: as many in as out leave no trace in any total."""
    one = st.tuples(st.integers(1, 60), st.just(kind), st.floats(0, 0.999), st.integers(1, 12))
    return st.lists(one, max_size=3)


@given(
    size=st.integers(0, 60),
    changed=st.sampled_from(KINDS).flatmap(changes),
    faults=FAULTS,
    crashes=st.lists(st.integers(1, 12), max_size=4),
    random=st.randoms(use_true_random=False),
)
@settings(max_examples=200, print_blob=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_plan_machine(
    size: int,
    changed: list[tuple[int, str, float, int]],
    faults: SimpleNamespace,
    crashes: list[int],
    random: Random,
) -> None:
    """Growing, shifting, short pages, failures, crashes: it ends, and a proof is one."""
    if faults.silent:
        changed = []  # without a total nothing tells of a shift
        if faults.numbered:
            faults.short = 0.0  # nor a page that stays short from the end
    ledger, server = FakeLedger(), Server(size, changed)
    for after in [*crashes, None, None]:
        crawl = Crawl(ledger, server, random, faults)
        crash_after = None if after is None else server.requests + after
        try:
            asyncio.run(crawl.run(crash_after))
        except Crash:
            continue
        except Incomplete:
            assert "crawl/complete" not in crawl.stats
            continue
        total = crawl.plan.total
        assert total is not None
        assert ledger.holes(total) == []
        assert crawl.stats["crawl/complete"] is True
        assert server.steady <= ledger.ids, sorted(server.steady - ledger.ids)


def test_a_quiet_server_is_always_proved() -> None:
    """Nothing odd, nothing failing: the first run proves it, in as few requests as there can be."""
    faults = SimpleNamespace(failing=0.0, short=0.0, silent=False, numbered=False)
    ledger, server = FakeLedger(), Server(42, [])
    asyncio.run(Crawl(ledger, server, Random(1), faults).run(None))
    assert ledger.ids == set(range(42))
    assert server.requests == 9


def test_numbered_pages_that_stay_short_are_given_up() -> None:
    """A server of numbered pages that leaves out the same events for good: Incomplete, no loop."""
    faults = SimpleNamespace(failing=0.0, short=0.0, silent=False, numbered=True)
    ledger, server = FakeLedger(), Server(42, [])
    whole = server.serve
    server.serve = lambda first, count: (  # type: ignore[method-assign]
        whole(first, count)[0][: 3 if first == 10 else count], 42
    )  # fmt: skip
    with pytest.raises(Incomplete, match="13–14"):
        asyncio.run(Crawl(ledger, server, Random(1), faults).run(None))
    assert server.requests < 30


def newest_first_without_total() -> tuple[FakeLedger, Server, SimpleNamespace]:
    """A crawled set that says no total and has got more than two pages of new events in front."""
    faults = SimpleNamespace(failing=0.0, short=0.0, silent=True, numbered=False)
    ledger, server = FakeLedger(), Server(42, [])
    asyncio.run(Crawl(ledger, server, Random(1), faults).run(None))
    server.change("insert", 0.0, 13)
    return ledger, server, faults


def test_new_events_in_front_are_remembered_over_a_crash() -> None:
    """A run that ends while it reads them leaves a doubt: the next one doesn't stop at its first
    page because that is all known by now.
    """
    ledger, server, faults = newest_first_without_total()
    with pytest.raises(Crash):
        asyncio.run(Crawl(ledger, server, Random(1), faults).run(server.requests + 2))
    asyncio.run(Crawl(ledger, server, Random(1), faults).run(None))
    assert ledger.ids == set(range(55))


def test_a_page_in_front_that_cant_be_had_is_no_proof() -> None:
    """New events in front behind a page that never comes: Incomplete, not the end of the front."""
    ledger, server, faults = newest_first_without_total()
    crawl = Crawl(ledger, server, Random(1), faults)
    answer = crawl._answer
    crawl._answer = lambda wanted: (  # type: ignore[method-assign]
        crawl.plan.given_up(5) if wanted.range.first == 5 else answer(wanted)
    )
    with pytest.raises(Incomplete):
        asyncio.run(crawl.run(None))
    asyncio.run(Crawl(ledger, server, Random(1), faults).run(None))
    assert ledger.ids == set(range(55))


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("new", [10, 25, 40])
def test_a_set_that_rolls_on_between_two_runs(new: int, *, numbered: bool) -> None:
    """The oldest go, new ones come behind: fewer in all, as many, or more. All that are there are
    stored.
    """
    faults = SimpleNamespace(failing=0.0, short=0.0, silent=False, numbered=numbered)
    ledger, server = FakeLedger(), Server(42, [])
    asyncio.run(Crawl(ledger, server, Random(1), faults).run(None))
    server.change("delete", 0.0, 25)
    server.change("append", 0.0, new)
    asyncio.run(Crawl(ledger, server, Random(1), faults).run(None))
    assert set(server.ids) <= ledger.ids


@pytest.mark.parametrize("numbered", [True, False])
def test_more_new_events_in_front_than_the_total_has_grown_by(*, numbered: bool) -> None:
    """Others have gone from the middle: the front is read until a page is all known."""
    faults = SimpleNamespace(failing=0.0, short=0.0, silent=False, numbered=numbered)
    ledger, server = FakeLedger(), Server(40, [])
    asyncio.run(Crawl(ledger, server, Random(1), faults).run(None))
    server.change("delete", 0.5, 20)
    server.change("insert", 0.0, 29)
    asyncio.run(Crawl(ledger, server, Random(1), faults).run(None))
    assert set(server.ids) <= ledger.ids


@pytest.mark.parametrize(("new", "silent"), [(1, False), (2, False), (PAGE, False), (1, True)])
def test_a_set_that_grows_with_every_request(new: int, *, silent: bool) -> None:
    """Growing for ever, with or without a total, doesn't keep the crawl for ever."""
    faults = SimpleNamespace(failing=0.0, short=0.0, silent=silent, numbered=False)
    grows = [(request, "append", 0.0, new) for request in range(1, MOST_REQUESTS)]
    ledger, server = FakeLedger(), Server(42, grows)
    asyncio.run(Crawl(ledger, server, Random(1), faults).run(None))
    assert server.steady <= ledger.ids
    assert server.requests < 300


def test_a_total_that_says_how_far_the_server_has_come() -> None:
    """It grows with each page, as a set's does: all is read, not so many pages only."""
    faults = SimpleNamespace(failing=0.0, short=0.0, silent=False, numbered=False)
    ledger, server = FakeLedger(), Server(60 * PAGE, [])
    whole = server.serve
    server.serve = lambda first, count: (  # type: ignore[method-assign]
        (ids := whole(first, count)[0]), first + len(ids)
    )  # fmt: skip
    asyncio.run(Crawl(ledger, server, Random(1), faults).run(None))
    assert ledger.ids == set(range(60 * PAGE))


def test_a_set_that_grows_in_front_until_the_crawl_is_nearly_through() -> None:
    """A total that grows with the page behind it is believed: those that came in front count."""
    faults = SimpleNamespace(failing=0.0, short=0.0, silent=False, numbered=False)
    grows = [(request, "insert", 0.0, 2) for request in range(1, 20)]
    ledger, server = FakeLedger(), Server(50, grows)
    asyncio.run(Crawl(ledger, server, Random(1), faults).run(None))
    assert set(server.ids) <= ledger.ids
