"""The embedded PostgreSQL's directory and the account that it runs as.

Owns the rules for root and for other users' directories. Must not start or stop a server
(:mod:`.embedded` does), change the mode of a directory that it didn't make, or use a directory that
another user owns or may write to.

An ordinary user runs the server from the package's own files, with everything in ``DATA_DIR``.
PostgreSQL refuses to run as root, and an account that root switches to may not be able to enter
the project's directory (``/root`` is closed), so for root the cluster and a copy of the binaries
are in ``/var/lib/datasync-crawler``, and ``DATA_DIR/postgres/location`` holds the path.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from datasync_crawler.local_postgres import private
from datasync_crawler.local_postgres.binaries import Binaries, copy_for_everybody, find_binaries
from datasync_crawler.local_postgres.errors import USE_OTHER, EmbeddedError, explain_os_error

STATE_DIR = Path("/var/lib/datasync-crawler")
SYSTEM_USER: Final = "datasync"
_SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Account:
    """The account that the server runs as when this process is root."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Home:
    """The directory that holds the cluster (``data``), its password, port, log and lock files.

    ``account`` is None when the server runs as the user of this process. ``server`` is the
    binaries as that account can run them, ``client_bin`` the package's own psql.
    """

    path: Path
    account: Account | None
    server: Binaries
    client_bin: Path

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.path / "data"

    @property
    def owners(self) -> set[int]:
        """Users who may own the files in ``data``."""
        return {os.geteuid()} if self.account is None else {self.account.uid}

    def open(self, name: str, flags: int = os.O_RDWR | os.O_CREAT) -> int:
        """Open a file of ours, by default for reading and writing, 0600, made if missing."""
        return private.open_file(self.path / name, flags)

    def switch(self) -> dict[str, Any]:
        """Arguments of ``subprocess`` that run a child as the server's account."""
        if self.account is None:
            return {}
        return {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}


def find_home(data_dir: Path) -> Home:
    """Find or make the home for this ``DATA_DIR``.

    Raises :class:`EmbeddedError` when the binaries are missing, or a directory can't be made, isn't
    this user's own, or can be written by others.
    """
    data_dir = Path(os.path.abspath(data_dir))  # noqa: PTH100 - resolve() would follow links
    binaries = find_binaries()
    try:
        local = data_dir / "postgres"
        for folder in (data_dir, local):
            _make_dir(folder, 0o700)
        # Whoever can replace the folder of this code needs no database for it.
        private.check_ancestors(local, trusted=Path(__file__).resolve().parents)
        if os.geteuid() == 0:
            _make_dir(STATE_DIR, 0o755)
            copy = copy_for_everybody(binaries, STATE_DIR)
            path = _root_home(local / "location")
            return Home(path, _account(path), copy, binaries.bin)
        if (local / "location").exists():
            raise EmbeddedError(
                f"The database of {data_dir} was made by root: run as root, or set DATA_DIR to a "
                "directory of your own."
            )
        return Home(local, None, binaries, binaries.bin)
    except private.ForeignError as error:
        raise EmbeddedError(str(error)) from error
    except OSError as error:
        raise explain_os_error(error, data_dir) from error


def _make_dir(path: Path, mode: int) -> None:
    """Makes the directory with this mode whatever the umask, or checks the existing one."""
    try:
        path.mkdir(mode=mode, parents=True)
    except FileExistsError:
        private.check_directory(path)
    else:
        path.chmod(mode)


def _root_home(location: Path) -> Path:
    """Root's home for a ``DATA_DIR``: the one in its ``location`` file, or a new one.

    The name is random, not derived from the path: a project that is moved keeps its rows, and one
    whose ``DATA_DIR`` was deleted begins anew.
    """
    try:
        home = Path(private.read_text(location).strip())
    except FileNotFoundError:
        home = STATE_DIR / secrets.token_hex(8)
        home.mkdir()
        home.chmod(0o711)  # the server's account may pass through, only root may list it
        draft = location.with_name(f".location-{home.name}")
        private.write_text(draft, f"{home}\n")
        try:
            location.hardlink_to(draft)
        except FileExistsError:
            home.rmdir()  # another process was first
            home = Path(private.read_text(location).strip())
        finally:
            draft.unlink()
    if home.parent != STATE_DIR:
        raise EmbeddedError(
            f"{location} names {home}, which isn't below {STATE_DIR}: delete that file to begin "
            "with an empty database."
        )
    if not home.is_dir():
        raise EmbeddedError(
            f"The database that {location} names is gone ({home}): bring it back, or delete that "
            "file to begin with an empty one."
        )
    private.check_directory(home)
    return home


def _account(home: Path) -> Account:
    """The account for the server under root: the cluster's owner, or for a new one a system user.

    A user of its own is best, because no other service's processes can read the files. Where none
    can be made (no useradd, read-only /etc), an existing unprivileged one is taken. It needs a
    name: initdb looks its user up.
    """
    with suppress(FileNotFoundError):
        owner = (home / "data").lstat()
        return Account(owner.st_uid, owner.st_gid)
    if not _user_exists(SYSTEM_USER) and (useradd := shutil.which("useradd", path=_SBIN)):
        subprocess.run(  # noqa: S603 - fixed arguments; a failure shows in the next line
            [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", str(STATE_DIR),
             "--shell", "/usr/sbin/nologin", SYSTEM_USER],
            check=False, capture_output=True, cwd="/",
        )  # fmt: skip
    for name in (SYSTEM_USER, "postgres", "nobody"):
        if _user_exists(name):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "PostgreSQL refuses to run as root, and there is no other user to run it as: "
        f"`useradd --system {SYSTEM_USER}`, {USE_OTHER}."
    )


def _user_exists(name: str) -> bool:
    try:
        return pwd.getpwnam(name).pw_uid != 0
    except KeyError:
        return False
