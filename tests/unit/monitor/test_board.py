"""monitor/board.py: what the page is told, out of what the database holds."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from datasync_crawler.monitor import board
from datasync_crawler.store.reader import Example, LedgerView, Run, TableView

LEDGER = LedgerView(
    source="http://api/v1", total=1000, width=2, cells={0: 2, 1: 1}, rejected={1: 1}, covered=3,
    reach=10, gaps=1, first_gaps=[(3, 8)], stored=2, duplicates=0, rejections=1, ranges=2,
    runs={0: 7}, doubts=[],
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
        (run(now={"traffic": {"paused_for_s": 75, "pause_reason": "rate limit"}}), "running", ""),
        (run(silent_s=10), "silent", "No heartbeat for 10 s"),
        (
            run("finished", 1e6, crawl__complete=True, crawl__total=5),
            "complete",
            "Complete: proved",
        ),
        (run("finished", 1e6), "stopped", "NOT complete: it ended without the proof"),
        (run("shutdown", 1e6), "stopped", "NOT complete: stopped by a signal"),
        (
            run("too_many_rejected", 1e6, crawl__complete=True, crawl__total=9),
            "complete",
            "Complete: proved",
        ),
        (
            run(now={"trouble": "can't reach api.example.com: try 2 of 4, next in 3 s"}),
            "running",
            "Can't reach api.example.com: try 2 of 4, next in 3 s.",
        ),
        (
            run(
                "unauthorized",
                crawl__stop_sentence="The API rejects the key.",
                crawl__complete=True,
            ),
            "stopped",
            "NOT complete: The API rejects the key.",
        ),
        (
            run("incomplete", crawl__missing="offsets 3–7 couldn't be fetched"),
            "stopped",
            "offsets 3–7 couldn't be fetched",
        ),
    ],
)
def test_each_end_has_its_phase_and_its_words(seen: Run, phase: str, words: str) -> None:
    """Running, crashed, complete, stopped for a reason: never complete unless proved."""
    assert board.phase(seen) == phase
    assert words in " ".join(board.words(seen))
    assert bool(board.words(seen)) == bool(words)


def test_a_running_crawl_is_believed_and_a_dead_one_is_not() -> None:
    """While it runs its own count is the newer one; afterwards the ledger knows better."""
    now = {"done": 900, "gaps": 2, "traffic": {"in_flight": 4}}
    alive = board.run_state(run(now=now, crawl__total=1000), LEDGER)
    assert (alive["done"], alive["gaps"], alive["in_flight"]) == (900, 2, 4)
    dead = board.run_state(run(silent_s=60, now=now, crawl__total=1000), LEDGER)
    assert (dead["done"], dead["gaps"], dead["in_flight"], dead["rate_now"]) == (3, 1, 0, 0)
    assert board.run_state(run(silent_s=60), None)["done"] == 0


def test_times_are_those_of_a_few_samples() -> None:
    """Quantiles in ms of what came in the last samples, clock times, nulls for the unknown."""
    bucket = "latency/bucket/0.1"
    plots = board.series(1000.0, [
        (1.0 * number, {"done": 10 * number, "responses": number, bucket: 10 if number > 1 else 0})
        for number in range(board.SPAN + 4)
    ])  # fmt: skip
    assert plots["at"][:2] == [1000.0, 1001.0]
    assert plots["done"][-1] == 10 * (board.SPAN + 3)
    assert plots["latency_p50"][:3] == [None, None, 75.0]
    assert plots["latency_p50"][-2:] == [None, None]
    assert plots["commit_p95"][-1] is None
    assert plots["windows"] == []
    assert all(column == [] for column in board.series(0.0, []).values())


def test_windows_are_told_apart_by_a_quota_that_rises() -> None:
    """The most that was used in each; unknown in between; never more than the limit."""
    left = [5, 2, 0, None, 6, 1, 4, 4]
    plots = board.series(0.0, [
        (float(at), {"limit": 6, "remaining": remaining}) for at, remaining in enumerate(left)
    ])  # fmt: skip
    assert plots["windows"] == [(0.0, 2.0, 6), (4.0, 5.0, 5), (6.0, 7.0, 2)]


def test_the_tables_view_is_bounded() -> None:
    """The newest days, the commonest types first."""
    days = [(f"2026-{n:03}", n) for n in range(100)]
    table = TableView(
        heap=1, indexes=2, percent=100.0, days=days, types=[("a", 1), ("b", 5)], newest=[]
    )
    view = board.table_view(table)
    assert len(view["days"]) == board.MOST_DAYS
    assert view["days"][-1] == ("2026-099", 99)
    assert view["types"] == [("b", 5), ("a", 1)]


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
