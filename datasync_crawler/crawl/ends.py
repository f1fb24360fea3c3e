"""The end of the set: a request from the last known event on brings nothing behind it."""

from dataclasses import dataclass, replace
from typing import Final

from datasync_crawler.crawl.ports import FAR
from datasync_crawler.crawl.reader import LONGEST_CACHE_S, Reader
from datasync_crawler.crawl.values import Ask, Failed, Page

#: Requests that search for the end when it has moved.
MOST_PROBES: Final = 6
#: Times the size of the set: an offset there isn't rounded down into it.
TIMES_AS_FAR: Final = 10
#: Rounds that only fetch added events, before a bound is searched for.
MOST_GROWTH: Final = 20
#: Why the end can't be told.
ROUNDED: Final = (
    "the end of the set wasn't found: behind the last event the API serves it again. If it rounds "
    "offsets down, set PAGINATION=page"
)


@dataclass(frozen=True, slots=True)
class End:
    """The end of the chain, at `stop` in the ledger; `served`: the same by the API's offsets now.

    `seen`: the API serves nothing behind it. `moved`: it isn't at the chain's offset. `full`: a
    full page came from behind it. `cause`: why it couldn't be checked. `total`: the API's total
    when it was seen. `is_gap`: a gap is behind it, and ranges of the chain behind that.
    """

    stop: int
    last_id: str
    served: int
    seen: bool = False
    moved: bool = False
    full: bool = False
    cause: str = ""
    total: int | None = None
    is_gap: bool = False


