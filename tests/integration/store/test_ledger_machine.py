"""Plan, fetch, commit, crash, resume, in any order: the ledger and the table follow a plain model.

The server is a list of ids that can grow and shrink; a crawler that knows nothing but the real
ledger reads it in pages. What it has committed is known beside it, as a set of offsets and of ids.
"""

import asyncio
import contextlib
import random

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
        self.pass_no = max(asyncio.run(self.room.ledger.state()).pass_no, 1)
        self.fetched = []

    def _gaps(self, total, most=1000):
        return asyncio.run(self.room.ledger.gaps(self.pass_no, total, most=most))

    def _crash_point(self, where):
        if where == self.crash_at:
            raise Crash

    @rule(place=st.integers(0, 5), short=st.integers(0, 6), bad=st.booleans())
    def fetch_a_gap(self, place, short, bad):
        """A page of a gap, perhaps shorter than asked, perhaps with an event without id."""
        planned = {one.first_offset for one in self.fetched}
        gaps = self._gaps(len(self.served), most=place + 1)
        gaps = [gap for gap in gaps if gap.first not in planned]
        if not gaps:
            return
        gap = gaps[-1]
        count = max(1, min(gap.stop - gap.first, self.page_size) - short)
        ids = self.served[gap.first : gap.first + count]
        if bad:
            ids[-1] = None
        self.fetched.append(page(ids, first=gap.first, pass_no=self.pass_no))

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
                if one.pass_no == self.pass_no:
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

    @precondition(lambda self: not self.fetched and self.covered)
    @rule()
    def begin_a_new_pass(self):
        """The same offsets are fetched again; a pass begins with its front page."""
        self.pass_no += 1
        self.covered = set()
        self.fetched.append(page(self.served[: self.page_size], pass_no=self.pass_no))
        self.commit(None, 1, 0)

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
    def gaps_are_the_model(self):
        """Gaps and coverage are those of the offsets that were committed in this pass."""
        total = len(self.served)
        missing = {offset for gap in self._gaps(total) for offset in range(gap.first, gap.stop)}
        assert missing == set(range(total)) - self.covered
        assert asyncio.run(self.room.ledger.figures(self.pass_no)).covered == len(self.covered)

    @invariant()
    def no_event_is_lost_or_twice(self):
        """The table holds each committed id once, and nothing else."""
        assert self.room.ids() == sorted(self.ids)

    @invariant()
    def the_sums_add_up(self):
        """Received is inserted, duplicates and rejected; inserted is what the table holds."""
        rows = self.room.counts()
        assert sum(row[2] for row in rows) == self.counted
        assert sum(row[3] for row in rows) == len(self.ids)
        assert asyncio.run(self.room.ledger.figures(self.pass_no)).unbalanced == 0

    def teardown(self):
        """From wherever it stands, filling the gaps completes the pass."""
        self.writer.close()
        self._resume()
        total = len(self.served)
        for gap in self._gaps(total):
            ids = self.served[gap.first : gap.stop]
            self.writer.write([page(ids, first=gap.first, pass_no=self.pass_no)])
        assert self._gaps(total) == []
        self.writer.close()


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
