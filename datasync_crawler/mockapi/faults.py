"""Faults: their schedule, their hooks, the register, and the built-in ones.

Owns the grammar `NAME:key=value,…` and the plug-ins: a module that `--plugin` names adds classes to
the register with `@fault`, and may define `extend(server)`, which is called with the
`server.MockServer` before it listens.
"""

# D102: the class documents its overriding methods.
# ruff: noqa: D102
from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, TypeVar

from datasync_crawler.mockapi.reply import Reply, too_many_requests
from datasync_crawler.mockapi.sequence import NEWEST_FIRST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

    from datasync_crawler.mockapi.reply import ApiRequest, Page
    from datasync_crawler.mockapi.sequence import EventSequence, Span
    from datasync_crawler.mockapi.source import GeneratedEvents, PageStore


@dataclass(frozen=True, slots=True)
class When:
    """The schedule of a fault. Requests are numbered from 1.

    `every` n-th request, or those whose range holds `offset`; from request `start` on, `burst`
    requests in a row, at most `times` in all.
    """

    every: int | None = None
    offset: int | None = None
    start: int | None = None
    burst: int = 1
    times: int | None = None

    def strikes(self, number: int, asked: range) -> bool:
        """Returns whether the fault applies to request `number` for the offsets `asked`."""
        if self.offset is not None and self.offset not in asked:
            return False
        start = self.start if self.start is not None else self.every or 1
        if number < start:
            return False
        return self.every is None or (number - start) % self.every < self.burst


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault can read: the request, the served set and its bytes."""

    request: ApiRequest
    sequence: EventSequence
    store: PageStore

    def spans(self, offset: int, count: int) -> tuple[Span, ...]:
        """Returns the events at [offset, offset + count) of this request's endpoint."""
        order = NEWEST_FIRST if self.request.endpoint == "regular" else None
        return tuple(self.sequence.spans(offset, count, order))


@dataclass(frozen=True)
class Fault:
    """A misbehaviour of the API; its fields are its parameters."""

    fault_name: ClassVar[str]
    default_when: ClassVar[When] = When(every=10)
    needs_generated: ClassVar[bool] = False
    """Whether it generates events, which a recording can't."""

    @classmethod
    def descriptions(cls) -> Iterator[tuple[str, str]]:
        """Returns what `--list-faults` shows: the name and the docstring as one line."""
        yield cls.fault_name, " ".join((cls.__doc__ or "").split())

    def on_source(self, source: GeneratedEvents) -> GeneratedEvents:
        """Change the data set."""
        return source

    def on_sequence(self, scene: Scene) -> None:
        """Change the served set before the page is cut."""

    def on_page(self, page: Page, scene: Scene) -> Page:
        """Change the page's events and its total, cursor and limit."""
        return page

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        """Change the reply: status, headers, body, how it ends."""
        return reply


FaultClass = TypeVar("FaultClass", bound=type[Fault])
REGISTER: dict[str, type[Fault]] = {}


def fault(name: str, when: When = Fault.default_when) -> Callable[[FaultClass], FaultClass]:
    """Adds a class to the register, replacing one of the same name."""

    def enter(cls: FaultClass) -> FaultClass:
        cls.fault_name = name
        cls.default_when = when
        REGISTER[name] = cls
        return cls

    return enter


class ArmedFault:
    """A fault with its schedule and a count of its uses."""

    def __init__(self, spec: str, fault: Fault, when: When) -> None:
        self.spec = spec
        self.fault = fault
        self.when = when
        self.struck = 0

    def strikes(self, number: int, asked: range) -> bool:
        """Returns whether it applies to this request, and counts it."""
        spent = self.when.times is not None and self.struck >= self.when.times
        if spent or not self.when.strikes(number, asked):
            return False
        self.struck += 1
        return True


