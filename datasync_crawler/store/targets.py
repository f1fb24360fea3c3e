"""The database to connect to, as values. Must not connect to anything."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datasync_crawler.errors import ConfigError

#: libpq keywords that a DATABASE_URL may carry and that we show in messages.
_SHOWN = ("host", "hostaddr", "port", "dbname", "user", "service")


@dataclass(frozen=True, slots=True)
class EmbeddedTarget:
    """The embedded PostgreSQL server, below *data_dir*."""

    data_dir: Path
    port: int | None
    dbname: str

    def describe(self) -> str:
        """The target in words, for messages."""
        return f"embedded PostgreSQL, database {self.dbname}"

    @property
    def place(self) -> str:
        """The same as an address."""
        return f"embedded PostgreSQL {self.data_dir}/{self.dbname}"


@dataclass(frozen=True, slots=True)
class ServerTarget:
    """A server given by DATABASE_URL or DB_HOST.

    *params* are libpq keywords with the password, so they are never shown.
    """

    params: Mapping[str, str] = field(repr=False)

    def describe(self) -> str:
        """The target in words without any secret, for messages."""
        return " ".join(f"{name}={self.params[name]}" for name in _SHOWN if name in self.params)

    @property
    def place(self) -> str:
        """The same as an address."""
        host = self.params.get("host") or self.params.get("hostaddr") or "localhost"
        port = f":{self.params['port']}" if "port" in self.params else ""
        return f"PostgreSQL {host}{port}/{self.params.get('dbname', '')}"


Target = EmbeddedTarget | ServerTarget


def from_url(url: str) -> ServerTarget:
    """Reads a DATABASE_URL: a postgresql:// URL or libpq's "key=value" form.

    Raises ConfigError without libpq's own message, which can hold the password.
    """
    import psycopg2  # noqa: PLC0415  # takes 30 ms, which most commands can do without
    from psycopg2.extensions import parse_dsn  # noqa: PLC0415

    if alchemy := re.match(r"(postgres(?:ql)?)(\+\w+)://", url):
        raise ConfigError(
            f"DATABASE_URL begins with {alchemy[0]}, as SQLAlchemy writes it: drop {alchemy[2]}, "
            f"so that it begins with {alchemy[1]}://, and leave the rest as it is."
        )
    try:
        params = {name: str(value) for name, value in parse_dsn(url).items()}
    except (psycopg2.Error, UnicodeError):
        params = {}
    if not params or _is_misread(url, params):
        raise ConfigError(
            "DATABASE_URL can't be read. Set it to "
            "postgresql://user:password@host:5432/database (special characters in the password "
            "percent-encoded), or use DB_HOST, DB_NAME, DB_USER and DB_PASSWORD instead."
        ) from None
    return ServerTarget(params)


def _is_misread(url: str, params: Mapping[str, str]) -> bool:
    """Whether libpq has read a part of the password as port, database or host, which are shown.

    That happens when a "/" or "@" in the password isn't percent-encoded.
    """
    scheme, _, rest = url.partition("://")
    if scheme in {"postgresql", "postgres"}:
        authority = re.split("[/?]", rest, maxsplit=1)[0]
        if rest.count("@") > authority.count("@") or authority.count("@") > 1:
            return True
    return re.fullmatch("[0-9,]*", params.get("port", "")) is None
