"""When a fault strikes, and the register of all faults.

Owns the grammar `NAME:key=value,…`, the schedule by seed and request number, and the four places
where a fault can step in. The misbehaviours themselves stand in the `misbehave_…` modules. Must not
know of aiohttp.
"""

from __future__ import annotations

import hashlib
from dataclasses import MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from datasync_crawler.mockapi.reply import ApiRequest, Page, Reply
    from datasync_crawler.mockapi.sequence import EventSequence
    from datasync_crawler.mockapi.source import PageStore


@dataclass(frozen=True, slots=True)
class When:
    """The schedule of a fault. Numbers of requests count from 1.

    `every` n-th request, or a share `rate` of them drawn by seed and number, or those whose range
    holds `offset`; from request `start` on, `burst` requests in a row, at most `times` in all.
    """

    every: int | None = None
    rate: float | None = None
    offset: int | None = None
    start: int | None = None
    burst: int = 1
    times: int | None = None

    def strikes(self, seed: int, name: str, number: int, asked: range) -> bool:
        """Say whether request `number`, which asked for the offsets `asked`, is struck."""
        if self.offset is not None and self.offset not in asked:
            return False
        start = self.start if self.start is not None else self.every or 1
        if number < start:
            return False
        if self.rate is not None:
            draw = f"{seed} {name} {(number - start) // self.burst}".encode()
            value = int.from_bytes(hashlib.blake2b(draw, digest_size=4).digest())
            return value < self.rate * (1 << 32)
        return self.every is None or (number - start) % self.every < self.burst


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault may look at: the request, the served set, its bytes, the wall clock."""

    request: ApiRequest
    sequence: EventSequence
    store: PageStore
    epoch_s: float


@dataclass(frozen=True)
class Fault:
    """A misbehaviour; its fields are the parameters that it takes."""

    fault_name: ClassVar[str]
    default_when: ClassVar[When] = When(every=10)
    needs_generated: ClassVar[bool] = False
    """Whether it makes events up, which a replayed recording can't."""

    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """The words that a parameter may be, where not any will do."""

    @classmethod
    def description(cls) -> str:
        """Give the docstring as one line."""
        return " ".join((cls.__doc__ or "").split())

    def on_sequence(self, scene: Scene) -> None:
        """Change the served set before the page is cut."""

    def on_page(self, page: Page, scene: Scene) -> Page:
        """Change what stands on the page, and what is said of it."""
        del scene
        return page

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        """Change the reply: status, headers, body, how it ends."""
        del scene
        return reply


FaultClass = TypeVar("FaultClass", bound=type[Fault])
REGISTER: dict[str, type[Fault]] = {}


def fault(
    name: str, *, always: bool = False, when: When | None = None
) -> Callable[[FaultClass], FaultClass]:
    """Enter a class into the register; `always` when its default is to strike every request."""

    def enter(cls: FaultClass) -> FaultClass:
        cls.fault_name = name
        if always:
            cls.default_when = When()
        elif when is not None:
            cls.default_when = when
        REGISTER[name] = cls
        return cls

    return enter


class ArmedFault:
    """A fault with its schedule; counts how often it struck."""

    def __init__(self, spec: str, fault: Fault, when: When) -> None:
        self.spec = spec
        self.fault = fault
        self.when = when
        self.struck = 0

    @property
    def name(self) -> str:
        """The fault's name in the register."""
        return self.fault.fault_name

    def strikes(self, seed: int, number: int, asked: range) -> bool:
        """Say whether this request is struck, and count it."""
        if self.when.times is not None and self.struck >= self.when.times:
            return False
        if not self.when.strikes(seed, self.name, number, asked):
            return False
        self.struck += 1
        return True


def _convert(name: str, key: str, text: str, default: object) -> object:
    kind = type(default) if default not in (None, MISSING) else int
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return kind(text)  # type: ignore[call-arg]
    except (ValueError, KeyError) as error:
        msg = f"Fault {name}: {key}={text} is not of the kind {kind.__name__}."
        raise ValueError(msg) from error


def parse_fault(spec: str) -> ArmedFault:
    """Read `NAME` or `NAME:key=value,key=value`.

    Raises:
        ValueError: no such fault, no such key, or a value of the wrong kind.

    """
    name, _, rest = spec.partition(":")
    cls = REGISTER.get(name)
    if cls is None:
        msg = f"No fault is called {name!r}; --list-faults names them all."
        raise ValueError(msg)
    own = {item.name: item.default for item in fields(cls)}
    timing: dict[str, object] = {
        "every": None, "rate": 0.0, "offset": None, "start": None, "burst": 1, "times": None,
    }  # fmt: skip
    params: dict[str, object] = {}
    schedule: dict[str, object] = {}
    for pair in filter(None, rest.split(",")):
        key, _, text = pair.partition("=")
        if key in own:
            params[key] = _convert(name, key, text, own[key])
            allowed = cls.choices.get(key)
            if allowed is not None and text not in allowed:
                msg = f"Fault {name}: {key} is one of {', '.join(allowed)}, not {text!r}."
                raise ValueError(msg)
        elif key in timing:
            schedule[key] = _convert(name, key, text, timing[key])
        else:
            msg = f"Fault {name} takes no {key!r}, only {', '.join([*own, *timing])}."
            raise ValueError(msg)
    if schedule.get("every") == 0 or schedule.get("burst") == 0:
        msg = f"Fault {name}: every and burst count from 1."
        raise ValueError(msg)
    # Said when, it strikes then and only then; else as is usual for this fault.
    if schedule.keys() & {"every", "rate", "offset", "start"}:
        when = When(**schedule)  # type: ignore[arg-type]
    else:
        when = replace(cls.default_when, **schedule)  # type: ignore[arg-type]
    return ArmedFault(spec, cls(**params), when)
