"""The choice of psql, pg_dump and pg_restore: the system's or the embedded server's.

The embedded server's are built without TLS, so they aren't used for another machine. Must not
connect to anything.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from datasync_crawler.config import is_this_machine
from datasync_crawler.errors import ConfigError
from datasync_crawler.local_postgres.binaries import find_binaries
from datasync_crawler.local_postgres.errors import EmbeddedError
from datasync_crawler.store.targets import EmbeddedTarget, Target

#: Values of sslmode that allow a connection without TLS.
_TLS_NOT_NEEDED: Final = {"", "disable", "allow", "prefer"}


def directories(target: Target) -> list[Path]:
    """Directories with programs for this database, the preferred one first. Raises CrawlError.

    For a server the system's; for one on this machine without TLS also the embedded server's.
    """
    if isinstance(target, EmbeddedTarget):
        return [find_binaries().bin]
    found = []
    system = shutil.which("psql")
    asked = target.params.get("require_auth", os.environ.get("PGREQUIREAUTH"))
    # libpq knows require_auth since 16. An older one fails at the keyword and ignores the variable.
    if system is not None and (not asked or _version(Path(system)) >= (16,)):
        found.append(Path(system).parent)
    if not _needs_tls(target.params):
        with suppress(EmbeddedError):  # not installed in an image
            found.append(find_binaries().bin)
    if not found:
        raise ConfigError(
            "There is no psql on this machine that can reach a server by TLS"
            f"{', and knows require_auth' if asked else ''} (the embedded PostgreSQL's can't): "
            f"install the system's{', 16 or newer' if asked else ''} (Debian, Ubuntu: apt install "
            "postgresql-client), then run this again."
        )
    return found


def _needs_tls(params: Mapping[str, str]) -> bool:
    """Whether TLS is required, or the settings may name another machine."""
    sslmode = params.get("sslmode", os.environ.get("PGSSLMODE", ""))
    if sslmode not in _TLS_NOT_NEEDED or "service" in params or "PGSERVICE" in os.environ:
        return True
    named = [params.get("hostaddr", os.environ.get("PGHOSTADDR", "")),
             params.get("host", os.environ.get("PGHOST", ""))]  # fmt: skip
    hosts = next(filter(None, named), "").split(",")  # libpq connects to hostaddr if it is there
    return not all(host.startswith(("/", "@")) or not host or is_this_machine(host)
                   for host in hosts)  # fmt: skip


def newest(candidates: list[Path]) -> Path:
    """The newest programs: pg_dump saves servers of its own version and older ones."""
    return max(candidates, key=lambda folder: _version(folder / "pg_dump"))


def _version(program: Path) -> tuple[int, ...]:
    if not program.exists():
        return ()
    output = subprocess.run(  # noqa: S603 - a program of the system's or the package's
        [str(program), "--version"], check=True, capture_output=True, text=True
    ).stdout
    return tuple(map(int, re.findall(r"\d+", output)[:2]))
