"""deploy/systemd and deploy/cron as they are written: what they set, and what they keep out."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

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


def hardening(unit: str) -> dict[str, str]:
    """What a unit takes from its processes, by directive."""
    text = (PROJECT / "deploy" / "systemd" / unit).read_text(encoding="utf-8")
    kinds = "No|Protect|Private|Restrict|Lock|SystemCall|Capability|Ambient|RemoveIPC|UMask"
    kept = re.findall(rf"^((?:{kinds})\w*)=(.*)$", text, re.MULTILINE)
    return {name: value for name, value in kept if name != "RestartPreventExitStatus"}


def test_both_units_are_hardened_alike() -> None:
    """Scrapyd runs the crawl, so it gets no more than that; neither keeps a capability."""
    crawler = hardening("datasync-crawler.service")
    assert crawler == hardening("datasync-scrapyd.service")
    assert crawler["CapabilityBoundingSet"] == ""
    assert crawler["NoNewPrivileges"] == "yes"
    assert len(crawler) > 20


@pytest.mark.parametrize("unit", ["datasync-crawler.service", "datasync-scrapyd.service"])
def test_a_unit_has_a_bound_of_memory(unit: str) -> None:
    """What goes wrong in a crawl doesn't take the machine with it."""
    text = (PROJECT / "deploy" / "systemd" / unit).read_text(encoding="utf-8")
    assert re.search(r"^MemoryMax=\d+G$", text, re.MULTILINE)


def test_a_timer_may_tick_every_five_minutes() -> None:
    """The start limit leaves room for its starts and for tries after a failure; then OnFailure=."""
    text = (PROJECT / "deploy" / "systemd" / "datasync-crawler.service").read_text("utf-8")
    found = re.search(r"StartLimitIntervalSec=(\d+)min\nStartLimitBurst=(\d+)\n", text)
    assert found is not None
    minutes, starts = map(int, found.groups())
    assert starts - minutes // 5 >= 2
    alarm = re.search(r"^OnFailure=(\S+)$", text, re.MULTILINE)
    assert alarm is not None
    assert (PROJECT / "deploy" / "systemd" / alarm[1]).is_file()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
@pytest.mark.parametrize("unit", ["datasync-crawler.service", "datasync-scrapyd.service"])
def test_systemd_knows_every_directive(unit: str) -> None:
    """A directive that is misspelt would be ignored at the start, with a line in the journal."""
    file = PROJECT / "deploy" / "systemd" / unit
    done = subprocess.run(
        ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False
    )
    lines = [
        line for line in done.stderr.splitlines() if "Unknown" in line or "Failed to p" in line
    ]
    assert lines == []


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root may")
def test_nobody_else_can_hold_crons_lock() -> None:
    """The lock is on a file that only its owner can open, so that no one else keeps crawls out."""
    text = (PROJECT / "deploy" / "cron" / "datasync-crawler").read_text(encoding="utf-8")
    found = re.search(r"flock --nonblock --conflict-exit-code 0 (\S+) ", text)
    assert found is not None
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)  # as /opt/datasync-crawler
        (folder / ".env").touch(mode=0o600)
        nobody: dict[str, Any] = {"user": pwd.getpwnam("nobody").pw_uid, "extra_groups": []}
        lock = folder / found[1]
        done = subprocess.run(["flock", "--nonblock", lock, "true"], check=False, **nobody)
        assert done.returncode != 0
        assert lock.is_relative_to(folder)
    finally:
        shutil.rmtree(folder)
