"""The crawler's settings as typed, checked values.

Owns which values are valid, and the sentence for an invalid one. Reads only Scrapy's settings
(`settings.py` has read the environment and ``.env``). Must not open a file other than API_KEY_FILE,
or connect to anything.
"""

import hashlib
import os
import re
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from datasync_crawler.api.secrets import without
from datasync_crawler.errors import ConfigError
from datasync_crawler.events.decoding import PageFormat
from datasync_crawler.events.scan import printable
from datasync_crawler.ratelimit.limits import Limit
from datasync_crawler.store.targets import EmbeddedTarget, ServerTarget, Target, from_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from scrapy.settings import BaseSettings

#: Seconds that components read themselves, as Scrapy's do; checked here with the rest.
INTERVALS: Final = (
    "HEARTBEAT_INTERVAL",
    "PROGRESS_INTERVAL",
    "RETRY_BACKOFF_BASE",
    "RETRY_BACKOFF_CAP",
)
_DB_PARTS: Final = ("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD")
#: Headers that the client sets itself.
_HEADERS_IN_USE: Final = {"host", "connection", "content-length", "transfer-encoding", "accept"}
#: Fields of an event with a column of their own, beside id and timestamp.
_OTHER_FIELDS: Final = ("sessionId", "userId", "type", "name", "properties", "session")


