"""The verdict, by evidence alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.crawl.values import PassFigures
from datasync_crawler.crawl.verdict import Evidence, judge

GOOD = Evidence(PassFigures(distinct=100, totals=(100, 100)), served=100, total=100)
COUNTS = replace(GOOD, has_seams=False)


def test_good_evidence_is_a_proof() -> None:
    """Nothing is missing, moved or uncounted."""
    verdict = judge(GOOD)
    assert (verdict.complete, verdict.sentences) == (True, ())
    assert (verdict.served, verdict.total, verdict.stored) == (100, 100, 100)


@pytest.mark.parametrize(
    ("evidence", "sentence", "again", "rerun"),
    [
        (replace(GOOD, missing="offsets 3–5 couldn't be fetched: HTTP 500"),
         "offsets 3–5 couldn't be fetched", False, True),
        (replace(GOOD, figures=replace(GOOD.figures, unbalanced=2)),
         "2 ranges of the ledger don't add up", False, False),
        (replace(GOOD, end=False), "the end of the set wasn't found", True, True),
        (replace(GOOD, head=False), "the front of the set wasn't found", True, True),
        (replace(GOOD, doubts=3), "3 neighbouring pages share no event", True, True),
        (replace(GOOD, total=None, too_small=12), "pages of 12 events are too small", True, True),
        (replace(GOOD, total=120), "the API counts 120 events", False, False),
        (replace(GOOD, figures=replace(GOOD.figures, distinct=90)),
         "10 ids fewer are stored", True, True),
        (replace(COUNTS, figures=replace(GOOD.figures, totals=(99, 100))),
         "a second pass has to bring nothing new", True, True),
        (replace(COUNTS, total=None, figures=replace(GOOD.figures, totals=None)),
         "a second pass has to bring nothing new", True, True),
        (replace(COUNTS, figures=replace(GOOD.figures, distinct=101)),
         "a second pass has to bring nothing new", True, True),
    ],
)  # fmt: skip
def test_each_weakness_has_its_sentence(
    evidence: Evidence, sentence: str, *, again: bool, rerun: bool
) -> None:
    """And says whether another pass, or another run, may do better."""
    verdict = judge(evidence)
    assert (verdict.complete, verdict.again, verdict.rerun) == (False, again, rerun)
    assert sentence in verdict.sentences[0]


@pytest.mark.parametrize("evidence", [GOOD, COUNTS])
def test_a_second_pass_without_anything_new_settles_the_count(evidence: Evidence) -> None:
    """Fewer ids than the total are then the API's own doing, and said."""
    fewer = replace(evidence, figures=replace(evidence.figures, distinct=90), is_second=True)
    verdict = judge(fewer)
    assert verdict.complete
    assert verdict.sentences == ("10 of the API's 100 are ids that it serves more than once.",)
    assert not judge(replace(fewer, figures=replace(fewer.figures, inserted=1))).complete


def test_ids_known_to_be_served_twice_need_no_second_pass() -> None:
    """As many as were found before, and not one more."""
    fewer = replace(GOOD, figures=replace(GOOD.figures, distinct=90), short=10)
    assert judge(fewer).complete
    assert not judge(replace(fewer, short=9)).complete
    counted = replace(fewer, has_seams=False)
    assert judge(counted).complete
    assert not judge(replace(counted, short=11)).complete


def test_rejected_events_are_counted_apart() -> None:
    """Stored and rejected together are the distinct ids."""
    verdict = judge(replace(GOOD, figures=replace(GOOD.figures, rejected_now=7)))
    assert (verdict.complete, verdict.stored, verdict.rejected) == (True, 93, 7)


@given(
    distinct=st.integers(0, 120), total=st.none() | st.integers(0, 120), served=st.integers(0, 120),
    doubts=st.integers(0, 2), end=st.booleans(), head=st.booleans(), seams=st.booleans(),
)  # fmt: skip
def test_nothing_is_complete_beside_a_doubt(
    distinct: int, total: int | None, served: int, doubts: int, *, end: bool, head: bool,
    seams: bool,
) -> None:  # fmt: skip
    """Whatever the counts say."""
    totals = None if total is None else (total, total)
    verdict = judge(
        Evidence(PassFigures(distinct=distinct, totals=totals), served, total, doubts=doubts,
                 end=end, head=head, has_seams=seams)
    )  # fmt: skip
    if verdict.complete:
        assert end
        assert head
        assert not doubts
        assert total is None or total <= min(served, distinct)
        assert seams or total == distinct
