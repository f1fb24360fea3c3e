"""monitor/board.py: what the page is told, out of what the database holds."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from datasync_crawler.monitor import board
from datasync_crawler.store.reader import Example, LedgerView, Run

LEDGER = LedgerView(
    source="http://api/v1", total=1000, width=2, cells={0: 2, 1: 1}, rejected={1: 1}, covered=3,
    reach=10, gaps=1, first_gaps=[(3, 8)], stored=2, duplicates=0, rejections=1, ranges=2,
)  # fmt: skip


def run(finished: str | None = None, silent_s: float = 0.5, **stats: Any) -> Run:
    return Run(
        id=7, host="h", pid=1, started_at=100.0, finished_at=200.0 if finished else None,
        lasted_s=100.0, silent_s=silent_s, finish_reason=finished,
        stats={name.replace("__", "/"): value for name, value in stats.items()},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "phase", "words"),
    [
        (run(), "running", ""),
        (
            run(now={"traffic": {"paused_for_s": 75, "pause_reason": "rate limit"}}),
            "running",
            "Paused for 1 min 15 s more: rate limit.",
        ),
        (run(silent_s=10), "silent", "No heartbeat for 10 s"),
        (
            run("finished", 1e6, crawl__complete=True, crawl__total=5),
            "complete",
            "Complete: proved",
        ),
        (run("finished", 1e6), "stopped", "NOT complete: it ended without the proof"),
        (run("shutdown", 1e6), "stopped", "NOT complete: stopped by a signal"),
        (
            run(
                "unauthorized",
                crawl__stop_sentence="The API refuses the key.",
                crawl__complete=True,
            ),
            "stopped",
            "NOT complete: The API refuses the key.",
        ),
        (
            run("incomplete", crawl__missing="offsets 3–7 couldn't be fetched"),
            "stopped",
            "offsets 3–7 couldn't be fetched",
        ),
    ],
)
def test_each_end_has_its_phase_and_its_words(seen: Run, phase: str, words: str) -> None:
    """Running, paused, crashed, complete, stopped for a reason: never complete unless proved."""
    assert board.phase(seen) == phase
    assert words in " ".join(board.words(seen))
    assert bool(board.words(seen)) == bool(words)


def test_a_running_crawl_is_believed_and_a_dead_one_is_not() -> None:
    """While it runs its own count is the newer one; afterwards the ledger knows better."""
    now = {"done": 900, "holes": 2, "traffic": {"in_flight": 4}}
    alive = board.run_state(run(now=now, crawl__total=1000), LEDGER)
    assert (alive["done"], alive["holes"], alive["in_flight"]) == (900, 2, 4)
    dead = board.run_state(run(silent_s=60, now=now, crawl__total=1000), LEDGER)
    assert (dead["done"], dead["holes"], dead["in_flight"], dead["rate_now"]) == (3, 1, 0, 0)
    assert board.run_state(run(silent_s=60), None)["done"] == 0


def test_rates_are_those_between_samples() -> None:
    """Events, latency and commit times are differences; where nothing came there is a null."""
    plots = board.series([
        (1.0, {"received": 100, "latency_s": 2.0, "latency_n": 4, "paused": False}),
        (3.0, {"received": 100, "latency_s": 2.0, "latency_n": 4, "paused": True}),
        (4.0, {"received": 350, "latency_s": 2.5, "latency_n": 5, "remaining": 3}),
    ])  # fmt: skip
    assert plots["at"] == [1.0, 3.0, 4.0]
    assert plots["rate"] == [100.0, 0.0, 250.0]
    assert plots["latency"] == [0.5, None, 0.5]
    assert plots["commit"] == [None, None, None]
    assert plots["remaining"] == [None, None, 3]
    assert plots["paused"] == [False, True, None]
    assert all(column == [] for column in board.series([]).values())


def test_the_strip_has_a_number_for_each_cell() -> None:
    """As many cells as the total fills, committed offsets in each, the frontier before the gap."""
    view = board.ledger_view(LEDGER)
    assert len(view["cells"]) == 500
    assert view["cells"][:3] == [2, 1, 0]
    assert (view["frontier"], view["whole"], view["rejected"]) == (3, 1000, [(1, 1)])
    unknown = board.ledger_view(msgspec.structs.replace(LEDGER, total=None, first_gaps=[]))
    assert (unknown["whole"], unknown["frontier"], len(unknown["cells"])) == (10, 10, 5)


def test_rejected_bytes_become_text_of_bounded_length() -> None:
    """Whatever the bytes: JSON-able text, cut, markup left as it is."""
    view = board.rejections_view([
        Example("r", 9, 5, b"<script>\xff\x00\xed\xa0\x80"), Example("r", 9, 6, b"y" * 600),
        Example("s", 1, 7, b""),
    ])  # fmt: skip
    assert json.loads(msgspec.json.encode(view)) == view
    assert [(reason["reason"], reason["events"]) for reason in view] == [("r", 9), ("s", 1)]
    first, second = view[0]["examples"]
    assert first["raw"].startswith("<script>\ufffd\x00")
    assert len(second["raw"]) == board.EXAMPLE_CHARS + 1


def test_statuses_and_times_come_from_their_stats() -> None:
    """Groups of stats by their prefix; quantiles of a histogram that is empty are unknown."""
    state = board.run_state(
        run(**{"downloader/response_status_count/503": 2, "downloader/response_status_count/200": 8,
               "latency/bucket/0.1": 10, "events/duplicates": 5, "events/reread": 5}),
        None,
    )  # fmt: skip
    assert list(state["statuses"].items()) == [("200", 8), ("503", 2)]
    assert state["latency"]["p50"] == pytest.approx(0.075)
    assert state["commits"] == {"p50": None, "p95": None, "p99": None}
    assert state["duplicates"] == 0