class _Reader:
    """Reads single settings; each method raises ConfigError for an invalid value.

    With *require_api* false (commands that only look at the database) API_BASE_URL and API_KEY may
    be missing.
    """

    def __init__(self, settings: "BaseSettings", *, require_api: bool) -> None:
        self._settings = settings
        self._require_api = require_api

    def text(self, name: str) -> str:
        value = self._settings.get(name)
        return "" if value is None else str(value).strip()

    def _level(self, name: str) -> int:
        return self._settings.getpriority(name) or 0 if self.text(name) else -1

    def _wrong(self, name: str, wanted: str) -> ConfigError:
        return ConfigError(f"{name} is {self.text(name)!r}: set it to {wanted}.")

    def whole(self, name: str, least: int, most: int) -> int:
        text = self.text(name)
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise self._wrong(name, f"a whole number between {least} and {most}")
        return int(text)

    def seconds(self, name: str, *, above_0: bool = False) -> float:
        text = self.text(name)
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or (above_0 and not float(text)):
            least = "more than 0" if above_0 else "0 or more"
            raise self._wrong(name, f"a number of seconds, {least}")
        return float(text)

    def no_delay(self) -> None:
        if self.text("DOWNLOAD_DELAY") and self.seconds("DOWNLOAD_DELAY"):
            raise ConfigError(
                "DOWNLOAD_DELAY is set, and requests are paced by the API's rate limit instead. "
                "Leave it out; to ask for less, set RATE_LIMIT, such as 30/60s, or WORKERS=1."
            )

    def limits(self, name: str) -> tuple[Limit, ...]:
        text = self.text(name)
        try:
            return tuple(Limit.parse(part) for part in text.split(",")) if text else ()
        except ValueError:
            raise self._wrong(
                name,
                "requests per time, such as 10/60s, 5/s or 1000/h (s, m, h or d); several with "
                "commas",
            ) from None

    def share(self, name: str, wanted: str, *, above_0: bool = False) -> float:
        text = self.text(name)
        is_number = re.fullmatch(r"[01](\.[0-9]{1,9})?|\.[0-9]{1,9}", text)
        if not is_number or float(text) > 1 or (above_0 and not float(text)):
            raise self._wrong(name, wanted)
        return float(text)

    def header(self, name: str) -> str:
        text = self.text(name)
        is_token = re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", text)
        if not is_token or text.lower() in _HEADERS_IN_USE:
            raise self._wrong(
                name,
                "the name of the header that holds the key, such as X-API-Key or Authorization",
            )
        return text

    def query(self, name: str) -> tuple[tuple[str, str], ...]:
        text = self.text(name)
        try:
            pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text))
        except ValueError:
            pairs = [("", "")]
        if any(not one for one, _ in pairs):  # not echoed: it could hold a key
            raise ConfigError(
                f"{name} can't be read: set it to parameters such as a=1&b=2, percent-encoded, "
                "without a question mark."
            )
        for param in ("OFFSET_PARAM", "LIMIT_PARAM", "CURSOR_PARAM"):
            if self.text(param) in dict(pairs):
                raise ConfigError(
                    f"{name} holds {self.text(param)}, which {param} names: the crawl sets it "
                    f"itself. Take it out of {name}."
                )
        return tuple(pairs)

    def field(self, name: str, other: str) -> str:
        text = self.text(name)
        if not text.isprintable() or len(text) > 200 or text in _OTHER_FIELDS:
            raise self._wrong(
                name,
                "the name of an event's field that isn't one of "
                f"{', '.join(_OTHER_FIELDS)}, which have columns of their own",
            )
        if text == self.text(other):
            raise ConfigError(f"{name} and {other} are both {text!r}: set them to two fields.")
        return text

    def choice(self, name: str, *choices: str) -> str:
        text = self.text(name)
        if text not in choices:
            raise self._wrong(name, f"one of {', '.join(choices)}")
        return text

    def path(self, name: str) -> str:
        text = self.text(name)
        if not text.startswith("/") or "?" in text or "#" in text:
            raise self._wrong(
                name, "a path that begins with a slash, such as /events/bulk, without a query"
            )
        return text

    def key(self, name: str) -> str:
        text = self.text(name)
        if text and (re.search(r'["\\]', text) or not text.isprintable() or "" in text.split(".")):
            raise self._wrong(name, "names with dots between them, such as result.items")
        return text

    def schema(self) -> str:
        text = self.text("DB_SCHEMA")
        if not text.isprintable() or len(text.encode()) > 63:
            raise ConfigError(
                "DB_SCHEMA can't be used: set it to a name of at most 63 bytes, such as public."
            )
        return text

    def api_base_url(self) -> str:
        text = self.text("API_BASE_URL").rstrip("/")
        if not text:
            if self._require_api:
                raise ConfigError(
                    "API_BASE_URL isn't set. Set it to the API's address up to and including "
                    "/api/v1, such as https://api.example.com/api/v1, in .env, in the environment "
                    "or with -s API_BASE_URL=…"
                )
            return ""
        try:
            parts = urlsplit(text)
            good = parts.scheme in {"http", "https"} and bool(parts.hostname)
            good = good and (parts.port is None or parts.port > 0)
            secret = parts.username is not None or parts.password is not None
        except ValueError:
            good, secret, parts = False, False, urlsplit("")
        if secret or (not good and "@" in text):  # not echoed: it holds a password
            raise ConfigError(
                "API_BASE_URL holds a user name or password before the host: take it out. "
                "The key belongs into API_KEY or API_KEY_FILE."
            )
        printable = text.isprintable() and not re.search(r"\s", text)
        if not (good and printable) or parts.query or parts.fragment:
            shown = re.split(r"[?#]", text)[0]  # a query could hold a key
            raise ConfigError(
                f"API_BASE_URL is {shown!r}: set it to an http:// or https:// address without "
                "a query, such as https://api.example.com/api/v1."
            )
        return text

    def api_key(self) -> str:
        key, file = self.text("API_KEY"), self.text("API_KEY_FILE")
        if file and (not key or self._level("API_KEY_FILE") > self._level("API_KEY")):
            key = self._key_in(file)
        if not key and self._require_api:
            raise ConfigError(
                "API_KEY isn't set. Set it to your key in .env or in the environment, "
                "or name a file that holds it with API_KEY_FILE."
            )
        if key and not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", key):
            raise ConfigError(
                "API_KEY holds characters that can't stand in an HTTP header "
                "(line breaks or other than plain ASCII): copy the key again."
            )
        return key

    def _key_in(self, file: str) -> str:
        # The name isn't echoed: whoever mistakes API_KEY_FILE for API_KEY has put the key there.
        try:
            path = Path(self.text("PROJECT_DIR"), os.path.expanduser(file))  # noqa: PTH111
            key = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no path at all
            cause = getattr(error, "strerror", None) or "it isn't UTF-8 text"
            raise ConfigError(
                f"API_KEY_FILE names a file that can't be read ({cause}). Set it to the path "
                "of a file that holds nothing but the key, readable by this user."
            ) from None
        if not key:
            raise ConfigError("API_KEY_FILE names a file that is empty: put the key in it.")
        return key

    def data_dir(self) -> Path:
        path = Path(self.text("DATA_DIR"))
        return path if path.is_absolute() else Path(self.text("PROJECT_DIR") or Path.cwd()) / path

    def database(self) -> Target:
        """At the same level DATABASE_URL beats DB_*; otherwise the higher level wins.

        `settings.py` has decided between environment and .env; this is about ``-s``.
        """
        url = self.text("DATABASE_URL")
        if url and self._level("DATABASE_URL") >= max(self._level(part) for part in _DB_PARTS):
            return from_url(url)
        port = self.whole("DB_PORT", 1, 65535) if self.text("DB_PORT") else None
        host = self.text("DB_HOST")
        for name in ("DB_HOST", "DB_NAME"):
            if "://" in self.text(name) or (name == "DB_HOST" and "@" in host[1:]):
                raise ConfigError(  # not echoed: such an address can hold the password
                    f"{name} holds a whole address: put that into DATABASE_URL, or only the "
                    f"{'host' if name == 'DB_HOST' else 'database'}'s name into {name}."
                )
        if not host:
            return EmbeddedTarget(self.data_dir(), port, self.text("DB_NAME"))
        params = {"host": host, "dbname": self.text("DB_NAME")}
        if port is not None:
            params["port"] = str(port)
        if user := self.text("DB_USER"):
            params["user"] = user
        # Not stripped: a password may begin or end with a blank.
        if password := self._settings.get("DB_PASSWORD"):
            params["password"] = str(password)
        return ServerTarget(params)


