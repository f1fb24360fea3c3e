"""Leases on a real PostgreSQL, against a plain model of who holds what."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from rooms import Room, page

from datasync_crawler.crawl.values import Chunk, Gap, Joined, Lease, LeaseLost, Verdict
from datasync_crawler.errors import ConfigError
from datasync_crawler.store import queries
from datasync_crawler.store.leases import LENGTH_S, Leases, _keys

SHARED = {"PAGINATION": "auto"}
PAGES = 2  # of a chunk
CHUNKS = 2


def leases(
    room: Room, shared: dict[str, Any] | None = None, *, length_s: float = LENGTH_S
) -> Leases:
    """The leases as one process sees them."""
    return Leases(
        room.connector, room.schema, settings=shared or SHARED, max_wait_s=5,
        stop=threading.Event(), length_s=length_s,
    )  # fmt: skip


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
        self.committed: set[int] = set()
        self.checks = 0
        self._offer(0)

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        """An end from wherever it stands: what is missing is offered again, claimed and committed,
        and the verdict reaches all.
        """
        self.room.query("UPDATE leases SET expires_at = NULL")
        self.run(self.workers[0].withdraw())
        self._offer(0)
        while (chunk := self.run(self.workers[1].claim())) is not None:
            for offset in sorted(set(range(chunk.gap.first, chunk.gap.stop)) - self.committed):
                one = page([f"id {offset}"], first=offset)
                one.ask = replace(one.ask, lease=chunk.lease)
                self.writer.write([one])
                assert one.committed
            self.run(self.workers[1].finish([chunk.lease]))
        assert self.run(self.room.ledger.gaps(1, PAGES * CHUNKS, most=9)) == []
        assert self.run(self.workers[0].left()) == 0
        assert self.run(self.workers[2].look()).verdict == Verdict(complete=False)
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

    def _offer(self, who: int) -> None:
        """As a planner does."""
        proof = self.run(self.workers[who].claim_proof())
        assert proof is not None
        self.run(self.workers[who].offer(chunks(CHUNKS)))
        self.run(self.workers[who].decide(proof, Verdict(complete=False)))

    @rule(who=st.integers(0, 2))
    def offer(self, who: int) -> None:
        """Adds what isn't offered; what is, stays as it is."""
        before = self._rows()
        self._offer(who)
        assert before.items() <= self._rows().items()
        assert self._firsts() == {chunk.gap.first for chunk in chunks(CHUNKS)}

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
    @rule(data=st.data(), place=st.integers(0, PAGES - 1), again=st.booleans())
    def commit(self, data: Any, place: int, again: bool) -> None:
        """A page of a chunk: committed while its lease is held, expired or not; else never.
        *again*: in one batch with a page that no chunk holds.
        """
        who = data.draw(st.sampled_from([n for n in range(3) if self.held[n]]))
        lease = data.draw(st.sampled_from(sorted(self.held[who], key=lambda one: one.number)))
        offset = self.held[who][lease].first + place
        if offset in self.committed:
            return
        one = page([f"id {offset}"], first=offset)
        one.ask = replace(one.ask, lease=lease)
        self.checks -= 1
        other = page(["a check"], first=0, pass_no=self.checks)
        self.writer.write([one, other] if again else [one])
        assert other.committed == again
        assert one.committed == (lease in self.holder)
        assert one.fenced != one.committed
        if one.committed:
            self.committed.add(offset)

    @precondition(lambda self: any(self.held))
    @rule(data=st.data(), dead=st.booleans())
    def sleep(self, data: Any, dead: bool) -> None:
        """The time of all that it holds is up: it sleeps, or is *dead* and another one starts."""
        who = data.draw(st.sampled_from([n for n in range(3) if self.held[n]]))
        for lease in self.held[who]:
            self.room.query(
                "UPDATE leases SET expires_at = clock_timestamp() - interval '1 hour' "
                "WHERE id = %s AND epoch = %s", (lease.number, lease.epoch),
            )  # fmt: skip
        if dead:
            self.held[who] = {}
            self.workers[who]._held.clear()

    @rule(who=st.integers(0, 2))
    def renew(self, who: int) -> None:
        """What is still its own is alive afterwards, expired or not; all else is as it was."""
        before, worker = self._rows(), self.workers[who]
        if not worker._held:
            return
        self.run(worker._run("renew", **_keys(worker._held), length_s=15.0))
        own = {one.number for one in self.held[who] if one in self.holder}
        assert self._rows() == {
            number: (epoch, live or number in own) for number, (epoch, live) in before.items()
        }

    @precondition(lambda self: any(self.held))
    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        """Deletes the chunk only if it is still held."""
        who = data.draw(st.sampled_from([n for n in range(3) if self.held[n]]))
        lease = data.draw(st.sampled_from(sorted(self.held[who], key=lambda one: one.number)))
        before = self._rows()
        self.run(self.workers[who].finish([lease]))
        own = {lease.number} if lease in self.holder else set()
        assert self._rows() == {one: row for one, row in before.items() if one not in own}
        self.holder.pop(lease, None)
        del self.held[who][lease]

    @rule(who=st.integers(0, 2))
    def let_go(self, who: int) -> None:
        """What it still holds may be claimed at once; what is another's by now stays held."""
        before = self._rows()
        self.run(self.workers[who].let_go())
        own = {one.number for one in self.held[who] if one in self.holder}
        assert self._rows() == {
            number: (epoch, live and number not in own) for number, (epoch, live) in before.items()
        }

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
            max_examples=10, stateful_step_count=30, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def expire(room: Room) -> None:
    room.query("UPDATE leases SET expires_at = clock_timestamp() - interval '1 s'")


