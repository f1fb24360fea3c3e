"""The throughput benchmark runs to its end, on a small size. What it measures is no test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

PROJECT = Path(__file__).resolve().parents[2]


def test_every_load_of_the_benchmark_stores_all_events(tmp_path: Path) -> None:
    """One round of all loads and page sizes counts its rows, prints a row a load and a plot."""
    plot = tmp_path / "plot.svg"
    command = [
        sys.executable, PROJECT / "benchmarks" / "throughput.py", "--events", "10000",
        "--rounds", "1", "--plot", plot, "--folder", tmp_path / "bench",
    ]  # fmt: skip
    ended = subprocess.run(
        command, cwd=PROJECT, capture_output=True, check=False, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    rows = re.findall(r"^\| (.+?) \| [\d,]+ \|", ended.stdout, re.MULTILINE)
    assert len(rows) == 12
    assert sum(row.startswith("crawl") for row in rows) == 4
    assert "First rows committed after the command: " in ended.stdout
    assert all(f"- {step}: " in ended.stdout for step in ("decode", "encode", "PostgreSQL"))
    assert len(ET.parse(plot).findall(".//{*}rect")) == len(rows)
