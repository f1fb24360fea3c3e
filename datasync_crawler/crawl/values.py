"""The planner's values: requests, their outcomes, and facts of the ledger.

Offsets and counts are in events. An offset of the ledger counts from the front of the set as it was
when the pass began; `Ask.shift` is what has to be added to it now.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """*count* events from offset *first* on."""

    first: int
    count: int

    @property
    def stop(self) -> int:
        """The first offset behind the range."""
        return self.first + self.count


@dataclass(frozen=True, slots=True)
class Gap:
    """A range of a pass that isn't committed. `floor`: where the nearest range before it begins."""

    first: int
    stop: int
    floor: int = 0


class LeaseLost(Exception):
    """Another process holds the lease now, and what was about to be written is its."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it was claimed: it is held as long as its row has this epoch."""

    number: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a gap that one process fetches.

    `shift`: see Ask. `page_size`: the planner's; numbered pages depend on it. `overlap` and
    `page_limit`: what was remembered of the API when the chunk was claimed.
    """

    gap: Gap
    pass_no: int
    shift: int
    page_size: int
    lease: Lease | None = None
    overlap: int = 1
    page_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    `pass_no`: above 0, a range of that pass; below 0, a check, which belongs to no pass. `first`,
    `count`: the range in the ledger. `overlap`: events before `first` that are requested as well,
    compared and not stored. `seam`: where the range before this one ends, if there is one.
    `cursor`: the cursor to use ("": from the start). `redrive`: replaces the rejections of these
    offsets. `lease`: without it, the page isn't committed.
    """

    pass_no: int
    first: int
    count: int
    overlap: int = 0
    shift: int = 0
    seam: int | None = None
    cursor: str | None = None
    redrive: bool = False
    lease: Lease | None = None

    @property
    def offset(self) -> int:
        """The offset in the request."""
        return max(self.first - self.overlap + self.shift, 0)

    @property
    def limit(self) -> int:
        """The number of events in the request."""
        return self.count + self.overlap


@dataclass(frozen=True, slots=True)
class Page:
    """A response with events; those behind the overlap are committed.

    `ids`: the ids of all events of the response, the overlap first. `new`: events that were
    stored or rejected for the first time. `total`: the API's total. `cached_s`: the response's
    age in a cache, in seconds; 0.0 if it isn't from one.
    """

    ask: Ask
    ids: Sequence[str] = field(repr=False)
    new: int = 0
    total: int | None = None
    next_cursor: str | None = None
    has_more: bool | None = None
    cached_s: float = 0.0

    @property
    def stored(self) -> int:
        """Events behind the overlap; the ledger's `received`."""
        return max(len(self.ids) - self.ask.overlap, 0)

    @property
    def stop(self) -> int:
        """The ledger's offset behind the last event."""
        return self.ask.first + self.stored


@dataclass(frozen=True, slots=True)
class Empty:
    """An answer without events: an empty page, 204, 404 or 416."""

    ask: Ask
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Repeated:
    """The page of another offset, which isn't stored again. `ignored`: all offsets brought it."""

    ask: Ask
    total: int | None = None
    ignored: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """No usable answer after all retries; `cause` is a phrase for the user."""

    ask: Ask
    cause: str


@dataclass(frozen=True, slots=True)
class LimitRefused:
    """The API rejects this page size."""

    ask: Ask


@dataclass(frozen=True, slots=True)
class NoEndpoint:
    """There is no endpoint of this kind; `why` is a sentence without its full stop."""

    why: str


@dataclass(frozen=True, slots=True)
class CursorExpired:
    """The API doesn't accept this cursor any more."""

    ask: Ask


@dataclass(frozen=True, slots=True)
class Fenced:
    """The page came too late: its lease is another process's, and it wasn't committed."""

    ask: Ask


Outcome = Page | Empty | Repeated | Failed | LimitRefused | NoEndpoint | CursorExpired | Fenced


@dataclass(frozen=True, slots=True)
class Proof:
    """A set that was proved complete in `pass_no`.

    `count`: events from head to tail, by the API's offsets. `short`: how many of them are ids that
    the API serves more than once. `total`: the API's last total, None if it gives none.
    `method`: seams, counts (numbered pages) or cursor.
    """

    pass_no: int
    head_id: str
    tail_id: str
    count: int
    total: int | None
    short: int = 0
    method: str = "seams"


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The ledger before the first request.

    `pass_no`: the newest pass (0: none); `checks`: the lowest number of a check (0: none).
    `has_seams`: the rows of the newest pass have `before_id` (those of version 0.1 don't).
    `last_total`: the API's total in the newest row of that pass. `width`: the page size of that
    pass, where pages are numbered.
    """

    pass_no: int = 0
    checks: int = 0
    proof: Proof | None = None
    has_seams: bool = True
    last_total: int | None = None
    page_limit: int | None = None
    overlap: int = 1
    width: int | None = None

    @property
    def open_pass(self) -> int | None:
        """The newest pass, if it can be resumed."""
        proved = self.proof.pass_no if self.proof else 0
        return self.pass_no if self.pass_no > proved and self.has_seams else None


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """Where the chain of a pass ends, and the id of its last event."""

    stop: int
    last_id: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """A seam that isn't proved yet: the range behind it begins at `first`.

    `left` and `right`: the first and last ids of the ranges on either side of it. `same`: they
    share the expected event, but the order isn't stable, so that it may be by chance.
    """

    first: int
    left: frozenset[str]
    right: frozenset[str]
    same: bool = False


@dataclass(frozen=True, slots=True)
class Joined:
    """A proved seam that isn't exact.

    `kind`: deep (the set moved by `depth` events), overlap (the order differs within less than half
    of the overlap), reread (a page around it was read again `readings` times), anchor (the front
    page holds the head of the last proof), base (the last proof's set begins here).
    """

    first: int
    kind: str
    depth: int = 0
    readings: int = 0


@dataclass(frozen=True, slots=True)
class PassFigures:
    """Sums over a pass and over the tables. `inexact`: seams that aren't exact, joined or not.

    `deep`: by how many events the set moved at deep seams, in sum. `inserted`: events that were new
    in this pass. `distinct`: ids stored and rejected in all. `totals`: the smallest and the largest
    total of its rows. `first_id`: the event at its front. `based`: it builds on the last proof.
    `covered`: offsets in its chain. `again_behind`: events behind the last proof's set that were
    stored already.
    """

    inexact: int = 0
    deep: int = 0
    inserted: int = 0
    unbalanced: int = 0
    distinct: int = 0
    rejected_now: int = 0
    totals: tuple[int, int] | None = None
    first_id: str = ""
    based: bool = False
    covered: int = 0
    again_behind: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a pass or run. `sentences`: what is missing and why, or notes on the proof.
    `again`: another pass may settle it. `rerun`: the same command may succeed later. `setup`:
    something has to be set up first.

    Of a complete set: `served`, events from front to end; `total`, the API's; `stored` and
    `rejected`, events in the tables.
    """

    complete: bool
    sentences: tuple[str, ...] = ()
    again: bool = False
    rerun: bool = False
    served: int = 0
    total: int | None = None
    stored: int = 0
    rejected: int = 0
    setup: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """The lease of the proof: its epoch, and whether a process holds it now.

    `verdict`: the last one, of the epoch `decided`, `ago_s` seconds ago; None: there was none.
    """

    epoch: int
    is_held: bool
    decided: int = 0
    ago_s: float = 0.0
    verdict: Verdict | None = None