def _of(
    read: "Callable[..., Any]", *args: Any, if_set: bool = False, secret: bool = False, **more: Any
) -> Any:
    """A field that *read*, of `_Reader`, fills; *if_set*: with None for an empty setting."""

    def value(reader: _Reader) -> Any:
        return None if if_set and not reader.text(args[0]) else read(reader, *args, **more)

    return field(repr=not secret, metadata={"value": value})


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, in the order in which they are checked. Units in the names: *_s seconds."""

    api_base_url: str = _of(_Reader.api_base_url)
    api_key: str = _of(_Reader.api_key, secret=True)
    api_key_header: str = _of(_Reader.header, "API_KEY_HEADER")
    query_params: tuple[tuple[str, str], ...] = _of(_Reader.query, "QUERY_PARAMS", secret=True)
    workers: int | None = _of(_Reader.whole, "WORKERS", 1, 1000, if_set=True)
    page_size: int = _of(_Reader.whole, "BULK_PAGE_SIZE", 1, 1_000_000)
    database: Target = _of(_Reader.database)  # noqa: RUF009 - `_of` is dataclasses.field
    schema: str = _of(_Reader.schema)
    db_writers: int = _of(_Reader.whole, "DB_WRITERS", 1, 16)
    batch_rows: int = _of(_Reader.whole, "BATCH_ROWS", 1, 1_000_000)
    db_max_wait_s: float = _of(_Reader.seconds, "DB_MAX_WAIT")
    data_dir: Path = _of(_Reader.data_dir)  # noqa: RUF009
    pagination: str = _of(_Reader.choice, "PAGINATION", "auto", "offset", "page", "cursor")
    bulk_path: str = _of(_Reader.path, "BULK_PATH")
    cursor_path: str = _of(_Reader.path, "CURSOR_PATH")
    page_start: int = _of(_Reader.whole, "PAGE_START", 0, 1)
    offset_param: str = _of(_Reader.text, "OFFSET_PARAM")
    limit_param: str = _of(_Reader.text, "LIMIT_PARAM")
    cursor_param: str = _of(_Reader.text, "CURSOR_PARAM")
    events_key: str = _of(_Reader.key, "EVENTS_KEY")
    total_key: str = _of(_Reader.key, "TOTAL_KEY")
    next_key: str = _of(_Reader.key, "NEXT_KEY")
    id_field: str = _of(_Reader.field, "ID_FIELD", "TIMESTAMP_FIELD")
    timestamp_field: str = _of(_Reader.field, "TIMESTAMP_FIELD", "ID_FIELD")
    max_rejected: float = _of(
        _Reader.share, "MAX_REJECTED", "a share from 0 to 1, such as 0.01 for one percent"
    )
    on_duplicate: str = _of(_Reader.choice, "ON_DUPLICATE", "keep", "update")
    follow_s: float | None = _of(_Reader.seconds, "FOLLOW", above_0=True, if_set=True)
    rate_limits: tuple[Limit, ...] = _of(_Reader.limits, "RATE_LIMIT")
    rate_limit_share: float = _of(
        _Reader.share, "RATE_LIMIT_SHARE", "a number above 0 and up to 1, such as 0.8", above_0=True
    )
    rate_limit_max_wait_s: float = _of(_Reader.seconds, "RATE_LIMIT_MAX_WAIT")
    max_bytes_in_flight: int = _of(_Reader.whole, "MAX_BYTES_IN_FLIGHT", 1_000_000, 999_999_999)
    dashboard_host: str = _of(_Reader.text, "DASHBOARD_HOST")
    dashboard_port: int | None = _of(_Reader.whole, "DASHBOARD_PORT", 0, 65535, if_set=True)
    dashboard_password: str = _of(_Reader.text, "DASHBOARD_PASSWORD", secret=True)

    @classmethod
    def from_settings(cls, settings: "BaseSettings", *, require_api: bool = True) -> "Config":
        """Reads and checks everything. Raises ConfigError with one sentence."""
        reader = _Reader(settings, require_api=require_api)
        for name in filter(reader.text, INTERVALS):
            reader.seconds(name, above_0=name == "HEARTBEAT_INTERVAL")
        reader.no_delay()
        config = cls(**{one.name: one.metadata["value"](reader) for one in fields(cls)})
        if config.dashboard_port is not None:
            config.check_dashboard()
        return config

    @property
    def shared(self) -> dict[str, object]:
        """What all processes of one crawl must have in common, by the settings' names."""
        names = (
            "pagination", "bulk_path", "cursor_path", "page_start", "events_key", "total_key",
            "id_field", "timestamp_field", "on_duplicate",
        )  # fmt: skip
        query = "&".join(f"{name}={value}" for name, value in self.query_params)
        return {
            **{name.upper(): getattr(self, name) for name in names},
            "QUERY_PARAMS": hashlib.sha256(query.encode()).hexdigest()[:16],  # it may hold a key
        }

    @property
    def page_format(self) -> PageFormat:
        """Where the API puts events, total, next page, id and timestamp in a body."""
        return PageFormat(
            self.events_key, self.total_key, self.next_key, self.id_field, self.timestamp_field
        )

    @property
    def route(self) -> str:
        """Where a run reads and where it writes, without a secret."""
        return f"{self.api_base_url} → {self.database.place}, schema {self.schema}"

    def without_key(self, text: str) -> str:
        """Text of the API for logs and tables: without our key, and in one line."""
        return without(self.api_key, printable(text), "[API_KEY]")

    def check_dashboard(self) -> None:
        """Raises ConfigError for a page that others could reach without a password."""
        host = self.dashboard_host
        if not re.fullmatch(r"[\w.:-]{1,253}", host) or not _is_encodable(host):
            raise ConfigError(
                f"DASHBOARD_HOST is {host!r}: set it to an address of this machine, such as "
                "127.0.0.1 (only from here) or 0.0.0.0 (from everywhere, with a password)."
            )
        if not self.dashboard_password and not is_this_machine(host):
            raise ConfigError(
                f"DASHBOARD_HOST is {host}, which others can reach: set DASHBOARD_PASSWORD, which "
                "the page then asks for, or set DASHBOARD_HOST back to 127.0.0.1."
            )


def _is_encodable(host: str) -> bool:
    """Whether *host* can be looked up: no empty label, none of more than 63 bytes."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def is_this_machine(host: str) -> bool:
    """Whether *host* is an address of this machine alone: localhost, 127.0.0.0/8, ::1."""
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 §6.3
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
