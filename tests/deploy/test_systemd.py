"""deploy/systemd as it is written: what the units set reaches the crawl."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("unit", ["datasync-crawler.service", "datasync-scrapyd.service"])
def test_a_copy_of_the_example_overrides_nothing_that_the_unit_sets(unit: str) -> None:
    """systemd.exec(5): EnvironmentFile beats Environment=, and .env.example names all settings."""
    text = (PROJECT / "deploy" / "systemd" / unit).read_text(encoding="utf-8")
    example = (PROJECT / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))
    assert "EnvironmentFile=" in text
    assert set(re.findall(r"^Environment=(\w+)=", text, re.MULTILINE)) & named == set()
    assert "ExecStart=/usr/bin/env API_KEY_FILE=%d/api-key " in text
