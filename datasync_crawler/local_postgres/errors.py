"""EmbeddedError, which every part of this room raises."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

USE_OTHER: Final = "or set DATABASE_URL to use a PostgreSQL server of your own"


class EmbeddedError(Exception):
    """Raised when the embedded server can't be used. Its text is a sentence for the user."""


def explain_os_error(error: OSError, data_dir: Path) -> EmbeddedError:
    """The operating system's error as a sentence."""
    where = error.filename or data_dir
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EmbeddedError(
            f"No room left for the embedded PostgreSQL at {where}: make room, or set DATA_DIR to "
            "a directory with more."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return EmbeddedError(
            f"The embedded PostgreSQL can't be kept at {where} ({error.strerror}): set DATA_DIR "
            f"to a directory that this user may write to, {USE_OTHER}."
        )
    return EmbeddedError(
        f"The embedded PostgreSQL failed at {where}: {error.strerror}. Set DATA_DIR to another "
        f"directory, {USE_OTHER}."
    )
