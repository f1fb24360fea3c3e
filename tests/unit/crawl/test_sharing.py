"""Several processes on one virtual server: nothing lost, nothing of a sleeper committed, an end."""

from __future__ import annotations

import asyncio
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from virtual import KINDS, Crowd, Server

from datasync_crawler.crawl.chunks import Chunks
from datasync_crawler.crawl.sharing import share
from datasync_crawler.crawl.values import Ask, Chunk, Fenced, Gap, Lease, Standing, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEDS = 1


def crowd(kind: tuple[str, str, str], seed: str, *, troubles: int) -> Crowd:
    """Two to four processes to their last verdict."""
    random = Random(seed)
    moving, answering, saying = kind
    cap = random.choice([10, 30, 100])
    size = random.randrange(5 * cap, 60 * cap)
    server = Server(random, size, cap, moving=moving, answering=answering, saying=saying)
    some = Crowd(server, random, troubles=troubles)
    asyncio.run(some.run(random.randrange(2, 5)))
    return some


@pytest.mark.parametrize("troubles", [0, 6], ids=["", "troubled"])
@pytest.mark.parametrize("kind", KINDS, ids="/".join)
def test_complete_is_never_said_of_a_set_with_events_missing(
    kind: tuple[str, str, str], troubles: int
) -> None:
    """Processes that are killed, sleep past their leases and join: all end, and none says
    "complete" of a set that isn't.
    """
    for seed in range(SEEDS):
        some = crowd(kind, f"{kind}{seed}", troubles=troubles)
        missing = some.server.wanted - some.ledger.ids
        assert some.verdicts
        assert not (missing and any(one.complete for one in some.verdicts)), seed


@pytest.mark.parametrize("seed", range(10))
def test_a_set_that_stands_still_is_fetched_once(seed: int) -> None:
    """All have the same verdict, and each page was fetched once, but for what was in flight."""
    some = crowd(("still", "plain", "right"), f"{seed}", troubles=0)
    assert all(one == some.verdicts[0] for one in some.verdicts)
    assert some.verdicts[0].complete
    size = some.server.cap
    needed = -(-len(some.ledger.ids) // (size - 1))
    assert some.server.requests <= needed + 34 + 4 + len(some.verdicts)


def test_a_verdict_of_an_earlier_plan_is_not_taken_over() -> None:
    """The holder dies without one: its helper claims the proof, whatever was decided before it."""
    old, own = Verdict(complete=True), Verdict(complete=False)
    standings = iter([Standing(2, True, 1, 9.0, old), Standing(2, False, 1, 9.0, old)])

    class Leases:
        async def look(self) -> Standing:
            return next(standings, Standing(2, False, 1, 9.0, old))

        async def claim_proof(self) -> Lease:
            return Lease(0, 3)

        async def decide(self, lease: Lease, verdict: Verdict) -> None: ...

    async def nothing(*_: object) -> Any:
        return SimpleNamespace(pass_no=1, covered=0)

    async def plan(lease: Lease) -> Verdict:
        return own

    ledger = SimpleNamespace(state=nothing, figures=nothing)
    world = SimpleNamespace(
        leases=Leases(), ledger=ledger, covered=lambda offsets: None, pause=nothing
    )
    reader: Any = SimpleNamespace(world=world, take_chunks=nothing, withdraw=nothing)
    assert asyncio.run(share(reader, plan)) is own


def test_the_rest_of_a_chunk_that_is_anothers_is_not_requested() -> None:
    """One fenced page, and the next request is another chunk's."""
    lost, other = (Chunk(Gap(at, at + 9), 1, 0, 1, Lease(at, 1)) for at in (0, 9))
    offered = iter([lost, other])

    class Leases:
        async def claim(self, done: list[Lease]) -> Chunk | None:
            return next(offered, None)

    async def take(chunk: Chunk) -> Iterator[Ask]:
        return (Ask(1, at, 1) for at in range(chunk.gap.first, chunk.gap.stop))

    async def requested() -> list[int]:
        reader: Any = SimpleNamespace(width=1, take=take, world=SimpleNamespace(leases=Leases()))
        chunks = Chunks(reader)
        first = await chunks.next()
        assert first is not None
        chunks.answered(Fenced(first))
        return [ask.first for _ in range(9) if (ask := await chunks.next()) is not None]

    assert asyncio.run(requested()) == list(range(9, 18))
