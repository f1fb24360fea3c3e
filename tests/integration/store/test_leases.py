"""Leases on a real PostgreSQL, against a plain model of who holds what."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from rooms import Room, page

from datasync_crawler.crawl.values import Chunk, Gap, Joined, Lease, LeaseLost, Verdict
from datasync_crawler.errors import ConfigError
from datasync_crawler.store.leases import Leases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from databases import Database

SHARED = {"PAGINATION": "auto"}
PAGES = 3  # of a chunk


@pytest.fixture
def room(database: Database) -> Iterator[Room]:
    room = Room(database)
    yield room
    room.close()


def leases(room: Room, shared: dict[str, Any] | None = None) -> Leases:
    """The leases as one process sees them."""
    return Leases(
        room.connector, room.schema, settings=shared or SHARED, max_wait_s=5, stop=threading.Event()
    )


def chunks(number: int) -> list[Chunk]:
    return [Chunk(Gap(PAGES * n, PAGES * (n + 1)), 1, 0, 1) for n in range(number)]


class LeaseMachine(RuleBasedStateMachine):
    """Three processes that claim, commit, die, sleep and wake; `room` is set by the test."""

    room: Room

    def __init__(self) -> None:
        super().__init__()
        self.room.truncate()
        self.writer = self.room.writer()
        self.workers = [leases(self.room) for _ in range(3)]
        self.loop = asyncio.new_event_loop()
        self.run(self.workers[0].look())
        self.held: list[dict[Lease, Gap]] = [{}, {}, {}]  # what each believes to hold
        self.holder: dict[Lease, int] = {}  # what is so
        self.live: set[Lease] = set()
        self.free = 0
        self.committed: set[int] = set()

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        for worker in self.workers:
            self.run(worker.close())
        self.loop.close()
        self.writer.close()

    def _rows(self) -> dict[int, tuple[int, bool]]:
        return {
            number: (epoch, live)
            for number, epoch, live in self.room.query(
                "SELECT id, epoch, coalesce(expires_at > clock_timestamp(), false) FROM leases "
                "WHERE kind = 'chunk'"
            )
        }

    def _firsts(self) -> set[int]:
        """Where the chunks begin."""
        rows = self.room.query("SELECT first FROM leases WHERE kind = 'chunk'")
        return {first for (first,) in rows}

    @rule(who=st.integers(0, 2), number=st.integers(1, 3))
    def offer(self, who: int, number: int) -> None:
        """Whoever has claimed the proof first offers; others can't."""
        proof = self.run(self.workers[who].claim_proof())
        if proof is None:
            with pytest.raises(LeaseLost):
                self.run(self.workers[who].offer(chunks(number)))
            return
        before = self._firsts()
        self.run(self.workers[who].offer(chunks(number)))
        assert self._firsts() == before | {chunk.gap.first for chunk in chunks(number)}
        self.run(self.workers[who].decide(proof, Verdict(complete=False)))

    @rule(who=st.integers(0, 2))
    def claim(self, who: int) -> None:
        """A chunk that nobody holds alive, at a higher epoch; none if there is none."""
        rows = self._rows()
        chunk = self.run(self.workers[who].claim())
        free = [number for number, (_, live) in rows.items() if not live]
        if chunk is None:
            assert not free
            return
        assert chunk.lease.number in free
        assert chunk.lease.epoch == rows[chunk.lease.number][0] + 1
        for other in [one for one in self.holder if one.number == chunk.lease.number]:
            del self.holder[other]
        self.holder[chunk.lease] = who
        self.held[who][chunk.lease] = chunk.gap

    @precondition(lambda self: any(self.held))
    @rule(data=st.data(), place=st.integers(0, PAGES - 1))
    def commit(self, data: Any, place: int) -> None:
        """A page of a chunk: committed while its lease is held, expired or not; else never."""
        who = data.draw(st.sampled_from([n for n in range(3) if self.held[n]]))
        lease = data.draw(st.sampled_from(sorted(self.held[who], key=lambda one: one.number)))
        offset = self.held[who][lease].first + place
        if offset in self.committed:
            return
        one = page([f"id {offset}"], first=offset)
        one.ask = replace(one.ask, lease=lease)
        self.writer.write([one])
        assert one.committed == (lease in self.holder)
        assert one.fenced != one.committed
        if one.committed:
            self.committed.add(offset)

    @precondition(lambda self: any(self.held))
    @rule(data=st.data(), forget=st.booleans())
    def expire(self, data: Any, forget: bool) -> None:
        """Its time is up: it sleeps, or (*forget*) is dead."""
        who = data.draw(st.sampled_from([n for n in range(3) if self.held[n]]))
        lease = data.draw(st.sampled_from(sorted(self.held[who], key=lambda one: one.number)))
        self.room.query(
            "UPDATE leases SET expires_at = clock_timestamp() - interval '1 hour' "
            "WHERE id = %s AND epoch = %s", (lease.number, lease.epoch),
        )  # fmt: skip
        if forget:
            del self.held[who][lease]

    @precondition(lambda self: any(self.held))
    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        """Deletes the chunk only if it is still held."""
        who = data.draw(st.sampled_from([n for n in range(3) if self.held[n]]))
        lease = data.draw(st.sampled_from(sorted(self.held[who], key=lambda one: one.number)))
        before = self._rows()
        self.run(self.workers[who].finish([lease]))
        assert (len(before) - len(self._rows()) == 1) == (lease in self.holder)
        self.holder.pop(lease, None)
        del self.held[who][lease]

    @rule(who=st.integers(0, 2))
    def let_go(self, who: int) -> None:
        """What it still holds may be claimed at once."""
        self.run(self.workers[who].let_go())
        rows = self._rows()
        for lease, holder in self.holder.items():
            if holder == who and lease in self.held[who]:
                assert not rows[lease.number][1]

    @rule()
    def withdraw(self) -> None:
        """Deletes what nobody holds alive, and nothing else."""
        live = {number for number, (_, is_live) in self._rows().items() if is_live}
        assert self.run(self.workers[0].withdraw()) == len(live)
        assert self._rows().keys() == live
        self.holder = {one: who for one, who in self.holder.items() if one.number in live}

    @invariant()
    def what_is_committed_was_held(self) -> None:
        rows = self.room.query("SELECT first_offset FROM checkpoint WHERE pass = 1")
        assert {offset for (offset,) in rows} == self.committed


