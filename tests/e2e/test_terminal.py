"""What a terminal shows: a crawl in a real pseudo-terminal, read back by a terminal's rules."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

from crawling import PROJECT, crawl, environment
from mockserver import MockServer

if TYPE_CHECKING:
    from databases import Database

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Terminal:
    """A crawl whose standard error is a pseudo-terminal of 100 columns."""

    def __init__(
        self, mock: MockServer, database: Database, *args: str, term: str = "xterm-256color"
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        env = {**environment(mock, database), "TERM": term}
        env.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scrapy", "crawl", "events", *args],
            cwd=PROJECT, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.raw = ""

    def read(self) -> bool:
        """Reads what comes next; False when the crawl has ended."""
        ready, _, _ = select.select([self._master], [], [], 60)
        assert ready, self.raw
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the other side has closed
            return False
        self.raw += data.decode(errors="replace")
        return bool(data)

    def end(self) -> int:
        """Reads the rest; the exit status."""
        while self.read():
            pass
        os.close(self._master)
        return self.process.wait(30)

    @property
    def text(self) -> str:
        """All that was ever drawn, without control sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw).replace("\r", "")

    @property
    def screen(self) -> list[str]:
        """The lines that stand there now: cursor up, column 1 and erase line are carried out."""
        lines, row, column = [""], 0, 0
        for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", self.raw):
            if part == "\n":
                row += 1
                if row == len(lines):
                    lines.append("")
            elif part == "\r":
                column = 0
            elif part == "\x1b[2K":
                lines[row] = ""
            elif part.startswith("\x1b[") and part.endswith("A"):
                row -= int(part[2:-1] or 1)
            elif not part.startswith("\x1b"):
                kept = lines[row][:column].ljust(column)
                lines[row] = kept + part + lines[row][column + len(part) :]
                column += len(part)
        return lines


def test_a_terminal_shows_a_panel_below_the_log_and_a_summary(database: Database) -> None:
    """Bar, counts, budget and pause are drawn; log lines stay whole; at the end a table stands."""
    with MockServer("--events", "3000", "--rate-limit", "4", "--rate-window", "4") as mock:
        terminal = Terminal(mock, database, "-s", "BULK_PAGE_SIZE=250")
        assert terminal.end() == 0
    assert re.search(r"[\d,]+ of 3,000", terminal.text)
    assert re.search(r"0 of 4 left +next window in \d+ s", terminal.text)
    assert "events a page" in terminal.text
    screen = terminal.screen
    logged = [line for line in screen if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[", line)]
    assert any(line.endswith("INFO: Spider opened") for line in logged)
    assert any(line.endswith("INFO: Spider closed (finished)") for line in logged)
    assert any(re.match(r"table: events stored +3,000$", line.rstrip()) for line in screen)
    assert any("complete: proved against the API's total (3,000)" in line for line in screen)
    assert not any("events a page" in line or "━" in line for line in screen), screen
    assert terminal.raw.rindex(SHOW) > terminal.raw.rindex(HIDE)


def test_signals_give_the_terminal_back(database: Database) -> None:
    """Ctrl-C and SIGTERM, also twice: the cursor is shown again and the panel is gone."""
    ways = ([signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT])
    with MockServer("--events", "3000", "--rate-limit", "2", "--rate-window", "600") as mock:
        for told in ways:
            terminal = Terminal(mock, database, "-s", "BULK_PAGE_SIZE=250")
            while "next window" not in terminal.text:
                terminal.read()
            for each in told:
                terminal.process.send_signal(each)
            assert terminal.end() == 1, told
            assert terminal.raw.rindex(SHOW) > terminal.raw.rindex(HIDE)
            assert not any("━" in line for line in terminal.screen)


def test_a_dumb_terminal_and_a_pipe_get_plain_lines(database: Database) -> None:
    """No control sequence is written where none is understood; the facts are the same."""
    with MockServer("--events", "3000", "--rate-limit", "6", "--rate-window", "3") as mock:
        plain = ("-s", "BULK_PAGE_SIZE=250", "-s", "PROGRESS_INTERVAL=0.5")
        terminal = Terminal(mock, database, *plain, term="dumb")
        assert terminal.end() == 0
        assert "\x1b" not in terminal.raw
        assert "of 3,000" in terminal.raw
        piped = crawl(mock, database, *plain)
    assert "\x1b" not in piped.log
    assert piped.line("events stored") == "3,000"
