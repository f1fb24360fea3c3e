"""A set that grows, gains and loses events: its pages are those of a plain list."""

from __future__ import annotations

from faults.sequence import RunSequence, indices
from faults.truth import event_json
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.mockapi.source import GeneratedEvents, PageStore

ORDERS = st.sampled_from(["oldest-first", "newest-first"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["grow", "insert", "delete", "resize"]),
        st.integers(0, 40),
        st.integers(0, 9),
    ),
    max_size=12,
)


def served(sequence: RunSequence, offset: int = 0, limit: int = 10**6) -> list[int]:
    return [index for span in sequence.spans(offset, limit) for index in indices(span)]


@given(order=ORDERS, steps=STEPS, offset=st.integers(0, 60), limit=st.integers(0, 60))
def test_sequence_is_a_list(
    order: str, steps: list[tuple[str, int, int]], offset: int, limit: int
) -> None:
    """Whatever happens to the set, its pages are those of a plain list with the same fate."""
    sequence, model = RunSequence(30, order), list(range(30))
    if order == "newest-first":
        model.reverse()
    ends = {"oldest-first": len, "newest-first": lambda _: 0}[order]
    for step, place, count in steps:
        whole = served(sequence)
        if step == "grow":
            sequence.grow(count)
            new = [one for one in served(sequence) if one not in whole]
            assert len(new) == count
            model[ends(model) : ends(model)] = new
        elif step == "insert":
            at = min(place, len(model))
            sequence.insert(at, count)
            model[at:at] = served(sequence, at, count)
        elif step == "delete":
            sequence.delete(place, count)
            del model[place : place + count]
        else:
            sequence.resize(min(place, len(model)))
            cut = len(model) - min(place, len(model))
            model = model[cut:] if order == "newest-first" else model[: len(model) - cut]
    assert served(sequence) == model
    assert len(set(model)) == len(model) == sequence.total
    assert served(sequence, offset, limit) == model[offset : offset + limit]


@given(order=ORDERS, offset=st.integers(0, 6100), limit=st.integers(0, 4000))
def test_a_page_over_several_runs_is_its_events_one_by_one(
    order: str, offset: int, limit: int
) -> None:
    """A slice that goes over inserted events holds the same bytes as its events rendered alone."""
    sequence = RunSequence(6000, order)
    sequence.insert(2500, 7)
    expected = [event_json(1, index) for index in served(sequence, offset, limit)]
    pieces = PageStore(GeneratedEvents(1), 1_000_000).pieces(sequence.spans(offset, limit))
    assert b"".join(pieces) == b",".join(expected)
