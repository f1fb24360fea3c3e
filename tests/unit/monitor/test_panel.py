"""monitor/panel.py: three lines whose columns never move, on any terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from datasync_crawler.monitor.panel import panel
from datasync_crawler.monitor.progress import Figures, Meter, Traffic, line

EARLY = Figures(None, 0, 0, 0.0, 0.0, None)
LATE = Figures(
    3_000_000, 2_999_999, 123_456, 9e4, 9e4, 2e5, 3,
    Traffic(8, 1200, 7, 60.0, 60.0, "HTTP 503"), ends_at=2e9, retries=1234, page_size=5000,
)  # fmt: skip


def drawn(figures: Figures, width: int, *, plain: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=width, no_color=True)
    console.print(panel(figures, width, plain=plain))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_three_lines_never_move(width: int) -> None:
    """Whatever the figures: three lines that fit, each column at its place."""
    early, late = drawn(EARLY, width), drawn(LATE, width)
    assert len(early) == len(late) == 3
    assert max(map(len, early + late)) <= width
    place = late[0].index("2,999,999")
    assert early[0].index("0 of ?") == place == late[1].index("paused 1 min")
    assert early[2].index("0 retries") == place == late[2].index("1,234 retries")


def test_a_fourth_line_says_what_cant_be_reached() -> None:
    """Below the three, which don't move; the log's line begins with it."""
    wall, stats = 1000.0, {
        "retry/trouble": "can't reach api.example.com: try 2 of 4", "retry/next_at": 1003.0
    }  # fmt: skip
    figures = Meter(0.0).read(1.0, wall, stats)
    words = "can't reach api.example.com: try 2 of 4, next in 3 s"
    assert drawn(figures, 80)[3:] == [words]
    assert line(figures).startswith(f"{words}; events: ")
    later = Meter(0.0).read(1.0, wall + 5, stats)
    assert later.trouble == "can't reach api.example.com: try 2 of 4"
    assert Meter(0.0).read(1.0, wall, {}).trouble == ""


def test_without_utf8_it_is_ascii() -> None:
    """Bars of # and -, nothing that the terminal would have to replace."""
    assert all(line.isascii() for line in drawn(LATE, 80, plain=True))
    assert "99.9 %" in drawn(LATE, 80, plain=True)[0]