def test_no_offset_is_lost_and_no_sleeper_commits(room: Room) -> None:
    LeaseMachine.room = room
    run_machine(
        LeaseMachine,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def test_the_proof_is_one_lease_and_its_verdict_reaches_all(room: Room) -> None:
    """One holder; the others read its verdict; a lost one can't decide."""

    async def tell() -> None:
        one, other = leases(room), leases(room)
        assert not (await one.look()).is_held
        lease = await one.claim_proof()
        assert lease is not None
        assert await other.claim_proof() is None
        assert (await other.look()).is_held
        verdict = Verdict(complete=True, sentences=("a", "b"), served=3, total=None, stored=3)
        await one.decide(lease, verdict)
        standing = await other.look()
        assert (standing.is_held, standing.decided) == (False, lease.epoch)
        assert standing.verdict == verdict
        again = await other.claim_proof()
        assert again is not None
        assert again.epoch == lease.epoch + 1
        with pytest.raises(LeaseLost):
            await one.decide(lease, verdict)
        with pytest.raises(LeaseLost):
            await one.offer(chunks(1))
        await one.close()
        await other.close()

    asyncio.run(tell())


def test_a_ledger_is_written_only_under_the_lease(room: Room) -> None:
    """Seams, and what was learned of the API: nothing of a process whose lease is another's."""

    async def tell() -> None:
        one = leases(room)
        await one.look()
        room.ledger.lease = await one.claim_proof()
        room.write(page(["a"]))
        await room.ledger.join(1, [Joined(5, "deep")])
        room.query("UPDATE leases SET epoch = epoch + 1")
        for write in (
            room.ledger.join(1, [Joined(6, "deep")]),
            room.ledger.unjoin(1, "deep"),
            room.ledger.remember(overlap=64),
        ):
            with pytest.raises(LeaseLost):
                await write
        await one.close()

    asyncio.run(tell())
    assert room.query("SELECT first_offset FROM seams") == [(5,)]
    assert room.query("SELECT overlap FROM source") == [(1,)]


def test_seams_of_a_narrower_overlap_are_not_stored(room: Room) -> None:
    """Another process has found the order to be unstable, and widened the overlap."""
    asyncio.run(room.ledger.remember(overlap=64))
    asyncio.run(room.ledger.remember(overlap=8))
    asyncio.run(room.ledger.join(1, [Joined(5, "overlap")], overlap=1))
    asyncio.run(room.ledger.join(1, [Joined(7, "overlap")], overlap=64))
    assert room.query("SELECT first_offset FROM seams") == [(7,)]


def test_other_settings_are_refused_while_somebody_plans(room: Room) -> None:
    """The sentence names what differs; afterwards nobody minds."""

    async def tell() -> None:
        one, other = leases(room), leases(room, {"PAGINATION": "page"})
        await one.look()
        lease = await one.claim_proof()
        assert lease is not None
        with pytest.raises(ConfigError, match="PAGINATION is 'auto' there and 'page' here"):
            await other.look()
        await one.decide(lease, Verdict(complete=False))
        await other.look()
        await one.close()
        await other.close()

    asyncio.run(tell())
