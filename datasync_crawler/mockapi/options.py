"""The mock's options: one list for the command line, `scrapy mockapi` and the control endpoint.

Owns names, defaults and checks. Imports nothing heavy: the command line is built before anything
is served.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, get_args

from datasync_crawler.mockapi.dataset import Timestamps
from datasync_crawler.mockapi.limits import LimiterKind, RateHeaders, ResetFormat, RetryAfterFormat
from datasync_crawler.mockapi.sequence import Order

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

DEFAULT_KEY = "demo-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All that can be set. Names are the command line's, with underscores."""

    host: str = "127.0.0.1"
    port: int = 8763
    events: int | None = None
    seed: int = 1
    timestamps: Timestamps = "mixed"
    order: Order = "oldest-first"
    replay: str | None = None
    cache_mb: int = 64
    api_key: str = DEFAULT_KEY
    key_expires_after: int | None = None
    max_limit: int = 5000
    over_limit: str = "cap"
    shape: str = "full"
    bulk: bool = True
    gzip: bool = False
    cursor_ttl: float = 116
    rate_limit: int | None = None
    rate_window: float = 60
    limiter: LimiterKind = "fixed"
    rate_headers: RateHeaders = "full"
    reset_format: ResetFormat = "seconds"
    retry_after_format: RetryAfterFormat = "seconds"
    latency_ms: float = 0
    fault: tuple[str, ...] = ()
    journal: str | None = None
    stop_with_stdin: bool = False


_CHOICES: dict[str, tuple[str, ...]] = {
    "timestamps": get_args(Timestamps),
    "order": get_args(Order),
    "over_limit": ("cap", "error"),
    "shape": ("full", "data", "list"),
    "limiter": get_args(LimiterKind),
    "rate_headers": get_args(RateHeaders),
    "reset_format": get_args(ResetFormat),
    "retry_after_format": get_args(RetryAfterFormat),
}
_INTEGERS = ("port", "events", "seed", "cache_mb", "key_expires_after", "max_limit", "rate_limit")
_SECONDS = ("cursor_ttl", "rate_window", "latency_ms")
_HELP = {
    "host": "address to listen on (127.0.0.1)",
    "port": "port to listen on; 0 takes any free one (8763)",
    "events": "events in the set (100000, or all of a replayed recording)",
    "seed": "seed of the data set and of the faults (1)",
    "timestamps": "all four formats, or the two of the recorded page (mixed)",
    "order": "what stands at offset 0 of the bulk endpoint (oldest-first)",
    "replay": "serve the events of a recorded response, .json or .json.gz",
    "cache_mb": "memory for rendered events, in MB (64)",
    "api_key": "the key that X-API-Key must hold (demo-key)",
    "key_expires_after": "answer 401 after this many requests",
    "max_limit": "largest page (5000)",
    "over_limit": "a larger limit is capped silently, or refused with 400 (cap)",
    "shape": "body with pagination and meta, {data} alone, or a bare list (full)",
    "cursor_ttl": "seconds until a cursor of the regular endpoint expires (116)",
    "rate_limit": "requests a window; none when not given",
    "rate_window": "length of the window, in seconds (60)",
    "limiter": "how requests are counted (fixed)",
    "rate_headers": "which headers speak of the limit (full)",
    "reset_format": "what X-RateLimit-Reset says: time left or a point in time (seconds)",
    "retry_after_format": "how a 429 says when to come back (seconds)",
    "latency_ms": "wait before each response, in milliseconds (0)",
    "journal": "write a JSON line for each request to this file",
}
_FLAGS = {
    "--gzip": "compress responses for clients that accept it",
    "--stop-with-stdin": "end when standard input ends",
}
# What only a start can set.
_FIXED = ("host", "port", "seed", "timestamps", "replay", "cache_mb", "journal", "stop_with_stdin")
# What may be switched off again by null.
_NULLABLE = ("key_expires_after", "rate_limit", "events")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the parser every option of the mock."""
    defaults = Options()
    for name, text in _HELP.items():
        kind: type = int if name in _INTEGERS else float if name in _SECONDS else str
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=kind,
            default=getattr(defaults, name),
            choices=_CHOICES.get(name),
            help=text,
        )
    for flag, text in _FLAGS.items():
        parser.add_argument(flag, action="store_true", help=text)
    parser.add_argument(
        "--no-bulk", dest="bulk", action="store_false", help="have no bulk endpoint: 404 for it"
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[:key=value,…]",
        help="misbehave; may be given often",
    )
    parser.add_argument("--list-faults", action="store_true", help="name the faults and end")


def from_arguments(arguments: argparse.Namespace) -> Options:
    """Turn parsed arguments into checked options.

    Raises:
        ValueError: a value that can't be; the sentence says which and what it should be.

    """
    known = {item.name for item in fields(Options)}
    values: dict[str, Any] = {
        name: value for name, value in vars(arguments).items() if name in known
    }
    values["fault"] = tuple(values["fault"])
    return check(Options(**values))


def changed(options: Options, changes: Mapping[str, object]) -> Options:
    """Apply what the control endpoint was sent, by the names of the options.

    Raises:
        ValueError: an unknown name, one that only a start can set, or a value of the wrong kind.

    """
    known = {item.name for item in fields(Options)}
    values: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in known or name in _FIXED:
            msg = f"{name!r} can't be changed while the mock runs."
            raise ValueError(msg)
        values[name] = tuple(value) if isinstance(value, list) else value
        if not _fits(name, values[name]):
            msg = f"{name}: {value!r} is not a value for it."
            raise ValueError(msg)
    return check(replace(options, **values))


def _fits(name: str, value: object) -> bool:
    if value is None:
        return name in _NULLABLE
    if name == "fault":
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if name in _INTEGERS:
        return isinstance(value, int) and not isinstance(value, bool)
    if name in _SECONDS:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if name in ("bulk", "gzip"):
        return isinstance(value, bool)
    return isinstance(value, str) and value in _CHOICES.get(name, (value,))


def check(options: Options) -> Options:
    """Refuse values that can't be served.

    Raises:
        ValueError: with a sentence that says what to set.

    """
    least = {
        "events": 0, "max_limit": 1, "rate_limit": 1, "cache_mb": 1,
        "key_expires_after": 0, "latency_ms": 0, "cursor_ttl": 0,
    }  # fmt: skip
    for name, low in least.items():
        value = getattr(options, name)
        if value is not None and value < low:
            msg = f"--{name.replace('_', '-')} must be at least {low}, not {value}."
            raise ValueError(msg)
    if options.rate_window <= 0:
        raise ValueError("--rate-window must be more than 0 seconds.")
    if not 0 <= options.port <= 65535:
        raise ValueError(f"--port must be between 0 and 65535, not {options.port}.")
    return options
