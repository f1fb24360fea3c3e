"""monitor/summary.py: what is said at a run's end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datasync_crawler.monitor.summary import Outcome, outcome, summary

COMPLETE = Outcome(
    reason="finished",
    complete=True,
    total=1000,
    stored=990,
    received=1000,
    inserted=980,
    duplicates=0,
    changed=0,
    reread=0,
    rejected_now=0,
    rejected=0,
    seconds=4.0,
    missing=None,
    asides=(),
    rerun=True,
    total_found=False,
    sentence=None,
)


def test_a_proved_run_says_complete_last() -> None:
    """With its counts, and the total that it was proved against."""
    assert summary(COMPLETE) == [
        "table: events stored   990",
        "table: rejected        0",
        "run: new               980",
        "run: already stored    0",
        "run: re-read to check  0",
        "run: rejected          0",
        "run: seconds           4.0",
        "run: new events/s      245",
        "complete: proved against the API's total (1,000)",
    ]


def test_where_the_api_says_no_total_it_isnt_claimed() -> None:
    """The end of the pages is the proof then, and is called that."""
    said = summary(replace(COMPLETE, total_found=True))[-1]
    assert said == "complete: read to its end, as the API sends no reliable total (1,000)"


def test_what_is_to_be_known_beside_it_is_said() -> None:
    """Duplicates with other content, where rejections are to be found, ids served twice."""
    said = summary(
        replace(
            COMPLETE,
            duplicates=5,
            changed=2,
            rejected=9,
            rejected_now=5,
            asides=("40 are ids that it serves more than once.",),
        )
    )
    assert "run: already stored    5" in said
    assert (
        "run: edited            2 (other content than stored; ON_DUPLICATE=update overwrites it)"
    ) in said
    assert "table: rejected        5 (table rejected_events: reason and raw bytes)" in said
    assert "run: rejected          9" in said
    assert said[-2].startswith("complete, with 5 rejected: proved")
    assert said[-1] == "40 are ids that it serves more than once."


def test_rejections_of_a_run_that_wasnt_proved_are_its_own() -> None:
    """Without the ledger's sum, the run's own count is said."""
    said = summary(replace(COMPLETE, complete=False, stored=None, rejected=9, rejected_now=None))
    assert "run: rejected          9" in said
    assert not any(text.startswith("table: ") for text in said)


def test_a_set_that_became_smaller_is_explained() -> None:
    """More is stored than the API serves now: said behind the verdict."""
    smaller = replace(COMPLETE, total=50_000, stored=300_000, inserted=0)
    assert summary(smaller)[-2:] == [
        "complete: proved against the API's total (50,000)",
        (
            "The table holds 250,000 events more than the API serves now: those that it served "
            "before are kept."
        ),
    ]
    assert "run: new events/s      0" in summary(smaller)


def test_a_run_without_time_has_no_rate() -> None:
    """Nothing is divided by zero."""
    assert "run: new events/s      0" in summary(replace(COMPLETE, seconds=0.0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": "shutdown", "complete": True}, "stopped by a signal; everything fetched is"),
        ({"reason": "shutdown"}, "stopped by a signal; everything fetched is committed. Run the"),
        (
            {"reason": "incomplete", "missing": "offsets 3–5 couldn't be fetched"},
            "offsets 3–5 couldn't be fetched. Run the",
        ),
        (
            {"reason": "incomplete", "missing": "set TOTAL_KEY=none", "rerun": False},
            "set TOTAL_KEY=none.",
        ),
        ({"reason": "unauthorized", "sentence": "Set API_KEY."}, "Set API_KEY."),
        ({"reason": "memusage_exceeded"}, "ended with memusage_exceeded. Run the same command"),
        ({"reason": "finished"}, "it ended without the proof. Run the same command again"),
    ],
)
def test_any_other_end_is_not_complete(changes: dict[str, object], words: str) -> None:
    """Only a finished and proved run is complete; the last line says why not and what to do."""
    ended = replace(COMPLETE, **{"complete": False, **changes})  # type: ignore[arg-type]
    said = summary(ended)
    assert said[-1].startswith(f"NOT complete: {words}")
    assert not any(text.startswith("complete") for text in said)


def test_a_run_that_fetched_nothing_says_only_why() -> None:
    """A wrong password has no counts: five zeros would hide the sentence."""
    ended = replace(
        COMPLETE, complete=False, reason="database_refused", stored=None, received=0, inserted=0,
        sentence="No.",
    )  # fmt: skip
    assert summary(ended) == ["NOT complete: No."]


def test_an_outcome_is_read_from_the_stats() -> None:
    """Each count from its stat; the first page read again isn't counted as duplicates."""
    stats = {
        "crawl/complete": True, "crawl/total": 1000, "crawl/stored": 990, "events/received": 1000,
        "events/inserted": 980, "events/duplicates": 20, "events/reread": 20,
        "crawl/rejected_now": 0,
    }  # fmt: skip
    assert outcome("finished", 4.0, stats) == replace(COMPLETE, reread=20)
    nothing = outcome("shutdown", 0.0, {})
    assert (nothing.complete, nothing.total, nothing.received) == (False, None, 0)
