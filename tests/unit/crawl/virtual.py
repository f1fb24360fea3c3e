"""Virtual servers whose sets move while they are read, and a ledger in memory.

The ledger follows the rules of `store/sql/ledger.sql`, and
tests/integration/store/test_ledger.py holds the two against each other.
`python tests/unit/crawl/table.py` prints what comes of all servers.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any

from datasync_crawler.crawl import ranges
from datasync_crawler.crawl.extent import RepeatWatch
from datasync_crawler.crawl.planner import Planner
from datasync_crawler.crawl.ports import FAR, World
from datasync_crawler.crawl.reader import Reader
from datasync_crawler.crawl.sharing import share, under
from datasync_crawler.crawl.values import (
    Ask,
    ChainEnd,
    Chunk,
    Doubt,
    Empty,
    Failed,
    Fenced,
    Gap,
    Joined,
    Lease,
    LeaseLost,
    LedgerState,
    NoEndpoint,
    Outcome,
    Page,
    PassFigures,
    Proof,
    Range,
    Repeated,
    Standing,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What the sets do while they are read.
MOVING = ("still", "head", "tail", "middle", "delete", "mix", "roll", "burst", "one-in", "one-out")
#: How servers answer.
ANSWERING = (
    "plain", "ties", "random", "replica", "short", "capped", "capped-late", "capped-once", "twice",
    "far-twice", "ignores", "rounded", "pages", "inclusive", "exclusive", "last-page", "window",
)  # fmt: skip
#: What they say of their total.
SAYING = (
    "right", "none", "stale", "half", "more", "capped", "estimate", "behind", "ahead", "rising",
    "late", "first", "flips",
)  # fmt: skip
#: (moves, answers, says): each habit by itself, and some together.
KINDS = (
    *((moving, "plain", "right") for moving in MOVING),
    *(("still", answering, "right") for answering in ANSWERING[1:]),
    *(("still", "plain", saying) for saying in SAYING[1:]),
    ("head", "ties", "right"), ("roll", "plain", "none"), ("head", "capped", "stale"),
    ("one-in", "capped-once", "right"), ("still", "capped", "estimate"), ("mix", "short", "stale"),
    ("still", "ties", "none"), ("still", "random", "none"), ("roll", "ties", "stale"),
    ("delete", "ties", "half"), ("roll", "replica", "stale"), ("tail", "last-page", "behind"),
    ("burst", "capped", "none"), ("middle", "twice", "right"), ("one-out", "far-twice", "flips"),
    ("tail", "plain", "none"), ("tail", "last-page", "none"), ("still", "last-page", "behind"),
    ("tail", "plain", "behind"), ("still", "capped", "ahead"), ("head", "capped-late", "rising"),
    ("still", "rounded+short", "none"), ("still", "pages", "none"), ("roll", "rounded", "right"),
    ("one-in", "ties+last-page", "late"), ("still", "twice+capped", "stale"),
    ("still", "ties+twice", "right"), ("still", "pages+capped", "behind"),
    ("one-out", "pages+capped-late", "behind"), ("head", "ties+pages", "capped"),
)  # fmt: skip


def mixed(random: Random) -> tuple[str, str, str]:
    """Two to four habits at once."""
    number = random.randrange(2, 5)
    moving = random.choice(MOVING[1:]) if number > 3 or random.random() < 0.6 else "still"
    number -= moving != "still"
    saying = random.choice(SAYING[1:]) if number > 2 or random.random() < 0.5 else "right"
    number -= saying != "right"
    answering = random.sample([one for one in ANSWERING[1:] if one != "ignores"], min(number, 2))
    return moving, "+".join(answering) or "plain", saying


class Crash(Exception):
    """The process ends here."""


class Server:
    """Ids in order. `persistent`: those that were there from the beginning to now."""

    def __init__(
        self, random: Random, size: int, cap: int, *, moving: str = "still",
        answering: str = "plain", saying: str = "right",
    ) -> None:  # fmt: skip
        self.random, self.cap = random, cap
        self.moving, self.answering, self.saying = moving, set(answering.split("+")), saying
        self.ids = [f"e{number}" for number in range(size)]
        self.next = size
        self.persistent = set(self.ids)
        self.rate = random.choice([0.01, 0.05, 0.3])
        self.requests = self.served = 0
        self.snapshot = list(self.ids)
        self.said = size
        self.once_at = random.randrange(1, max(2, size // cap))
        self.grain = random.choice([grain for grain in (10, 50, 100) if grain <= cap] or [cap])
        self.seen: set[str] = set()

    def insert(self, place: int, number: int = 1) -> None:
        self.ids[place:place] = [f"e{self.next + index}" for index in range(number)]
        self.next += number

    def delete(self, place: int, number: int = 1) -> None:
        self.persistent.difference_update(self.ids[place : place + number])
        del self.ids[place : place + number]

    def move(self) -> None:  # noqa: C901  # a line a kind
        random, kind, rate = self.random, self.moving, self.rate
        size = len(self.ids)
        if kind in {"head", "mix"} and random.random() < rate:
            self.insert(0)
        if kind in {"tail", "mix", "roll"} and random.random() < rate:
            self.insert(len(self.ids))
            if kind == "roll" and size > 10:
                self.delete(0)
        if kind in {"middle", "mix"} and random.random() < rate:
            self.insert(random.randrange(size))
        if kind in {"delete", "mix"} and random.random() < rate and size > 10:
            self.delete(random.randrange(size))
        if kind == "burst" and random.random() < rate / 10:
            number = random.randrange(1, 3 * self.cap)
            if random.random() < 0.5:
                self.insert(0, number)
            elif size > number + 10:
                self.delete(0, number)
        if kind.startswith("one-") and self.requests == self.once_at:
            place = random.choice([0, random.randrange(size), size])
            if kind == "one-in":
                self.insert(place)
            else:
                self.delete(min(place, size - 1))

    def view(self) -> list[str]:
        """The set as this response sees it."""
        ids, random = self.ids, self.random
        if "replica" in self.answering:
            if random.random() < 0.1:
                self.snapshot = list(ids)
                self.insert(0)
            ids = self.snapshot if random.random() < 0.5 else ids
        if "random" in self.answering:
            ids = random.sample(ids, len(ids))
        if "ties" in self.answering:
            shown: list[str] = []
            for _, group in itertools.groupby(ids, lambda one: int(one[1:]) // 7):
                tied = list(group)
                shown += random.sample(tied, len(tied))
            ids = shown
        if "twice" in self.answering:
            ids = [one for one in ids for _ in range(2)]
        if "far-twice" in self.answering:
            ids = ids + ids[:5]
        return ids

    def place(self, offset: int, limit: int, size: int) -> int:
        """Where the page begins that comes for an offset."""
        kinds = self.answering
        if "rounded" in kinds:
            offset -= offset % self.grain
        if "pages" in kinds:
            offset -= offset % min(limit, self.cap)
        if "inclusive" in kinds:
            offset = max(offset - 1, 0)
        if "exclusive" in kinds:
            offset += 1
        if "ignores" in kinds:
            offset = 0
        if "last-page" in kinds and offset >= size:
            offset = max(0, (size - 1) // self.cap * self.cap)
        return offset

    def get(self, offset: int, limit: int) -> tuple[list[str], int | None]:
        self.requests += 1
        self.move()
        ids, cap, random, kinds = self.view(), self.cap, self.random, self.answering
        offset = self.place(offset, limit, len(ids))
        if ("capped" in kinds and offset > len(ids) // 2) or (
            "capped-late" in kinds and self.requests > self.once_at
        ):
            cap = max(min(3, cap), cap // 3)
        if "capped-once" in kinds and self.requests == self.once_at:
            cap = max(1, cap // 5)
        page = ids[offset : offset + min(limit, cap)]
        if "short" in kinds and len(page) > 2 and random.random() < 0.2:
            page = page[: random.randrange(1, len(page))]
        if "window" in kinds:
            page = page[: max(0, len(ids) // 2 - offset)]
        self.served += len(page)
        self.seen.update(page)
        return page, self.total(ids, offset, len(page))

    def total(self, ids: list[str], offset: int, came: int) -> int | None:
        size, random = len(ids), self.random
        if self.saying == "stale" and random.random() < 0.2:
            self.said = size
        return {
            "right": size,
            "none": None,
            "stale": self.said,
            "half": size // 2,
            "more": size + 7 * self.cap,
            "capped": min(size, 5 * self.cap),
            "estimate": int(size * random.uniform(0.9, 1.1)),
            "behind": offset + came,
            "ahead": offset + came + (offset + came < size),
            "rising": offset + came + self.cap,
            "late": size if self.requests > self.once_at else None,
            "first": size if self.requests == 1 else None,
            "flips": random.choice([size, size - 1, size + 1, None]),
        }[self.saying]

    @property
    def wanted(self) -> set[str]:
        """What a complete crawl must have: what was there all the time and can be reached."""
        if self.answering & {"exclusive", "window", "ignores"}:
            return self.persistent & self.seen
        return self.persistent


@dataclass
class Row:
    pass_no: int
    first: int
    requested: int
    received: int
    inserted: int
    again: int
    before_id: str | None
    first_id: str
    last_id: str
    total: int | None

    @property
    def stop(self) -> int:
        return self.first + self.received


@dataclass
class MemoryLedger:
    """`crawl.ports.Ledger` in memory."""

    rows: list[Row] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    joined: dict[tuple[int, int], Joined] = field(default_factory=dict)
    bases: dict[int, int] = field(default_factory=dict)
    proofs: list[Proof] = field(default_factory=list)
    page_limit: int | None = None
    overlap: int = 1

    def commit(self, ask: Ask, ids: list[str], total: int | None) -> int:
        """Stores a response as the writer does; returns how many were new."""
        stored = ids[ask.overlap :]
        if not stored:
            return 0
        assert all((row.pass_no, row.first) != (ask.pass_no, ask.first) for row in self.rows), ask
        new = len(set(stored) - self.ids)
        repeated = len(ids) - len(set(ids))
        before = ids[ask.overlap - 1] if ask.overlap else None
        self.rows.append(
            Row(ask.pass_no, ask.first, ask.limit, len(stored), new,
                max(0, len(stored) - new - repeated), before, stored[0], stored[-1], total)
        )  # fmt: skip
        self.ids.update(stored)
        return new

    def of(self, pass_no: int) -> list[Row]:
        rows = [row for row in self.rows if row.pass_no == pass_no]
        if pass_no in self.bases:
            at = self.bases[pass_no]
            proof = self.before(pass_no)
            rows.append(
                Row(
                    pass_no,
                    at + 1,
                    0,
                    proof.count - 1,
                    0,
                    0,
                    proof.head_id,
                    "",
                    proof.tail_id,
                    None,
                )
            )
        return sorted(rows, key=lambda row: (row.first, row.stop))

    def before(self, pass_no: int) -> Proof:
        return [proof for proof in self.proofs if proof.pass_no < pass_no][-1]

    def chain(self, pass_no: int) -> list[Row]:
        chain: list[Row] = []
        for row in self.of(pass_no):
            if not chain or row.stop > chain[-1].stop:
                chain.append(row)
        return chain

    def seams(self, pass_no: int) -> list[tuple[Row, Row]]:
        chain = self.chain(pass_no)
        return [(a, b) for a, b in itertools.pairwise(chain) if b.first <= a.stop]

    def is_exact(self, a: Row, b: Row) -> bool:
        odd = any(row.again and row.inserted for row in (a, b))
        return self.is_same(a, b) and not odd and self.overlap == 1

    def is_same(self, a: Row, b: Row) -> bool:
        return a.stop == b.first and a.last_id == b.before_id

    async def state(self) -> LedgerState:
        newest = max((row.pass_no for row in self.rows), default=0)
        newest = max(newest, 0)
        rows = [row for row in self.rows if row.pass_no == newest]
        last = max(rows, key=lambda row: row.first, default=None)
        return LedgerState(
            pass_no=newest,
            checks=min((row.pass_no for row in self.rows), default=0),
            proof=self.proofs[-1] if self.proofs else None,
            last_total=rows[-1].total if rows else None,
            page_limit=self.page_limit,
            overlap=self.overlap,
            width=last.requested if last and last.first else None,
        )

    async def gaps(self, pass_no: int, total: int, *, after: int = 0, most: int) -> list[Gap]:
        rows = [Range(row.first, row.received) for row in self.of(pass_no)]
        return ranges.gaps(rows, total, after=after)[:most]

    async def end(self, pass_no: int, *, before: int = FAR) -> ChainEnd | None:
        chain = [row for row in self.chain(pass_no) if row.stop <= before]
        return ChainEnd(chain[-1].stop, chain[-1].last_id) if chain else None

    async def locate(self, pass_no: int, ids: Sequence[str]) -> list[tuple[int, str]]:
        wanted, found = set(ids), set()
        for row in self.of(pass_no):
            edges = (
                (row.first - 1, row.before_id),
                (row.first, row.first_id),
                (row.stop - 1, row.last_id),
            )
            for position, one in edges:
                if one in wanted:
                    found.add((position, one))
        return sorted(found)

    async def doubts(
        self, pass_no: int, *, after: int = -1, before: int = FAR, most: int
    ) -> list[Doubt]:
        found = [
            Doubt(b.first,
                  frozenset(filter(None, (a.before_id, a.first_id, a.last_id))),
                  frozenset(filter(None, (b.before_id, b.first_id, b.last_id))),
                  self.is_same(a, b))
            for a, b in self.seams(pass_no)
            if after < b.first < before and not self.is_exact(a, b)
            and (pass_no, b.first) not in self.joined
        ]  # fmt: skip
        return found[:most]

    async def join(
        self, pass_no: int, joined: Sequence[Joined], *, overlap: int | None = None
    ) -> None:
        for one in joined if overlap is None or self.overlap <= overlap else ():
            if one.kind == "base":
                self.bases[pass_no] = one.first
            else:
                self.joined[pass_no, one.first] = one

    async def unjoin(self, pass_no: int, kind: str) -> None:
        self.joined = {
            key: one for key, one in self.joined.items() if key[0] != pass_no or one.kind != kind
        }

    async def figures(self, pass_no: int, *, before: int = FAR) -> PassFigures:
        rows = [row for row in self.rows if row.pass_no == pass_no]
        totals = [row.total for row in rows if row.total is not None]
        front = [row.first_id for row in rows if row.first == 0]
        return PassFigures(
            inexact=sum(
                not self.is_exact(a, b)
                and self.joined.get((pass_no, b.first), Joined(0, "")).kind != "anchor"
                for a, b in self.seams(pass_no)
                if b.first < before
            ),
            deep=sum(
                one.depth
                for (number, first), one in self.joined.items()
                if number == pass_no and first < before
            ),
            inserted=sum(row.inserted for row in rows),
            distinct=len(self.ids),
            totals=(min(totals), max(totals)) if totals else None,
            first_id=front[0] if front else "",
            based=pass_no in self.bases,
            again_behind=sum(
                row.received - row.inserted
                for row in rows
                if pass_no in self.bases
                and row.first >= self.bases[pass_no] + self.before(pass_no).count
            ),
        )

    async def distinct(self) -> int:
        return len(self.ids)

    async def prove(self, proof: Proof) -> None:
        self.proofs.append(proof)

    async def remember(self, *, page_limit: int | None = None, overlap: int | None = None) -> None:
        self.page_limit = page_limit or self.page_limit
        self.overlap = max(overlap or 1, self.overlap)

    async def cursor(self, pass_no: int) -> tuple[str, int]:
        return "", 0

    async def rejected_positions(self) -> list[int]:
        return []


@dataclass
class Held:
    """A row of `leases`. `owner`: None when nobody holds it."""

    chunk: Chunk | None = None
    epoch: int = 0
    owner: int | None = None
    verdict: Verdict | None = None
    decided: int = 0


@dataclass
class MemoryLeases:
    """The table `leases` in memory; `expire` is the time of a process that is gone or asleep."""

    ledger: MemoryLedger
    rows: dict[int, Held] = field(default_factory=lambda: {0: Held()})
    last: int = 0

    def holds(self, lease: Lease) -> bool:
        """Whether a row still has the epoch at which it was claimed."""
        return lease.number in self.rows and self.rows[lease.number].epoch == lease.epoch

    def expire(self, owner: int) -> None:
        for row in self.rows.values():
            row.owner = None if row.owner == owner else row.owner


class ProcessLeases:
    """`crawl.ports.Leases`: the leases as one process sees them."""

    def __init__(self, table: MemoryLeases, owner: int) -> None:
        self.table, self.owner = table, owner
        self.proof: Lease | None = None

    async def look(self) -> Standing:
        row = self.table.rows[0]
        return Standing(row.epoch, row.owner is not None, row.decided, 1e9, row.verdict)

    def _take(self, number: int) -> Lease:
        row = self.table.rows[number]
        row.epoch, row.owner = row.epoch + 1, self.owner
        return Lease(number, row.epoch)

    async def claim_proof(self) -> Lease | None:
        if self.table.rows[0].owner is not None:
            return None
        self.proof = self._take(0)
        return self.proof

    async def decide(self, lease: Lease, verdict: Verdict) -> None:
        if not self.table.holds(lease):
            raise LeaseLost
        row = self.table.rows[0]
        row.owner, row.verdict, row.decided = None, verdict, lease.epoch

    async def offer(self, chunks: Sequence[Chunk]) -> None:
        if self.proof is None or not self.table.holds(self.proof):
            raise LeaseLost
        for chunk in chunks:
            self.table.last += 1
            self.table.rows[self.table.last] = Held(chunk)

    async def claim(self, done: Sequence[Lease] = ()) -> Chunk | None:
        await self.finish(done)
        for number, row in sorted(self.table.rows.items()):
            if row.chunk is not None and row.owner is None:
                ledger = self.table.ledger
                return replace(row.chunk, lease=self._take(number), overlap=ledger.overlap,
                               page_limit=ledger.page_limit)  # fmt: skip
        return None

    async def finish(self, done: Sequence[Lease]) -> None:
        for lease in done:
            if self.table.holds(lease):
                del self.table.rows[lease.number]

    async def left(self) -> int:
        return len(self.table.rows) - 1

    async def withdraw(self) -> int:
        rows = self.table.rows
        for number in [n for n, row in rows.items() if row.chunk and row.owner is None]:
            del rows[number]
        return len(rows) - 1

    async def let_go(self) -> None:
        self.table.expire(self.owner)


class Run:
    """One process: answers come in an order that *random* chooses, each after its commit."""

    def __init__(
        self, server: Server, ledger: MemoryLedger, random: Random, *, page_size: int,
        in_flight: int, crash_after: int | None = None, failing: float = 0.0,
        numbered: bool = False,
    ) -> None:  # fmt: skip
        self.server, self.ledger, self.random = server, ledger, random
        self.crash_after, self.failing, self.in_flight = crash_after, failing, in_flight
        self.waiting: list[tuple[Ask, asyncio.Future[Outcome]]] = []
        leases = ProcessLeases(MemoryLeases(ledger), 1)
        asyncio.run(leases.claim_proof())
        world = World(ledger, leases, self.fetch, self.pause, lambda _: None)
        reader = Reader(world, page_size=page_size, in_flight=in_flight, numbered=numbered)
        self.planner = Planner(reader)
        self.repeats = RepeatWatch()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(0)

    async def fetch(self, ask: Ask) -> Outcome:
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.waiting.append((ask, answered))
        return await answered

    async def run(self) -> Verdict | NoEndpoint:
        """Raises Crash when so many requests have been answered."""
        planning = asyncio.ensure_future(self.planner.run())
        idle = 0
        try:
            while not planning.done():
                await asyncio.sleep(0)
                if not self.waiting or self.random.random() < 0.3:
                    idle = 0 if self.waiting else idle + 1
                    assert idle < 200, "the planner waits for nothing"
                    continue
                ask, answered = self.waiting.pop(
                    self.random.randrange(min(len(self.waiting), self.in_flight))
                )
                if answered.cancelled():
                    continue
                answered.set_result(self.answer(ask))
                if self.crash_after is not None and self.server.requests >= self.crash_after:
                    raise Crash
            return planning.result()
        finally:
            planning.cancel()

    def answer(self, ask: Ask) -> Outcome:
        ids, total = self.server.get(ask.offset, ask.limit)
        if self.random.random() < self.failing:
            return Failed(ask, "HTTP 503")
        if not ids:
            return Empty(ask, total)
        if ask.pass_no > 0 and self.repeats.repeats(ask.offset, ids, ask.pass_no):
            return Repeated(ask, total, self.repeats.is_ignored)
        return Page(ask, ids, new=self.ledger.commit(ask, ids, total), total=total)


class ProcessLedger:
    """The ledger as one process writes it: only under its lease."""

    def __init__(self, ledger: MemoryLedger, table: MemoryLeases) -> None:
        self._ledger, self._table = ledger, table
        self.lease: Lease | None = None

    def __getattr__(self, name: str) -> Any:
        writes = name in {"join", "unjoin", "prove", "remember"}
        if writes and self.lease is not None and not self._table.holds(self.lease):
            raise LeaseLost
        return getattr(self._ledger, name)


class Process:
    """One of several: takes part until it has a verdict."""

    def __init__(self, crowd: Crowd, number: int, *, page_size: int, in_flight: int) -> None:
        self.crowd, self.in_flight, self.is_asleep = crowd, in_flight, False
        self.leases = ProcessLeases(crowd.table, number)
        self.ledger: Any = ProcessLedger(crowd.ledger, crowd.table)
        self.waiting: list[tuple[Ask, asyncio.Future[Outcome]]] = []
        self.repeats = RepeatWatch()
        world = World(self.ledger, self.leases, self.fetch, self.pause, lambda _: None)
        reader = Reader(world, page_size=page_size, in_flight=in_flight, numbered=False)

        async def plan(lease: Lease) -> Verdict:
            self.ledger.lease = lease
            reader.world = replace(world, fetch=under(lease, self.fetch))
            try:
                verdict = await Planner(reader).run()
            finally:
                self.ledger.lease, reader.world = None, world
            return verdict if isinstance(verdict, Verdict) else Verdict(complete=False)

        self.task = asyncio.ensure_future(share(reader, plan))

    async def fetch(self, ask: Ask) -> Outcome:
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.waiting.append((ask, answered))
        return await answered

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(0)
        while self.is_asleep:  # noqa: ASYNC110  # the driver goes on at each turn
            await asyncio.sleep(0)

    def answer_one(self, random: Random) -> None:
        if self.is_asleep or not self.waiting:
            return
        place = random.randrange(min(len(self.waiting), self.in_flight))
        ask, answered = self.waiting.pop(place)
        if answered.cancelled():
            return
        ids, total = self.crowd.server.get(ask.offset, ask.limit)
        self.crowd.late.append((self, ask, ids, total, answered))

    def commit(
        self, ask: Ask, ids: list[str], total: int | None, answered: asyncio.Future[Outcome]
    ) -> None:
        """The answer has come: stored if its lease is still held."""
        if answered.cancelled():
            return
        assert ask.lease is not None
        if not ids:
            answered.set_result(Empty(ask, total))
        elif ask.pass_no > 0 and self.repeats.repeats(ask.offset, ids, ask.pass_no):
            answered.set_result(Repeated(ask, total, self.repeats.is_ignored))
        elif not self.crowd.table.holds(ask.lease):
            answered.set_result(Fenced(ask))
        else:
            new = self.crowd.ledger.commit(ask, ids, total)
            answered.set_result(Page(ask, ids, new=new, total=total))


class Crowd:
    """Several processes that share one crawl; some are killed, sleep, wake or join on the way."""

    def __init__(self, server: Server, random: Random, *, troubles: int) -> None:
        self.server, self.random, self.troubles = server, random, troubles
        self.ledger = MemoryLedger()
        self.table = MemoryLeases(self.ledger)
        self.processes: list[Process] = []
        self.late: list[Any] = []
        self.verdicts: list[Verdict] = []
        self.last = 0

    def start(self) -> None:
        self.last += 1
        size = self.server.cap
        self.processes.append(
            Process(self, self.last, page_size=self.random.choice([size, size, 2 * size]),
                    in_flight=self.random.choice([1, 4, 8]))
        )  # fmt: skip

    def trouble(self) -> None:
        """Something happens to one of them."""
        self.troubles -= 1
        one = self.random.choice(self.processes)
        kind = self.random.choice(["kill", "sleep", "join", "slow", "proof"])
        if kind == "kill":
            one.task.cancel()
            self.processes.remove(one)
            self.late = [late for late in self.late if late[0] is not one]
            self.table.expire(one.leases.owner)
            self.start()
        elif kind == "sleep":
            one.is_asleep = True
            self.table.expire(one.leases.owner)
            self.start()
        elif kind == "slow":  # its leases expire, and it doesn't notice
            self.table.expire(one.leases.owner)
        elif kind == "proof":  # its holder is late to renew it: chunks were claimed later
            self.table.rows[0].owner = None
        else:
            self.start()

    async def run(self, number: int) -> list[Verdict]:
        for _ in range(number):
            self.start()
        turn = 0
        while self.processes:
            turn += 1
            assert turn < 500_000, "it doesn't end"
            await asyncio.sleep(0)
            if self.troubles and self.random.random() < 0.01:
                self.trouble()
            one = self.random.choice(self.processes)
            if one.is_asleep and (self.random.random() < 0.02 or len(self.processes) == 1):
                one.is_asleep = False
            one.answer_one(self.random)
            if self.late and self.random.random() < 0.7:
                late = self.late.pop(self.random.randrange(len(self.late)))
                if late[0].is_asleep:
                    self.late.append(late)
                else:
                    late[0].commit(*late[1:])
            for one in [one for one in self.processes if one.task.done()]:
                self.verdicts.append(one.task.result())
                self.processes.remove(one)
        return self.verdicts


@dataclass(frozen=True)
class Story:
    """One crawl to its end: `missing` events that were there all the time and can be reached."""

    outcome: str
    missing: set[str]
    requests: int
    pages: float
    ledger: MemoryLedger
    server: Server

    @classmethod
    def tell(
        cls, seed: str, kind: tuple[str, str, str], *, crashes: bool = False,
        numbered: bool = False, runs: int = 1, wide: bool = False, quiet: bool = False,
    ) -> Story:  # fmt: skip
        """*runs* crawls of a server that *seed* makes up, the last of which is judged; *crashes*:
        killed and resumed on the way; *wide*: of more page sizes; *quiet*: nothing moves in the
        last run.
        """
        random = Random(f"{seed}{crashes}")
        cap = random.choice([1, 2, 5, 10, 30, 100, 300, 1000] if wide else [10, 30, 100])
        size = random.randrange(3 * cap, 25 * cap)
        moving, answering, saying = kind
        server = Server(random, size, cap, moving=moving, answering=answering, saying=saying)
        ledger = MemoryLedger()
        page_size = cap if random.random() < 0.7 else random.choice([cap // 2 or 1, 3 * cap])
        if wide:
            page_size = random.choice([page_size, 100_000])
        in_flight = random.choice([1, 4, 16, 64] if wide else [1, 4, 8, 16])
        pages = len(server.view()) / min(page_size, cap)
        while True:
            crash_after = None
            if crashes and random.random() < 0.7:
                crash_after = server.requests + random.randrange(1, int(pages) + 5)
            run = Run(server, ledger, random, page_size=page_size, in_flight=in_flight,
                      crash_after=crash_after, numbered=numbered)  # fmt: skip
            try:
                verdict = asyncio.run(run.run())
            except Crash:
                continue
            runs -= 1
            if runs == 1 and quiet:
                server.moving = "still"
            if runs > 0:
                continue
            complete = isinstance(verdict, Verdict) and verdict.complete
            outcome = "complete" if complete else "incomplete"
            missing = server.wanted - ledger.ids
            return cls(outcome, missing, server.requests, pages, ledger, server)
