"""Several processes on one virtual server: nothing lost, nothing of a sleeper committed, an end."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from virtual import KINDS, Crowd, Server

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
