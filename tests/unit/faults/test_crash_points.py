"""The crash points: what a test asks for is what it gets."""

from __future__ import annotations

import os
import signal

import pytest
from faults.crashes import POINTS, killer


@pytest.mark.parametrize("spec", ["after_commmit:1", "after_commit", "after_commit:x", ""])
def test_a_crash_point_that_is_none_is_refused(spec: str) -> None:
    """A slip in a crash point's name doesn't pass for a crawl without a crash."""
    with pytest.raises(ValueError, match=r"\w+"):
        killer(spec)


@pytest.mark.parametrize("point", POINTS)
def test_the_process_is_killed_at_the_nth_pass(monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """SIGKILL at that pass of that point alone."""
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(number))
    crash = killer(f"{point}:2")
    for number in range(4):
        for here in POINTS:
            crash(here)
        assert killed == ([signal.SIGKILL] if number else [])
