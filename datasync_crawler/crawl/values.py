"""What the planner asks for, what comes back, and what the ledger says.

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
        """The first offset behind it."""
        return self.first + self.count


@dataclass(frozen=True, slots=True)
class Gap:
    """A range of a pass that isn't committed. `floor`: the nearest range before it begins there."""

    first: int
    stop: int
    floor: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    `pass_no`: above 0, a range of that pass; below 0, a reading that checks others and belongs to
    no pass. `first`, `count`: the range as the ledger will have it. `overlap`: events before
    `first` that are asked for as well, compared and not stored. `seam`: the offset at which the
    range before this one ends, where one is expected. `cursor`: asked for by cursor ("": from the
    start). `redrive`: the rejections of these offsets are said anew.
    """

    pass_no: int
    first: int
    count: int
    overlap: int = 0
    shift: int = 0
    seam: int | None = None
    cursor: str | None = None
    redrive: bool = False

    @property
    def offset(self) -> int:
        """The offset that the API is asked for."""
        return max(self.first - self.overlap + self.shift, 0)

    @property
    def limit(self) -> int:
        """The number of events that the API is asked for."""
        return self.count + self.overlap


@dataclass(frozen=True, slots=True)
class Page:
    """A response with events; those behind the overlap are committed.

    `ids`: what each event of the response is known by, the overlap first. `new`: events that were
    stored or rejected for the first time. `total`: what the API said of the set.
    `cached_s`: the response may come from a cache and be as old as that, in seconds.
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
        """Events behind the overlap: what the ledger counts as received."""
        return max(len(self.ids) - self.ask.overlap, 0)

    @property
    def stop(self) -> int:
        """The ledger's offset behind the last event."""
        return self.ask.first + self.stored


@dataclass(frozen=True, slots=True)
class Empty:
    """An answer without events: a page of none, 204, 404 or 416."""

    ask: Ask
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Repeated:
    """The page of another offset, which isn't stored again. `ignored`: no other ever came."""

    ask: Ask
    total: int | None = None
    ignored: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """No usable answer after all tries; `cause` is a phrase for the user."""

    ask: Ask
    cause: str


@dataclass(frozen=True, slots=True)
class LimitRefused:
    """The API takes no limit as large as that."""

    ask: Ask


@dataclass(frozen=True, slots=True)
class NoEndpoint:
    """There is no endpoint of this kind; `why` is a sentence without its full stop."""

    why: str


@dataclass(frozen=True, slots=True)
class CursorExpired:
    """The API doesn't take this cursor any more."""

    ask: Ask


Outcome = Page | Empty | Repeated | Failed | LimitRefused | NoEndpoint | CursorExpired


@dataclass(frozen=True, slots=True)
class Proof:
    """A set that was proved complete in `pass_no`: its closed form.

    `count`: events from head to tail, by the API's offsets. `short`: how many of them were ids that
    the API serves more than once. `total`: what the API said last, None when it says nothing.
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
    """What is known before the first request.

    `pass_no`: the newest pass (0: none); `checks`: the lowest number of a reading that checks (0:
    none). `has_seams`: the rows of the newest pass say what came before them (those of version 0.1
    don't). `last_total`: the API's total as the newest row of that pass had it. `width`: events
    asked for with a numbered page of that pass.
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
        """A pass that can be gone on with."""
        proved = self.proof.pass_no if self.proof else 0
        return self.pass_no if self.pass_no > proved and self.has_seams else None


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """The end of the farthest range of a pass, and the id of the last event in it."""

    stop: int
    last_id: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """A seam that nothing proves yet: the range behind it begins at `first`.

    `left` and `right`: ids of the ranges on either side of it (their first and last events).
    `same`: they share the event that they should, but that may be by chance.
    """

    first: int
    left: frozenset[str]
    right: frozenset[str]
    same: bool = False


@dataclass(frozen=True, slots=True)
class Joined:
    """A seam that is proved, though it isn't exact.

    `kind`: deep (the set moved by `depth` events), overlap (the order differs within less than half
    of the overlap), reread (a page around it was read again `readings` times), anchor (the front
    page holds the head of what was proved before), base (that lies from here on).
    """

    first: int
    kind: str
    depth: int = 0
    readings: int = 0


@dataclass(frozen=True, slots=True)
class PassFigures:
    """Sums over a pass and over the tables. `inexact`: seams that aren't exact, joined or not.

    `deep`: how many events the set moved by at deep seams, in sum. `inserted`: events that were new
    in this pass. `distinct`: ids stored and rejected in all. `totals`: the least and the greatest
    total that its rows heard. `first_id`: the event at its front. `based`: what was proved before
    is a part of it. `covered`: offsets in its chain. `again_behind`: events behind what was proved
    before that were stored already.
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
    """What a run has proved. `sentences`: what is missing and why, or what is to be known beside
    the proof. `again`: another pass may settle it. `rerun`: the same command may do better later.
    `setup`: something has to be set up first.

    Of a complete set: `served`, events from front to end; `total`, what the API said of that;
    `stored` and `rejected`, events in the tables.
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
