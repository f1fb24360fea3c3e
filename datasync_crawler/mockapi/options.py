"""The mock's options: names, defaults, help texts and limits, in one list.

Must not import aiohttp, so that the command line starts quickly.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import argparse

T = TypeVar("T")


def _option(
    default: T,
    text: str,
    *,
    kind: type = str,
    choices: tuple[str, ...] | None = None,
    least: float | None = None,
    most: float | None = None,
) -> T:
    """A field with what `add_arguments` and the checks need; a field is typed as its default."""
    metadata = {"help": text, "kind": kind, "choices": choices, "least": least, "most": most}
    option: T = field(default=default, metadata=metadata)
    return option


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All options, checked. Names are those of the command line, with underscores.

    Raises ValueError for a wrong value, with a sentence that names what to set.
    """

    host: str = _option("127.0.0.1", "address to listen on")
    port: int = _option(
        8763, "port to listen on; 0 takes any free one", kind=int, least=0, most=65535
    )
    events: int | None = _option(
        None, "events in the set (100000, or all of a recording)", kind=int, least=0
    )
    seed: int = _option(1, "seed of the data set", kind=int)
    order: str = _option(
        "oldest-first",
        "what stands at offset 0 of the bulk endpoint",
        choices=("oldest-first", "newest-first"),
    )
    replay: str | None = _option(None, "serve the events of a recorded response, .json or .json.gz")
    cache_mb: int = _option(64, "memory for rendered events, in MB", kind=int, least=1)
    api_key: str = _option("demo-key", "the key that X-API-Key must hold")
    other_key: tuple[str, ...] = _option(
        (), "another key, with a rate limit of its own; may be given often"
    )
    key_expires_after: int | None = _option(
        None, "answer 401 after this many requests", kind=int, least=0
    )
    max_limit: int = _option(5000, "largest page", kind=int, least=1)
    over_limit: str = _option(
        "cap", "a larger limit is capped silently, or is a 400", choices=("cap", "error")
    )
    shape: str = _option(
        "full",
        "body with pagination and meta, {data} alone, or a bare list",
        choices=("full", "data", "list"),
    )
    bulk: bool = _option(True, "have no bulk endpoint: 404 for it")  # noqa: FBT003
    gzip: bool = _option(False, "compress responses for clients that accept it")  # noqa: FBT003
    cursor_ttl: float = _option(
        116.0, "seconds until a cursor of the regular endpoint expires", kind=float, least=0
    )
    rate_limit: int | None = _option(
        None, "requests per window; unlimited when not given", kind=int, least=1
    )
    rate_window: float = _option(60.0, "length of the window in seconds", kind=float, least=0.001)
    limiter: str = _option(
        "fixed", "how requests are counted", choices=("fixed", "sliding", "token-bucket")
    )
    rate_headers: str = _option(
        "full",
        "which headers state the rate limit",
        choices=("full", "retry-after", "ietf", "none"),
    )
    latency_ms: float = _option(
        0.0, "wait before each response, in milliseconds", kind=float, least=0
    )
    fault: tuple[str, ...] = _option((), "NAME[:key=value,…]: misbehave; may be given often")
    plugin: tuple[str, ...] = _option(
        (), "module that adds faults or more to the mock; may be given often"
    )
    stop_with_stdin: bool = _option(False, "end when standard input ends")  # noqa: FBT003

    def __post_init__(self) -> None:
        """Check ranges and choices."""
        for item in fields(self):
            value, about = getattr(self, item.name), item.metadata
            flag = "--" + item.name.replace("_", "-")
            if about["choices"] and value not in about["choices"]:
                raise ValueError(f"{flag} must be one of {', '.join(about['choices'])}.")
            if value is None:
                continue
            if about["least"] is not None and value < about["least"]:
                raise ValueError(f"{flag} must be at least {about['least']}, not {value}.")
            if about["most"] is not None and value > about["most"]:
                raise ValueError(f"{flag} must be at most {about['most']}, not {value}.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds every option of the mock to the parser."""
    for item in fields(Options):
        flag, text = "--" + item.name.replace("_", "-"), item.metadata["help"]
        if isinstance(item.default, tuple):
            parser.add_argument(flag, action="append", default=[], help=text)
        elif isinstance(item.default, bool):
            flag = flag.replace("--", "--no-") if item.default else flag
            action = "store_false" if item.default else "store_true"
            parser.add_argument(flag, dest=item.name, action=action, help=text)
        else:
            parser.add_argument(
                flag,
                type=item.metadata["kind"],
                default=item.default,
                choices=item.metadata["choices"],
                help=text if item.default is None else f"{text} ({item.default})",
            )
    parser.add_argument("--list-faults", action="store_true", help="name the faults and end")


def from_arguments(arguments: argparse.Namespace) -> Options:
    """Builds options from parsed arguments.

    Raises:
        ValueError: a value that can't be served.

    """
    values = {item.name: getattr(arguments, item.name) for item in fields(Options)}
    often = ("other_key", "fault", "plugin")
    return Options(**values | {name: tuple(values[name]) for name in often})
