"""What docs/operations.md tells people to do: back up, move to another machine, rotate the key."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import TYPE_CHECKING

from crawling import PROJECT, assert_equals_truth, crawl, environment, pages_fetched
from faults.truth import truths
from mockserver import MockServer

if TYPE_CHECKING:
    from pathlib import Path

    from databases import Database, Server

EVENTS = 10_000
SIZE = ("-s", "BULK_PAGE_SIZE=500")


def backup(database: Database, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(PROJECT / "scripts" / "backup.sh"), *arguments],
        cwd=PROJECT,
        env={**environment(None, database), "DATASYNC_VENV": sys.prefix, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_crawl_moves_to_another_machine_and_goes_on(
    database: Database, server: Server, tmp_path: Path
) -> None:
    """Half a crawl, saved and brought back elsewhere: the rest is fetched, and nothing twice.

    The key is another one by then, after the first was refused in mid-crawl.
    """
    other_name = f"{database.params['dbname']}_moved"
    server.execute(f"CREATE DATABASE {other_name}")
    other = type(database)({**database.params, "dbname": other_name})
    file = tmp_path / "a backup.dump"
    try:
        with MockServer("--events", str(EVENTS), "--key-expires-after", "8") as mock:
            stopped = crawl(mock, database, *SIZE)
            assert stopped.status == 1, stopped.log
            assert "The API rejects the key (HTTP 401)" in stopped.log
            saved = backup(database, "save", str(file))
            assert saved.returncode == 0, saved.stdout + saved.stderr
            assert saved.stdout == (
                f"{file}: {file.stat().st_size} bytes. To bring it back, into an empty database: "
                f"sh scripts/backup.sh restore '{file}'\n"
            )
            assert file.stat().st_mode & 0o777 == 0o600
            restored = backup(other, "restore", str(file))
            assert restored.returncode == 0, restored.stdout + restored.stderr
            assert restored.stdout == f"{file} is restored.\n"
            committed = other.value("SELECT count(*) FROM checkpoint")
            assert committed == database.value("SELECT count(*) FROM checkpoint")

            mock.config(key_expires_after=None)
            before = pages_fetched(mock)
            key_file = tmp_path / "key"
            key_file.write_text(f"{mock.key}\n")
            done = crawl(mock, other, *SIZE, env={"API_KEY": "", "API_KEY_FILE": str(key_file)})
            assert done.status == 0, done.log
            # Besides, the first page and the one behind the end are always looked at.
            assert (
                pages_fetched(mock) - before == 1 + math.ceil((EVENTS - 500) / 499) - committed + 2
            )
            assert_equals_truth(other, truths(1, 0, EVENTS))
    finally:
        server.execute(f"DROP DATABASE {other_name} WITH (FORCE)")


def test_a_name_that_others_take_is_no_sign_of_success(database: Database, tmp_path: Path) -> None:
    """Whoever makes a file anew that the script has removed from /tmp doesn't mend a failure."""
    (tmp_path / "backup.dump").write_text("no backup")
    racer = tmp_path / "bin" / "rm"
    racer.parent.mkdir()
    racer.write_text(
        '#!/bin/sh\n/bin/rm "$@"\nfor name; do\n'
        '    case $name in */tmp.*) [ -e "$name" ] || touch "$name" ;; esac\ndone\n'
    )
    racer.chmod(0o755)
    path = f"{racer.parent}:{environment(None, database)['PATH']}"
    room = tmp_path / "tmp"
    room.mkdir()
    failed = backup(database, "restore", str(tmp_path / "backup.dump"), PATH=path, TMPDIR=str(room))
    assert failed.returncode == 1, failed.stdout + failed.stderr


def test_a_backup_that_fails_says_so_and_leaves_nothing(database: Database, tmp_path: Path) -> None:
    """No database, a file that is there already, a damaged backup: not 0, and no half file."""
    file = tmp_path / "backup.dump"
    gone = type(database)({**database.params, "dbname": "not_there"})
    assert backup(gone, "save", str(file)).returncode != 0
    assert list(tmp_path.iterdir()) == []
    file.write_text("no backup")
    assert backup(database, "save", str(file)).returncode == 2
    assert file.read_text() == "no backup"
    assert backup(database, "restore", str(file)).returncode == 1
    assert backup(database, "burn", str(file)).returncode == 2
