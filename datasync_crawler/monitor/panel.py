"""The live panel of a terminal, by rich; log lines scroll above it.

Imported only when standard error is a terminal: rich takes 0.1 s. Must not choose the facts:
`monitor.progress` does.
"""

import atexit
import io
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from datasync_crawler.monitor import progress

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Largest width, in columns.
WIDEST = 100


class Panel:
    """Three lines at the bottom of *stream*. Every exit of the process restores the cursor."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console = Console(file=stream, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True,
                          redirect_stdout=False, redirect_stderr=False)  # fmt: skip
        self._moved: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    @property
    def is_possible(self) -> bool:
        """Whether the terminal can move its cursor (TERM=dumb can't)."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def start(self) -> None:
        """Shows the panel, and prints log lines above it."""
        atexit.register(self.stop)
        self._live.start()
        above = _Above(self._console)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is self._stream:
                self._moved.append((handler, handler.stream))
                handler.setStream(above)

    def show(self, figures: progress.Figures) -> None:
        """Draws the figures."""
        drawn = panel(figures, self._console.width, plain=not _is_utf8(self._console))
        self._live.update(Padding(drawn, (1, 0, 0, 0)), refresh=True)

    def stop(self) -> None:
        """Removes the panel and restores the terminal. May be called again."""
        atexit.unregister(self.stop)
        for handler, stream in self._moved:
            handler.setStream(stream)
        self._moved.clear()
        self._live.stop()

    def summary(self, rows: Sequence[tuple[str, str]], verdict: Sequence[str]) -> None:
        """Prints the run's summary: *rows* as a table, and the verdict."""
        table = Table.grid(padding=(0, 2))
        for name, value in rows:
            table.add_row(Text(name, style="dim"), Text(value))
        style = "bold green" if verdict[0].startswith("complete") else "bold yellow"
        said = [
            Text(line, style=style if number == 0 else "") for number, line in enumerate(verdict)
        ]
        self._console.print(Padding(Group(table, *said), (1, 0)))


def panel(figures: progress.Figures, width: int, *, plain: bool) -> "RenderableType":
    """Three lines in a grid with fixed columns, and a fourth while the API doesn't answer;
    *plain*: in ASCII.
    """
    width = min(width, WIDEST)
    first = max(width - 63, 12)
    grid = Table.grid(padding=(0, 2, 0, 0))
    for column in (6, first, 22, 29):
        grid.add_column(width=column, no_wrap=True, overflow="crop")
    (_, events), (_, api), (_, run) = progress.facts(figures)
    share, quota = events[0] or "...", api[0] or "no limit known"
    done = figures.done / figures.total if figures.total else 0.0
    bar = _bar(min(done, 1.0), first - 8, "#-" if plain else "━─", "green")
    pips = Text()
    if figures.traffic.limit and figures.traffic.remaining is not None:
        left = figures.traffic.remaining / figures.traffic.limit
        pips = _bar(min(left, 1.0), 5, "#." if plain else "▰▱", "").append(" ")
    style = "bold yellow" if progress.is_trouble(figures.traffic) else ""
    lines = (
        ("events", bar.append(f"{share:>8}", style="bold"), events[1], events[2]),
        ("API", pips.append(quota), Text(api[1], style=style), api[2]),
        ("run", *run),
    )
    for name, *said in lines:
        grid.add_row(Text(name, style="dim"), *said)
    if not figures.trouble:
        return grid
    return Group(grid, Text(figures.trouble, style="bold yellow", no_wrap=True, overflow="crop"))


def _bar(share: float, width: int, signs: str, style: str) -> Text:
    full = int(share * width)
    return Text(signs[0] * full, style=style).append(signs[1] * (width - full), style="dim")


def _is_utf8(console: Console) -> bool:
    return console.encoding.lower().replace("-", "") == "utf8"


class _Above(io.TextIOBase):
    """A stream for log handlers that prints whole lines above the panel, broken between words."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._console.print(Text(line))
        return len(text)
