"""Leases: the processes of one crawl share its work through the table ``leases``.

Owns the statements that claim, renew and give back. Must not decide what is claimed when:
`crawl.sharing` does.
"""

import asyncio
import json
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec

from datasync_crawler.crawl.values import Chunk, Gap, Lease, LeaseLost, Standing, Verdict
from datasync_crawler.errors import ConfigError, CrawlError
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.statements import Rows, Statements, insist

T = TypeVar("T")

#: Seconds after which the lease of a process that is gone may be claimed.
LENGTH_S: Final = 15.0
#: Leases aren't renewed in a pause of more than this, in seconds.
LONGEST_PAUSE_S: Final = 60.0


class Leases:
    """`crawl.ports.Leases` on a connection and a thread of its own.

    `settings`: those that all processes of a crawl must have in common. Raises DatabaseLost when
    the database stays away longer than DB_MAX_WAIT.
    """

    def __init__(
        self,
        connector: Connector,
        schema: str,
        *,
        settings: Mapping[str, Any],
        max_wait_s: float,
        stop: threading.Event,
        length_s: float = LENGTH_S,
    ) -> None:
        self._statements = Statements(("leases",), schema, connector.connect_autocommit)
        self._settings = settings
        self._max_wait_s, self._stop, self._length_s = max_wait_s, stop, length_s
        self._owner = str(uuid.uuid4())
        self._held: set[Lease] = set()
        self._proof: Lease | None = None
        self.run_id: int | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="leases")

    async def look(self) -> Standing:
        """Who is at work, and what was decided. Raises ConfigError when the process that plans has
        other settings.
        """
        if not (rows := await self._run("look")):
            await self._run("begin")
            rows = await self._run("look")
        epoch, is_held, decided, ago_s, verdict, settings = rows[0]
        if is_held:
            _refuse_other(self._settings, settings or {})
        known = None if verdict is None else msgspec.convert(verdict, Verdict, strict=False)
        return Standing(epoch, is_held, decided, ago_s, known)

    async def claim_proof(self) -> Lease | None:
        """Claims the proof; None if another process holds it."""
        rows = await self._run("claim_proof", **self._claim(), settings=json.dumps(self._settings))
        if not rows:
            return None
        self._proof = Lease(*rows[0])
        self._held.add(self._proof)
        return self._proof

    async def decide(self, lease: Lease, verdict: Verdict) -> None:
        """Gives the proof back, with its verdict. Raises LeaseLost."""
        written = json.dumps(msgspec.to_builtins(verdict))
        rows = await self._run("decide", id=lease.number, epoch=lease.epoch, verdict=written)
        self._held.discard(lease)
        if not rows:
            raise LeaseLost

    async def offer(self, chunks: Sequence[Chunk]) -> None:
        """Adds chunks that anybody may claim. Raises LeaseLost."""
        values = [
            ("chunk", one.pass_no, one.gap.first, one.gap.stop, one.gap.floor, one.shift,
             one.page_size)
            for one in chunks
        ]  # fmt: skip

        def offer() -> None:
            with self._statements.transaction():
                if self._proof is None or not self._statements.run("fence", **_keys([self._proof])):
                    raise LeaseLost
                self._statements.run_values("offer", values)

        await self._insisting(offer)

    async def claim(self, done: Sequence[Lease] = ()) -> Chunk | None:
        """Deletes the chunks that are done, and claims another; None if there is none to claim."""
        if done:
            await self.finish(done)
        rows = await self._run("claim", **self._claim())
        if not rows:
            return None
        number, epoch, pass_no, first, stop, floor, shift, page_size, overlap, page_limit = rows[0]
        lease = Lease(number, epoch)
        self._held.add(lease)
        return Chunk(Gap(first, stop, floor), pass_no, shift, page_size, lease, overlap, page_limit)

    async def finish(self, done: Sequence[Lease]) -> None:
        """Deletes the chunks that are done."""
        self._held.difference_update(done)
        if done:
            await self._run("finish", **_keys(done))

    async def left(self) -> int:
        """The number of chunks that aren't done."""
        return int((await self._run("left"))[0][0])

    async def withdraw(self) -> int:
        """Deletes the chunks that nobody holds; returns the number of the others."""
        return int((await self._run("withdraw"))[0][0])

    async def let_go(self) -> None:
        """Gives back all leases of this process, for others to claim."""
        held, self._held = self._held, set()
        if held:
            await self._run("let_go", **_keys(held))

    async def keep(self, paused_s: Callable[[], float]) -> None:
        """Renews the leases until it is cancelled, but not in a long pause for the API: another
        process may have a quota of its own.
        """
        while True:
            await asyncio.sleep(self._length_s / 3)
            if self._held and paused_s() < LONGEST_PAUSE_S:
                try:
                    await self._run("renew", **_keys(self._held), length_s=self._length_s)
                except CrawlError:
                    return  # whoever waits for a page or the ledger says so

    async def close(self) -> None:
        """Gives everything back, and closes the connection."""
        try:
            await self.let_go()
        finally:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._statements.close)
            self._thread.shutdown()

    def _claim(self) -> dict[str, Any]:
        return {"owner": self._owner, "run_id": self.run_id, "length_s": self._length_s}

    async def _run(self, name: str, **params: Any) -> Rows:
        return await self._insisting(lambda: self._statements.run(name, **params))

    async def _insisting(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._thread, lambda: insist(work, max_wait_s=self._max_wait_s, stop=self._stop)
        )


def _keys(leases: Iterable[Lease]) -> dict[str, Any]:
    return {"leases": tuple((lease.number, lease.epoch) for lease in leases)}


def _refuse_other(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raises ConfigError for settings that would make two processes see different events."""
    different = [name for name, value in ours.items() if theirs.get(name) != value]
    if different:
        named = ", ".join(
            f"{name} is {theirs.get(name)!r} there and {ours[name]!r} here"
            for name in different[:3]
        )
        raise ConfigError(
            f"Another process is crawling into this schema with other settings: {named}. Start "
            "this one with the same settings, or with a schema of its own (DB_SCHEMA)."
        )