class Ends:
    """Checks whether the chain's end is the end of the set."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def chain_end(self, before: int = FAR) -> End:
        """The end of the chain up to *before*, by the ledger."""
        end = await self._reader.world.ledger.end(self._reader.pass_no, before=before)
        assert end is not None  # the front page is committed
        return End(end.stop, end.last_id, end.stop + self._reader.shift, is_gap=before < FAR)

    async def probe(self, end: End) -> End:
        """Requests the last event and what is behind it. At a gap an empty answer isn't the end."""
        reader = self._reader
        if not reader.has_seams:
            return await self._probe_behind(end)
        size = reader.sizes.size
        ask = Ask(reader.pass_no, end.stop, size - 1, 1, reader.shift, end.stop)
        answer = await reader.world.fetch(ask)
        if isinstance(answer, Failed):
            return replace(end, cause=f"the end of the set couldn't be fetched: {answer.cause}")
        if isinstance(answer, Page) and answer.stored:
            return await self._take_more(answer, end)
        reader.learn(answer)
        if not isinstance(answer, Page) or answer.ids[0] != end.last_id:
            return end if end.is_gap else await self._find_end(end)
        if answer.cached_s:
            await reader.world.pause(min(answer.cached_s, LONGEST_CACHE_S))
            return replace(end, cause="the end of the set came from a cache")
        return await self.confirm(end)

    async def confirm(self, end: End) -> End:
        """The last event came alone: it is the end, unless the total differs."""
        if self._reader.is_end(end.served) and not end.is_gap:
            return replace(end, seen=True)
        return await self._probe_behind(end)

    async def _take_more(self, answer: Page, end: End) -> End:
        """There are events behind the last one, or new ones before it."""
        reader = self._reader
        await reader.accept(answer)
        if answer.ids[-1] == end.last_id and not answer.new:
            served = answer.ask.offset + len(answer.ids)
            end = replace(await self.chain_end(), served=served, moved=True)
            return await self._probe_behind(end)
        full = reader.sizes.is_full(len(answer.ids)) and answer.new > 0
        return replace(await self.chain_end(), full=full)

    async def _probe_behind(self, end: End) -> End:
        """Requests what is behind the last event."""
        reader, size = self._reader, self._reader.sizes.size
        inside = end.served % size if reader.numbered else 0
        page = await reader.check(end.served - inside, size)
        if inside and isinstance(page, Page) and len(page.ids) <= inside:
            page = await reader.check(end.served - inside + size, size)
        if isinstance(page, Failed):
            return replace(end, cause=f"what is behind the end couldn't be fetched: {page.cause}")
        if not isinstance(page, Page):
            return replace(end, seen=not end.is_gap)
        if not page.new and page.ids[-1] == end.last_id:
            return await self._probe_far(end)
        if len(page.ids) == 1 and reader.has_seams and reader.sizes.longest <= 1:
            reader.sizes = type(reader.sizes).of(1)  # the API serves one event at a time
        first = (
            reader.ask(end.stop, end.stop + size)
            if reader.numbered
            else Ask(reader.pass_no, end.stop, size, 0, reader.shift)
        )
        fetched = await reader.world.fetch(first)
        await reader.accept(fetched)
        if not isinstance(fetched, Page) or not fetched.stored:
            return end
        return replace(await self.chain_end(), full=page.new > 0)

    async def _probe_far(self, end: End) -> End:
        """The last event came again from behind itself. It is the end if the server serves its last
        page at any offset, or none a single offset behind.
        """
        reader, size = self._reader, self._reader.sizes.size
        far = await reader.check(TIMES_AS_FAR * (end.served + size), size)
        if isinstance(far, Page) and (reader.numbered or reader.sizes.longest > 1):
            if not far.new and far.ids[-1] == end.last_id:
                return replace(end, seen=True)
        elif not end.is_gap and not isinstance(far, Page | Failed):
            near = await reader.check(end.served + 1, size)
            if not isinstance(near, Page | Failed):
                return replace(end, seen=True)
        return replace(end, cause=ROUNDED)

    async def _find_end(self, end: End) -> End:
        """The end has moved: searches for it from an event of the chain on."""
        reader, size = self._reader, self._reader.sizes.size
        at, last = end.served - 1 - size // 2, ""
        for _ in range(MOST_PROBES):
            page = await reader.check(at, size)
            if isinstance(page, Page) and last and list(page.ids) == [last]:
                end = replace(end, last_id=last, served=page.ask.offset + 1, moved=True)
                return replace(end, seen=await self._is_alone(end))
            if not isinstance(page, Page):
                at, last = max(at, 0) - size, ""
            elif last in page.ids or await self._reader.located(page) is not None:
                at, last = page.ask.offset + len(page.ids) - 1, page.ids[-1]
            else:
                at, last = page.ask.offset - size // 2, ""
        return replace(end, moved=True)

    async def _is_alone(self, end: End) -> bool:
        """Whether an answer of the last event alone shows the end: it may have been cut short."""
        sizes = self._reader.sizes
        if sizes.longest > 1 and not sizes.is_ragged:
            return True
        return not isinstance(await self._reader.check(end.served, sizes.size), Page | Failed)

    async def bound(self, end: End, pages: int) -> int | None:
        """For a set that keeps growing: an offset of the ledger behind all present events, *pages*
        behind the end; None if the set reaches it.
        """
        reader = self._reader
        far = reader.sizes.longest * pages + 1
        page = await reader.check(end.served + far, reader.sizes.size)
        if isinstance(page, Page) and await reader.located(page) is None:
            return None
        return end.stop + far  # nothing is there, or a repeated page


class Growth:
    """A set that grows while it is read must not keep the run going."""

    def __init__(self, ends: Ends) -> None:
        self._ends, self._rounds = ends, 0
        self._bound: int | None = None

    async def take(self, end: End) -> End | None:
        """After a round that has brought events behind the end: where to stop, None to go on."""
        self._rounds += 1
        if self._bound is None and self._rounds % MOST_GROWTH == 0:
            self._bound = await self._ends.bound(end, self._rounds // MOST_GROWTH)
        if self._bound is not None and end.stop >= self._bound:
            return replace(end, seen=True)  # the next run fetches what came later
        return None
