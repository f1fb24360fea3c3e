"""Files and directories that must be this user's own, opened without following links.

An attacker who may write to a directory can plant a symbolic link, a FIFO or a prepared file in
it. Standard library only: `postmaster`, which runs by itself, needs it too.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

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
