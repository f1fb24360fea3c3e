"""Files and directories that must be this user's own, opened without following links.

An attacker who may write to a directory can plant a symbolic link, a FIFO or a prepared file in
it. Standard library only: `postmaster`, which runs by itself, needs it too.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_MAX_BYTES = 1_000_000


class ForeignError(OSError):
    """Raised for a file that isn't this user's own or isn't regular. The text is a sentence."""


def check_directory(path: Path) -> None:
    """Raises :class:`ForeignError` unless it is this user's directory and no other can write to it.

    A link is checked itself, because its owner decides where it points.
    """
    for status in (path.lstat(), path.stat()):
        if status.st_uid != os.geteuid():
            raise ForeignError(
                f"{path} belongs to another user ({owner(status.st_uid)}), who could put anything "
                "in it: set DATA_DIR to a directory of your own."
            )
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(path))
    if status.st_mode & 0o022:
        raise ForeignError(
            f"Other users can write to {path} (mode {stat.S_IMODE(status.st_mode):o}) and could "
            f"put anything in it: `chmod go-w {path}`, or set DATA_DIR to another directory."
        )


def check_ancestors(path: Path, *, trusted: Collection[Path] = ()) -> None:
    """Raises :class:`ForeignError` for a folder above *path* whose owner or writers could put
    another one in its place.

    Its owner has to be root or this user; others may write where the sticky bit keeps them from
    renaming what isn't theirs, and this user's own group where it has no other member. The owner of
    ``/`` stands for root in a user namespace. Folders in *trusted* aren't checked.
    """
    owners = {0, os.geteuid(), Path("/").stat().st_uid}
    as_named = Path(os.path.abspath(path)).parents  # noqa: PTH100 - resolve() would follow links
    for folder in dict.fromkeys([*path.resolve().parents, *as_named]):
        if folder in trusted:
            continue
        for status in (folder.lstat(), folder.stat()):
            if status.st_uid not in owners:
                raise ForeignError(
                    f"{folder} belongs to another user ({owner(status.st_uid)}), who could put "
                    f"another folder in the place of {path}: set DATA_DIR to a directory that "
                    "nobody else can move."
                )
        writers = status.st_mode & 0o022
        if writers == 0o020 and _is_own_group(status.st_gid):
            writers = 0
        if writers and not status.st_mode & stat.S_ISVTX:
            raise ForeignError(
                f"Other users can write to {folder} (mode {stat.S_IMODE(status.st_mode):o}) and "
                f"could put another folder in the place of {path}: `chmod go-w {folder}`, or set "
                "DATA_DIR to a directory that nobody else can move."
            )


def _is_own_group(gid: int) -> bool:
    """Whether the group is this user's private one, as Debian and Fedora make it."""
    import grp  # noqa: PLC0415 - seldom
    import pwd  # noqa: PLC0415

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    named = (user.pw_gid, user.pw_name) == (gid, group.gr_name)
    return named and set(group.gr_mem) <= {user.pw_name}


def open_file(path: Path, flags: int, *, owners: Collection[int] | None = None) -> int:
    """Open a regular file of *owners* (default: this user) without following a link. 0600 if made.

    Raises :class:`ForeignError` for anything else, FileNotFoundError as `os.open` does.
    """
    try:
        # O_NONBLOCK: a FIFO in its place would block for ever.
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ForeignError(f"{path} is a symbolic link, which isn't followed: remove it.") from None
    status = os.fstat(fd)
    allowed = {os.geteuid()} if owners is None else owners
    if stat.S_ISREG(status.st_mode) and status.st_uid in allowed:
        return fd
    os.close(fd)
    raise ForeignError(f"{path} isn't a file of this user's own: remove it.")


def read_text(path: Path, *, owners: Collection[int] | None = None) -> str:
    """The beginning of such a file, as text."""
    with os.fdopen(open_file(path, os.O_RDONLY, owners=owners), encoding="utf-8") as file:
        return file.read(_MAX_BYTES)


def write_text(path: Path, text: str) -> None:
    """Replaces the file by a new one (0600), atomically."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(open_file(fresh, flags), "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def owner(uid: int) -> str:
    """The user's name, or the number."""
    import pwd  # noqa: PLC0415 - only for a message

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"number {uid}"
