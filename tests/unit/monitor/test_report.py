"""The proof's verdict and the reports: what is wrong is said, and nothing else."""

import json
from dataclasses import replace

import msgspec
import pytest

from datasync_crawler.crawl.values import Range
from datasync_crawler.monitor import report
from datasync_crawler.store.reader import RunLine
from datasync_crawler.store.verify import LedgerFigures, ProofLine

GOOD = LedgerFigures(
    source="https://api.example.com/api/v1", total=1000, total_said_by="as the API says now",
    covered=1000, frontier=1000, gaps=0, first_gaps=(), ranges=10, received=1000, inserted=990,
    duplicates=6, changed=2, rejected=4, unbalanced=0, rows=990, distinct=990, rejected_now=4,
    rejections_astray=0, pass_no=1, running=False, seams={"exact": 8, "deep": 1},
    proof=ProofLine(1, "first", "last", 1000, 1000, 6, "seams", "2026-02-03 04:05:06 UTC"),
)  # fmt: skip
RUN = RunLine(
    id=7, host="h", pid=1, started_at=1770091506.9, finished_at=1770091597.0, lasted_s=90.0,
    silent_s=0.5, finish_reason="finished", complete=True, inserted=9, rejected=0, received=1000,
)  # fmt: skip


def test_good_figures_are_complete():
    """Everything agrees: the verdict, and what is to be known beside it."""
    lines = report.proof_lines(GOOD)
    assert report.problems(GOOD) == []
    assert any(line.startswith("COMPLETE") for line in lines)
    assert lines[-2].startswith("4 events couldn't be stored")
    assert lines[-1] == "6 of the 1,000 were ids that the API served before."
    assert "(100.0 %), without a gap" in lines[2]


def test_nothing_is_said_of_what_isnt_there():
    """No rejection, no id twice, no change, an empty set: no line about them."""
    none = replace(
        GOOD, total=0, covered=0, ranges=1, received=0, inserted=0, duplicates=0, changed=0,
        rejected=0, rows=0, distinct=0, rejected_now=0,
    )  # fmt: skip
    lines = report.proof_lines(none)
    assert lines[-1].startswith("COMPLETE")
    assert "other content" not in "".join(lines)
    assert "%" not in "".join(lines)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"total": None}, "isn't known"),
        ({"covered": 900, "gaps": 1, "first_gaps": (Range(0, 100),)}, "(1 gap: 0–99)"),
        ({"unbalanced": 2}, "2 ranges of the ledger don't add up"),
        ({"received": 1001}, "don't add up"),
        ({"distinct": 989, "rows": 989}, "1 stored events are gone"),
        ({"distinct": 991, "rows": 991}, "1 events that no crawl has inserted"),
        ({"rows": 991}, "1 rows repeat an id"),
        ({"rejections_astray": 3}, "Rejections of 3 ranges"),
        ({"seams": {"exact": 7, "doubt": 2}}, "2 seams between neighbouring ranges"),
        ({"proof": None}, "No run has proved this pass yet"),
        ({"pass_no": 2}, "No run has proved this pass yet"),
    ],
)
def test_each_thing_that_is_wrong_is_said(change, said):
    """One sentence each, never COMPLETE, in lines and JSON alike."""
    figures = replace(GOOD, **change)
    (sentence,) = report.problems(figures)
    assert said in sentence
    lines = report.proof_lines(figures)
    assert f"- {sentence}" in lines
    assert not any(line.startswith("COMPLETE") for line in lines)
    values = json.loads(json.dumps(report.proof_values(figures)))
    assert (values["complete"], values["problems"]) == (False, [sentence])


def test_many_gaps_are_named_in_part_and_never_100_percent():
    """Five of them, then dots; one event short of a million is 99.9 %."""
    figures = replace(
        GOOD, total=1_000_000, covered=999_999, gaps=6, running=True,
        first_gaps=tuple(Range(10 * n, 1) for n in range(5)),
    )  # fmt: skip
    text = "\n".join(report.proof_lines(figures))
    assert "40–40, …" in text
    assert "(99.9 %), 6 gaps" in text
    assert "A crawl is running" in text


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({}, "complete"),
        ({"complete": False}, "not complete (finished)"),
        ({"finish_reason": "shutdown"}, "not complete (shutdown)"),
        ({"finished_at": None, "finish_reason": None, "silent_s": 2.0}, "running"),
        ({"finished_at": None, "finish_reason": None, "silent_s": 60.0}, "crashed"),
        ({"finish_reason": "too_many_rejected"}, "complete, with too many rejected"),
    ],
)
def test_how_a_run_ended(change, outcome):
    """A run without an end runs as long as its heart beats."""
    run = msgspec.structs.replace(RUN, **change)
    assert report.run_outcome(run) == outcome
    assert outcome in report.status_lines(GOOD, [], [run])[-1]
    assert report.status_values(GOOD, [], [run])["runs"][0]["outcome"] == outcome


def test_the_status_says_everything_asked_of_it():
    """Total, done, gaps, frontier, rejections by reason, rate, runs; and what isn't there."""
    stored = msgspec.structs.replace(
        RUN, inserted=990
    )  # of a run that stores nothing the rate is 0
    assert "last run      0 new events/s" in report.status_lines(
        GOOD, [], [msgspec.structs.replace(RUN, inserted=0)]
    )
    text = "\n".join(report.status_lines(GOOD, [("no id", 3), ("NUL", 1)], [stored]))
    for said in ("1,000 (as the API says", "gaps          none", "frontier      1,000", "3 × no id",
                 "11 new events/s", "04:05:06 UTC, 1 min 30 s, 990 new, complete"):  # fmt: skip
        assert said in text
    holey = replace(GOOD, total=None, gaps=1, first_gaps=(Range(5, 5),))
    text = "\n".join(report.status_lines(holey, [], []))
    assert "unknown" in text
    assert "1 gap: 5–9" in text
    assert "none yet" in text
    values = report.status_values(GOOD, [("no id", 3)], [])
    assert values["rejections"] == [{"reason": "no id", "events": 3}]


@pytest.mark.parametrize(
    ("method", "said"), [("cursor", "none: read by cursor"), ("counts", "none: counted")]
)
def test_a_proof_without_seams_says_what_took_their_place(method: str, said: str) -> None:
    """By cursor the API's own chain, by numbered pages the count."""
    assert GOOD.proof is not None
    figures = replace(GOOD, seams={}, proof=replace(GOOD.proof, method=method))
    assert f"seams             {said}" in report.proof_lines(figures)