def parse_fault(spec: str) -> ArmedFault:
    """Read `NAME` or `NAME:key=value,key=value`.

    Raises:
        ValueError: no such fault, no such key, or a value of the wrong kind.

    """
    name, _, rest = spec.partition(":")
    cls = REGISTER.get(name)
    if cls is None:
        raise ValueError(f"No fault is called {name!r}; --list-faults names them all.")
    own = {item.name: item.default for item in fields(cls)}
    timing = {item.name: item.default for item in fields(When)}
    params: dict[str, object] = {}
    schedule: dict[str, object] = {}
    for pair in filter(None, rest.split(",")):
        key, _, text = pair.partition("=")
        if key in own:
            params[key] = _convert(name, key, text, own[key])
        elif key in timing:
            schedule[key] = _convert(name, key, text, timing[key])
        else:
            raise ValueError(f"Fault {name} takes no {key!r}, only {', '.join([*own, *timing])}.")
    if schedule.get("every") == 0 or schedule.get("burst") == 0:
        raise ValueError(f"Fault {name}: every and burst count from 1.")
    # A given schedule replaces the fault's own, unless it is only `burst` or `times`.
    base = When() if schedule.keys() & {"every", "offset", "start"} else cls.default_when
    return ArmedFault(spec, cls(**params), replace(base, **schedule))  # type: ignore[arg-type]


def _convert(name: str, key: str, text: str, default: object) -> object:
    kind = int if default in (None, MISSING) else type(default)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text]
        return kind(text)  # type: ignore[call-arg]
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"Fault {name}: {key}={text} is not of the kind {kind.__name__}."
        ) from error


def load_plugins(names: Iterable[str]) -> list[ModuleType]:
    """Import the modules that `--plugin` names.

    Raises:
        ValueError: there is no such module.

    """
    try:
        return [import_module(name) for name in names]
    except ModuleNotFoundError as error:
        raise ValueError(f"--plugin: {error}. Is its folder in PYTHONPATH?") from error


def fault_list() -> str:
    """Returns the name and the description of each fault, one per line."""
    rows = [row for cls in REGISTER.values() for row in cls.descriptions()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {text}" for name, text in rows)


@fault("429")
@dataclass(frozen=True)
class TooManyRequests(Fault):
    """429 without a rate limit, with a Retry-After of `retry_after` seconds."""

    retry_after: int = 1

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        return too_many_requests(self.retry_after)


@dataclass(frozen=True)
class ServerError(Fault):
    """An error page whose status is the fault's name, with Retry-After when it is given."""

    retry_after: int = -1

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        body = f"<html><body><h1>{self.fault_name}</h1></body></html>".encode()
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after >= 0 else {}
        return Reply(int(self.fault_name), (body,), headers, content_type="text/html")


THREE_IN_A_ROW = When(every=20, burst=3)


@fault("500", THREE_IN_A_ROW)
@dataclass(frozen=True)
class InternalError(ServerError):
    """500 from the application, three in a row."""


@fault("503", THREE_IN_A_ROW)
@dataclass(frozen=True)
class Unavailable(ServerError):
    """503 from the load balancer, three in a row; `retry_after` gives it a Retry-After."""


@fault("reset-mid")
@dataclass(frozen=True)
class ResetMid(Fault):
    """The connection is reset in mid-body (after the share `at`)."""

    at: float = 0.5

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        return replace(reply, ending="reset", send_bytes=int(reply.body_bytes * self.at))


@fault("cut-length")
@dataclass(frozen=True)
class CutLength(Fault):
    """The body ends before its Content-Length (after the share `at`)."""

    at: float = 0.5

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        return replace(reply, ending="cut", send_bytes=int(reply.body_bytes * self.at))


@fault("short-page")
@dataclass(frozen=True)
class ShortPage(Fault):
    """A page in mid-set holds only the share `keep` of its events."""

    keep: float = 0.5

    def on_page(self, page: Page, scene: Scene) -> Page:
        kept = int(page.returned * self.keep)
        return replace(page, spans=scene.spans(page.offset, kept), events=None)


@fault("growing", When(every=5))
@dataclass(frozen=True)
class Growing(Fault):
    """`by` newer events come to the set at every fifth request."""

    needs_generated: ClassVar[bool] = True
    by: int = 10

    def on_sequence(self, scene: Scene) -> None:
        scene.sequence.grow(self.by)