async def offered(one: Leases) -> Lease:
    """Chunks are offered; returns the lease of the proof."""
    await one.look()
    proof = await one.claim_proof()
    assert proof is not None
    await one.offer(chunks(CHUNKS))
    return proof


def test_what_a_page_is_being_committed_under_nobody_claims(room: Room) -> None:
    """While a transaction holds the fence, an expired lease can't be claimed nor withdrawn, nobody
    waits for it, and its own process renews it; afterwards it is anybody's.
    """

    async def tell() -> None:
        one, other = leases(room), leases(room)
        proof = await offered(one)
        chunk = await one.claim()
        assert chunk is not None
        assert chunk.gap.first == 0  # the first comes first
        held = [chunk.lease, proof]
        room.query("DELETE FROM leases WHERE first > 0")
        fence = room.database.connect()
        fence.autocommit = False
        with fence.cursor() as cursor:
            cursor.execute(queries.load("leases", room.schema)["fence"], _keys(held))
            await asyncio.wait_for(one._run("renew", **_keys(held), length_s=15.0), timeout=3)
            expire(room)
            assert await asyncio.wait_for(other.claim(), timeout=3) is None
            assert await asyncio.wait_for(other.claim_proof(), timeout=3) is None
            assert await asyncio.wait_for(other.withdraw(), timeout=3) == 1
        fence.rollback()
        fence.close()
        claimed = await other.claim()
        assert claimed is not None
        assert claimed.lease == Lease(chunk.lease.number, chunk.lease.epoch + 1)
        assert await other.claim_proof() == Lease(proof.number, proof.epoch + 1)
        await one.close()
        await other.close()

    asyncio.run(tell())


def test_leases_are_renewed_while_their_process_lives(room: Room) -> None:
    """Chunk and proof, again and again; not in a long pause; given back at the end, at once."""

    async def tell() -> None:
        one, other = leases(room, length_s=0.6), leases(room)
        await offered(one)
        assert [await one.claim() for _ in range(CHUNKS + 1)][-1] is None
        paused_s = 60.0
        keeping = asyncio.ensure_future(one.keep(lambda: paused_s))
        for _ in range(40):
            await asyncio.sleep(0.05)
            paused_s = 59.0
            assert await other.claim() is None
            assert await other.claim_proof() is None
        paused_s = 60.0
        await asyncio.sleep(1)
        assert await other.claim() is not None
        keeping.cancel()
        await other.let_go()
        again = await one.claim()
        assert again is not None
        await one.close()
        rest = [await other.claim() for _ in range(CHUNKS)]
        assert None not in rest
        await other.finish([chunk.lease for chunk in rest if chunk is not None])
        await other.close()

    asyncio.run(tell())


def test_one_lost_lease_costs_the_others_of_a_batch_nothing(room: Room) -> None:
    """Three pages in one batch: of a lost lease, of a held one, of none."""

    async def tell() -> None:
        one = leases(room)
        await offered(one)
        lost, held = await one.claim(), await one.claim()
        assert lost is not None
        assert held is not None
        room.query("UPDATE leases SET epoch = epoch + 1 WHERE id = %s", (lost.lease.number,))
        pages = [page([f"id {at}"], first=at) for at in (0, PAGES, 2 * PAGES)]
        for each, lease in zip(pages, (lost.lease, held.lease, None), strict=True):
            each.ask = replace(each.ask, lease=lease)
        room.write(*pages)
        assert [each.fenced for each in pages] == [True, False, False]
        assert [each.committed for each in pages] == [False, True, True]
        assert room.ids() == [f"id {PAGES}", f"id {2 * PAGES}"]
        await one.close()

    asyncio.run(tell())


def test_what_is_anothers_by_now_is_left_alone(room: Room) -> None:
    """A sleeper that wakes renews, finishes and gives back nothing of it."""

    async def tell() -> None:
        one, other = leases(room), leases(room)
        await offered(one)
        before = [await one.claim() for _ in range(CHUNKS)]
        expire(room)
        assert None not in [await other.claim() for _ in range(CHUNKS)]
        assert await other.claim_proof() is not None
        rows = room.query("SELECT id, epoch, owner, expires_at FROM leases ORDER BY id")
        await one._run("renew", **_keys(one._held), length_s=15.0)
        await one.finish([chunk.lease for chunk in before if chunk is not None])
        await one.let_go()
        assert room.query("SELECT id, epoch, owner, expires_at FROM leases ORDER BY id") == rows
        await one.close()
        await other.close()

    asyncio.run(tell())


def test_finishing_and_giving_back_leave_the_proof(room: Room) -> None:
    """A proof that was decided isn't renewed, nor deleted as a chunk is."""

    async def tell() -> None:
        one = leases(room)
        proof = await offered(one)
        await one.finish([proof])
        await one.decide(proof, Verdict(complete=False))
        await one._run("renew", **_keys([proof]), length_s=15.0)
        assert not (await one.look()).is_held
        await one.close()

    asyncio.run(tell())


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
