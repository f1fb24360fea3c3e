"""The live panel of a terminal, by rich; log lines scroll above it.

Used by `progress` when standard error is a terminal, and imported then alone: rich takes 0.1 s.
Must not decide what is said: `core.progress` does.
"""

import atexit
import io
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from datasync_crawler.monitor import progress

if TYPE_CHECKING:
    from rich.console import RenderableType

#: The panel's widest, in columns.
WIDEST = 100


class Panel:
    """A few lines at the bottom of *stream*. Every way out of the process gives the cursor back."""

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
        """Shows the panel, and leads log lines above it."""
        atexit.register(self.stop)
        self._live.start()
        above = _Above(self._console)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is self._stream:
                self._moved.append((handler, handler.stream))
                handler.setStream(above)

    def show(self, figures: progress.Figures, lasted_s: float) -> None:
        """Draws the figures of now."""
        self._live.update(Padding(panel(figures, lasted_s, self._console.width), (1, 0, 0, 0)),
                          refresh=True)  # fmt: skip

    def stop(self) -> None:
        """Removes the panel and gives the terminal back as it was; again: nothing."""
        atexit.unregister(self.stop)
        for handler, stream in self._moved:
            handler.setStream(stream)
        self._moved.clear()
        self._live.stop()

    def summary(self, rows: Sequence[tuple[str, str]], verdict: Sequence[str]) -> None:
        """The run's end, as a table with the words of the log's lines."""
        table = Table.grid(padding=(0, 2))
        for name, value in rows:
            table.add_row(Text(name), Text(value))
        style = "bold green" if verdict[0].startswith("complete") else "bold yellow"
        said = [
            Text(line, style=style if number == 0 else "") for number, line in enumerate(verdict)
        ]
        self._console.print(Padding(Group(table, *said), (1, 0)))


def panel(figures: progress.Figures, lasted_s: float, width: int) -> "RenderableType":
    """Three or four lines: bar, counts and rates, what the API lets through."""
    width = min(width, WIDEST)
    total = figures.total
    share = progress.share(figures).strip(" ()") or "…"
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        # Without a total nothing is known of its length: an empty bar.
        ProgressBar(
            total or 1,
            figures.done if total else 0,
            width=max(width - 8, 10),
            complete_style="green",
            finished_style="green",
        ),
        Text(share, style="bold"),
    )
    of = "an unknown number of" if total is None else f"{total:,}"
    left = "" if figures.left_s is None else f"   {progress.time_left(figures)}"
    lines: list[RenderableType] = [
        bar,
        Text(f"{figures.done:,} of {of} events{left}   {progress.duration(lasted_s)} so far"),
        Text(f"{figures.rate_now:,.0f} events/s now, {figures.rate_mean:,.0f} on average"),
    ]
    facts = [_fact(fact) for fact in progress.facts(figures)]
    if figures.traffic.paused_for_s:
        lines.append(facts.pop(0))
    return Group(*lines, Text("   ").join(facts))


def _fact(text: str) -> Text:
    if text.startswith("paused"):
        return Text(text, style="bold yellow")
    return Text(text, style="red" if text.endswith(("hole", "holes", "rejected")) else "")


class _Above(io.TextIOBase):
    """A stream for log handlers that prints whole lines above the panel, unwrapped, as they are."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._console.print(Text(line), soft_wrap=True)
        return len(text)
