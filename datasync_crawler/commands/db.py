"""``scrapy db url`` and ``scrapy db serve``: the database for other programs.

Owns how its address is printed, and keeps the embedded server running for `serve`.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from datasync_crawler.commands.base import ConfiguredCommand

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from datasync_crawler.config import Config

#: Signals that end `db serve`.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Command(ConfiguredCommand):
    """Prints or serves; `exitcode` 1 when there is no database, 2 for an invalid setting."""

    usage = "[options] url|serve"
    summary = "Print the database's URL, or keep the embedded one running for other programs"
    description = (
        "url: prints a postgresql:// URL of the configured database (or the demonstration's "
        "when nothing is configured), with its password. The embedded server runs only while "
        "it is used: by a crawl, scrapy psql or scrapy db serve. serve: keeps the embedded "
        "server running until Ctrl-C or SIGTERM."
    )

    def act(self, args: list[str], opts: argparse.Namespace) -> None:
        """Does what the argument names."""
        from datasync_crawler.errors import ConfigError  # noqa: PLC0415

        del opts
        if args not in (["url"], ["serve"]):
            raise ConfigError("scrapy db takes one word, url or serve: scrapy db url")
        config = self.configured()
        if args == ["url"]:
            print(_address(config))
        else:
            self._serve(config)

    def _serve(self, config: Config) -> None:
        from datasync_crawler.errors import ConfigError  # noqa: PLC0415
        from datasync_crawler.store import local  # noqa: PLC0415
        from datasync_crawler.store.targets import EmbeddedTarget  # noqa: PLC0415

        if not isinstance(config.database, EmbeddedTarget):
            raise ConfigError(
                "scrapy db serve is for the embedded database, and a server is configured "
                f"({config.database.describe()}), which runs by itself: scrapy db url prints its "
                "URL."
            )
        # Blocked, not handled: a signal during the server's start is delivered after it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            with local.run(config.database) as server:
                print(postgres_url(server.conninfo(config.database.dbname)))
                print("The embedded PostgreSQL runs until Ctrl-C ends this.", flush=True)
                signal.sigwait(_ENDING)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _address(config: Config) -> str:
    from datasync_crawler.store import local  # noqa: PLC0415
    from datasync_crawler.store.targets import ServerTarget  # noqa: PLC0415

    if isinstance(config.database, ServerTarget):
        return postgres_url(config.database.params)
    with local.run(config.database) as server:  # started, so that its port is known
        return postgres_url(server.conninfo(config.database.dbname))


def postgres_url(params: Mapping[str, str]) -> str:
    """Libpq's keywords as a URL (PostgreSQL documentation, 32.1.1.2)."""
    rest = dict(params)
    user, password = (quote(rest.pop(name, ""), safe="") for name in ("user", "password"))
    host, port, dbname = (rest.pop(name, "") for name in ("host", "port", "dbname"))
    if "," in host or "," in port:  # several servers: a URL has a place for each, keywords don't
        rest |= {"host": host} | ({"port": port} if port else {})
        host = port = ""
    host = f"[{host}]" if ":" in host else quote(host, safe="")
    login = f"{user}:{password}" if password else user
    place = f"{host}:{port}" if port else host
    query = f"?{urlencode(rest, quote_via=quote)}" if rest else ""
    return f"postgresql://{login}{'@' if login else ''}{place}/{quote(dbname, safe='')}{query}"
