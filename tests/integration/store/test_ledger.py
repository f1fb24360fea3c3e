"""The ledger's SQL, held against the ledger in memory that the planner is tested with."""

from __future__ import annotations

import asyncio
import threading
import time
from random import Random
from typing import TYPE_CHECKING

import pytest
from proxy import CuttingProxy
from rooms import Room, page
from virtual import MemoryLedger

from datasync_crawler.crawl.values import Ask, Joined, Proof
from datasync_crawler.errors import DatabaseLost, DatabaseRefused
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.ledger import Ledger
from datasync_crawler.store.targets import ServerTarget

if TYPE_CHECKING:
    from databases import Database


def both(room: Room, memory: MemoryLedger, pass_no: int, ids: list[str]) -> tuple[object, object]:
    """What either ledger says of a pass."""

    async def told(ledger: MemoryLedger) -> object:
        return (
            await ledger.state(),
            [[(gap.first, gap.stop)
              for gap in await ledger.gaps(pass_no, total, after=after, most=100)]
             for total, after in ((0, 0), (30, 0), (70, 0), (70, 25))],
            await ledger.end(pass_no),
            await ledger.locate(pass_no, ids),
            await ledger.doubts(pass_no, most=100),
            await ledger.doubts(pass_no, after=20, most=2),
        )  # fmt: skip

    async def both_told() -> tuple[object, object]:
        return await told(room.ledger), await told(memory)  # type: ignore[arg-type]

    return asyncio.run(both_told())


def test_the_ledger_says_what_the_ledger_in_memory_says(room: Room) -> None:
    """Ranges of several passes, overlapping, short, repeated, with a base and seams joined."""
    for seed in range(40):
        room.truncate()
        random, memory = Random(seed), MemoryLedger()
        memory.overlap = random.choice([1, 1, 16])
        room.query("UPDATE source SET total = NULL, overlap = %s", (memory.overlap,))
        served = [f"id {random.randrange(60)}" for _ in range(70)]
        for pass_no in (1, 2, -1, -2):
            fill(room, memory, random, served, pass_no)
        if random.random() < 0.5:
            proof = Proof(1, "id 1", "id 2", random.randrange(2, 30), 60)
            facts = [Joined(random.randrange(20), "base"), Joined(random.randrange(60), "reread")]
            asyncio.run(prove(room, memory, proof, facts))
        for pass_no in (1, 2):
            sql, plain = both(room, memory, pass_no, served[::3])
            assert sql == plain, seed


def fill(room: Room, memory: MemoryLedger, random: Random, served: list[str], pass_no: int) -> None:
    for first in [*random.sample(range(1, 60), random.randrange(6)), 0]:
        overlap = min(random.choice([0, 1, 1]), first)
        got = served[first - overlap : first + random.randrange(1, 25)]
        if len(got) <= overlap:
            continue
        one = page(list(got[overlap:]), first=first, pass_no=pass_no, total=60)
        one.ask, one.ids = Ask(pass_no, first, len(got) - overlap, overlap), got
        room.write(one)
        memory.commit(one.ask, list(got), 60)


async def prove(room: Room, memory: MemoryLedger, proof: Proof, facts: list[Joined]) -> None:
    for ledger in (room.ledger, memory):
        await ledger.prove(proof)
        await ledger.join(2, facts)


def test_what_was_joined_can_be_taken_back(room: Room) -> None:
    """A seam is in doubt again when a kind of evidence has turned out to be none."""
    room.write(page(["a", "b"], first=0), page(["d", "e"], first=2))

    async def story() -> list[int]:
        ledger, counts = room.ledger, []
        counts.append(len(await ledger.doubts(1, most=9)))
        await ledger.join(1, [Joined(2, "deep", 3)])
        await ledger.join(1, [Joined(2, "deep", 4)])
        counts.append(len(await ledger.doubts(1, most=9)))
        counts.append((await ledger.figures(1)).deep)
        await ledger.unjoin(1, "deep")
        counts.append(len(await ledger.doubts(1, most=9)))
        return counts

    assert asyncio.run(story()) == [1, 0, 4, 1]


def test_figures_of_a_pass(room: Room) -> None:
    """Sums, totals, front and coverage."""
    room.write(page(["a", None, "c"], first=0, total=7), page(["c", "d"], first=5, total=8))
    figures = asyncio.run(room.ledger.figures(1))
    assert (figures.inserted, figures.distinct, figures.rejected_now) == (3, 4, 1)
    assert (figures.totals, figures.first_id, figures.covered) == ((7, 8), "a", 5)
    assert (figures.unbalanced, figures.based) == (0, False)


def test_a_ledger_of_version_0_1_goes_on(room: Room) -> None:
    """Its ranges don't know what came before them: a new pass, nothing lost."""
    room.write(page(["a", "b"], first=0))
    room.query("ALTER TABLE checkpoint DROP before_id, DROP repeated, DROP total")
    room.query("ALTER TABLE source DROP overlap")
    room.query("DROP TABLE seams, proofs, leases")
    again = Room(room.database, schema=room.schema)
    state = asyncio.run(again.ledger.state())
    again.close()
    assert (state.pass_no, state.has_seams, state.open_pass) == (1, False, None)


def test_an_error_that_waiting_doesnt_mend_is_told(room: Room) -> None:
    """A ledger that can't be read ends the crawl with the cause, not with "no proof"."""
    room.query("ALTER TABLE checkpoint RENAME TO elsewhere")
    with pytest.raises(DatabaseRefused, match="lacks tables of the crawler"):
        asyncio.run(room.ledger.state())


def test_a_lost_connection_is_opened_again(room: Room) -> None:
    """The planner reads on when the server has ended its connection."""
    asyncio.run(room.ledger.state())
    backend_pid = room.ledger._statements.open().info.backend_pid
    room.query("SELECT pg_terminate_backend(%s)", (backend_pid,))
    assert asyncio.run(room.ledger.state()).pass_no == 0


@pytest.mark.parametrize("stopped", [False, True])
def test_a_database_that_stays_away_is_given_up(database: Database, *, stopped: bool) -> None:
    """No answer for DB_MAX_WAIT, or the crawl is told to stop: DatabaseLost."""
    nowhere = Connector(ServerTarget({**database.params, "host": "127.0.0.1", "port": "1"}))
    stop = threading.Event()
    if stopped:
        stop.set()
    ledger = Ledger(nowhere, "public", max_wait_s=3600 if stopped else 0.2, stop=stop)
    with pytest.raises(DatabaseLost, match="DB_MAX_WAIT"):
        asyncio.run(ledger.state())
    asyncio.run(ledger.close())


def test_a_connection_that_was_reset_while_idle_is_opened_again(database: Database) -> None:
    """As a minute after a crash of the server, which has sent a notice: libpq gives no SQLSTATE,
    psycopg2 neither an OperationalError nor a closed connection.
    """
    said = b"SWARNING\0C57P02\0Mterminating connection\0\0"
    notice = b"N" + (len(said) + 4).to_bytes(4, "big") + said
    with CuttingProxy(database.params["host"], int(database.params["port"])) as proxy:
        room = Room(database, port=proxy.port)
        asyncio.run(room.ledger.state())
        proxy.reset_client_sides(notice)
        time.sleep(0.1)  # the reset arrives
        assert asyncio.run(room.ledger.state()).pass_no == 0
        room.close()
