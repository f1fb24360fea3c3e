"""Plan, fetch, commit, crash, resume, in any order: the ledger and the table follow a plain model.

The server is a list of ids that can grow and shrink; a crawler that knows nothing but the real
ledger reads it in pages. What it has committed is known beside it, as a set of offsets and of ids.
"""

import contextlib
import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from rooms import Room, page

MOST_EVENTS = 40


class Crash(Exception):
    """The process ends here."""


class LedgerMachine(RuleBasedStateMachine):
    """One example: a crawl with its crashes; `room` is set by the test."""

    room: Room

    def __init__(self):
        super().__init__()
        self.room.truncate()
        self.served = [f"id {number % 33}" for number in range(20)]  # some ids are served twice
        self.page_size = 7
        self.pass_no = 1
        self.covered = set()
        self.ids = set()
        self.counted = 0
        self.fetched = []
        self._resume()

    def _resume(self):
        """A new process: all it knows, it reads."""
        self.crash_at = None
        self.writer = self.room.writer(crash_point=self._crash_point)
        self.pass_no = self.room.ledger.state().last_pass + 1
        self.fetched = []

    def _crash_point(self, where):
        if where == self.crash_at:
            raise Crash

    @rule(place=st.integers(0, 5), short=st.integers(0, 6), bad=st.booleans())
    def fetch_a_hole(self, place, short, bad):
        """A page of a hole, perhaps shorter than asked, perhaps with an event without id."""
        holes = self.room.ledger.holes(len(self.served), most=place + 1)
        planned = {one.first_offset for one in self.fetched}
        holes = [hole for hole in holes if hole.first not in planned]
        if not holes:
            return
        hole = holes[-1]
        count = max(1, min(hole.count, self.page_size) - short)
        ids = self.served[hole.first : hole.first + count]
        if bad:
            ids[-1] = None
        self.fetched.append(page(ids, first=hole.first, pass_no=self.pass_no))

    @rule()
    def fetch_the_first_page_again(self):
        """As each run does, to learn the total."""
        if not any(one.first_offset == 0 for one in self.fetched) and not any(
            row[:2] == (self.pass_no, 0) for row in self.room.counts()
        ):
            self.fetched.append(page(self.served[: self.page_size], pass_no=self.pass_no))

    @precondition(lambda self: self.fetched)
    @rule(
        crash_at=st.sampled_from(
            [None, None, None, "before_copy", "after_copy", "before_commit", "after_commit"]
        ),
        most=st.integers(1, 4),
        seed=st.integers(0, 9),
    )
    def commit(self, crash_at, most, seed):
        """A batch of fetched pages in any order; the process may end at any point of it."""
        random.Random(seed).shuffle(self.fetched)
        batch, self.fetched = self.fetched[:most], self.fetched[most:]
        self.crash_at = crash_at
        with contextlib.suppress(Crash):
            self.writer.write(batch)
        if crash_at in {None, "after_commit"}:
            for one in batch:
                self.covered.update(range(one.first_offset, one.first_offset + one.received))
                self.ids.update(event.id for event in one.events)
                self.counted += one.received
        if crash_at is not None:
            self.writer.close()
            self._resume()

    @rule()
    def crash_while_idle(self):
        """Pages that were fetched and not committed are lost with the process."""
        self.writer.close()
        self._resume()

    @precondition(lambda self: not self.fetched)
    @rule()
    def begin_a_new_pass(self):
        """A repair or a redrive: the same offsets may be fetched again."""
        self.pass_no += 1

    @rule(size=st.integers(1, 12))
    def change_the_page_size(self, size):
        """The server caps the limit, or the user sets another."""
        self.page_size = size

    @rule(total=st.integers(1, MOST_EVENTS))
    def change_the_total(self, total):
        """Events are added at the end, or taken away."""
        added = [f"id {number % 33}" for number in range(len(self.served), total)]
        self.served = (self.served + added)[:total]

    @invariant()
    def coverage_is_the_model(self):
        """Coverage and holes are those of the offsets that were committed."""
        total = len(self.served)
        below = {offset for offset in self.covered if offset < total}
        assert self.room.ledger.coverage(total) == len(below)
        missing = {
            offset
            for hole in self.room.ledger.holes(total)
            for offset in range(hole.first, hole.stop)
        }
        assert missing == set(range(total)) - below

    @invariant()
    def no_event_is_lost_or_twice(self):
        """The table holds each committed id once, and nothing else."""
        assert self.room.ids() == sorted(self.ids)

    @invariant()
    def the_sums_add_up(self):
        """Received is inserted, duplicates and rejected; inserted is what the table holds."""
        sums = self.room.ledger.sums()
        assert sums.received == sums.inserted + sums.duplicates + sums.rejected == self.counted
        assert sums.inserted == len(self.ids)

    def teardown(self):
        """From wherever it stands, filling the holes completes the crawl."""
        self.writer.close()
        self._resume()
        total = len(self.served)
        for hole in self.room.ledger.holes(total):
            ids = self.served[hole.first : hole.stop]
            self.writer.write([page(ids, first=hole.first, pass_no=self.pass_no)])
        assert self.room.ledger.coverage(total) == total
        assert self.room.ledger.holes(total) == []
        self.writer.close()


@pytest.fixture
def room(database):
    room = Room(database)
    yield room
    room.close()


def test_ledger_machine(room):
    """Whatever is planned, fetched, committed, crashed and resumed, nothing is lost or twice."""
    LedgerMachine.room = room
    run_machine(
        LedgerMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
