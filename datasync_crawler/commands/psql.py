"""``scrapy psql``: the configured database in PostgreSQL's own terminal.

Starts the embedded server if it isn't running. Owns how psql gets the connection: passwords in the
environment, never on the command line, which every user of the machine can read.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from datasync_crawler.commands.base import ConfiguredCommand

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from datasync_crawler.config import Config

#: The variable that scripts/backup.sh reads.
PROGRAMS = "DATASYNC_PROGRAMS"
#: libpq keywords that hold a secret. sslpassword has no variable: psql prompts for it.
_SECRETS = ("password", "sslpassword")
#: Keywords whose variable isn't PG and the keyword (PostgreSQL documentation, 32.15).
_VARIABLES = {
    "dbname": "PGDATABASE",
    "application_name": "PGAPPNAME",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}


class Command(ConfiguredCommand):
    """Becomes psql; `exitcode` is psql's, or 1 (no database), 2 (invalid setting)."""

    usage = "[options] [psql's options] [-- psql's options that Scrapy has too]"
    summary = "Open the configured (or the demonstration's) database in psql"
    description = (
        "Opens the configured database in psql, or the demonstration's when nothing is "
        "configured. The embedded server is started if it isn't running, and stopped after its "
        "last user has ended. Example: scrapy psql -c 'select count(*) from events'"
    )

    def act(self, args: list[str], opts: argparse.Namespace) -> None:
        """Replaces this process by psql."""
        del opts
        if args and args[0] == "--":
            args = args[1:]
        from datasync_crawler.store import programs  # noqa: PLC0415

        config = self.configured()
        psql, params = _connection(config)
        command, environment = psql_call(psql, params, config.schema)
        # Where pg_dump and pg_restore for this database are, for scripts that psql starts.
        environment[PROGRAMS] = str(programs.newest(programs.directories(config.database)))
        sys.stdout.flush()
        os.execve(psql, [*command, *args], environment)  # noqa: S606 - psql itself, no shell


def _connection(config: Config) -> tuple[str, Mapping[str, str]]:
    """Psql's path and libpq's keywords."""
    from datasync_crawler.store import local, programs  # noqa: PLC0415
    from datasync_crawler.store.targets import ServerTarget  # noqa: PLC0415

    target = config.database
    if isinstance(target, ServerTarget):
        return str(programs.directories(target)[0] / "psql"), target.params
    server = local.run(target)
    server.keep_for_exec()  # psql keeps the server running until it ends
    return str(server.bin_dir / "psql"), server.conninfo(target.dbname)


def psql_call(
    psql: str, params: Mapping[str, str], schema: str
) -> tuple[list[str], dict[str, str]]:
    """The command line, without secrets, and the environment, with all of *params*.

    Programs that psql starts in scripts/backup.sh read only the environment.
    """
    shown = {name: value for name, value in params.items() if name not in _SECRETS}
    if schema != "public":
        # In the server's options a space ends a word, and a backslash escapes one.
        path = 'search_path="{}"'.format(schema.replace('"', '""'))
        path = path.replace("\\", "\\\\").replace(" ", "\\ ")
        shown["options"] = f"{shown.get('options', '')} -c {path}".strip()
    environment = dict(os.environ)
    environment |= {
        _VARIABLES.get(name, f"PG{name.upper().replace('_', '')}"): value
        for name, value in params.items()
        if name != "sslpassword"
    }
    return [psql, "--dbname", _conninfo(shown)], environment


def _conninfo(params: Mapping[str, str]) -> str:
    """Libpq's ``keyword='value'`` form (PostgreSQL documentation, 32.1.1.1)."""
    quoted = {
        name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in params.items()
    }
    return " ".join(f"{name}='{value}'" for name, value in quoted.items())
