"""The endpoints by which a test looks into a mock that runs, and changes it.

    GET  /__mock__/stats    what it was asked so far, and the set as it is now
    POST /__mock__/config   other options, by their names; the `ACTIONS` too

On loopback only, and not for a web page.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from datasync_crawler.mockapi.faults import parse_fault
from datasync_crawler.mockapi.options import Options
from faults.journal import Journal
from faults.sequence import RunSequence

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from datasync_crawler.mockapi.server import MockServer

ACTIONS = ("grow", "insert", "delete")
"""`{"grow": n}` adds newer events; `{"insert": [offset, n]}` and `{"delete": [offset, n]}` shift
offsets."""
# What only a start can set.
_FIXED = ("host", "port", "seed", "replay", "cache_mb", "plugin", "stop_with_stdin")
# What may be switched off again by null.
_NULLABLE = ("key_expires_after", "rate_limit", "events")


class Control:
    """Stats and changes of one mock."""

    def __init__(self, server: MockServer) -> None:
        self._api = server.api
        self._sequence = RunSequence(server.api.sequence.total, server.api.sequence.order)
        self._api.sequence = self._sequence
        self._journal = Journal()
        server.observers.append(self._journal.note)
        server.routes["/__mock__/stats"] = _guarded("GET", self._stats)
        server.routes["/__mock__/config"] = _guarded("POST", self._config)

    async def _stats(self, request: web.BaseRequest) -> web.StreamResponse:
        """Total, the set as runs of indices (first, count), how often each fault struck."""
        return web.json_response(
            {
                **self._journal.stats(),
                "total": self._sequence.total,
                "runs": self._sequence.runs,
                "order": self._sequence.order,
                "struck": {armed.spec: armed.struck for armed in self._api.faults},
            }
        )

    async def _config(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            self.change(json.loads(await request.text()))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"ok": True})

    def change(self, changes: object) -> None:
        """Change options and the set in mid-crawl; what was counted in a window stays counted.

        Raises:
            ValueError: an unknown name or a wrong value; nothing is changed then.

        """
        if not isinstance(changes, dict):
            raise ValueError("The body must be an object of options.")  # noqa: TRY004 - one kind
        options = dict(changes)
        actions = {name: options.pop(name) for name in list(options) if name in ACTIONS}
        for name, value in actions.items():
            if not (_is_count(value) if name == "grow" else _is_place(value)):
                raise ValueError(f"{name}: {value!r} is not a value for it.")
        most = self._api.store.source.total
        if most is not None and actions.keys() & {"grow", "insert"}:
            raise ValueError("A recording can't grow.")
        changed = _changed(self._api.options, options)
        if most is not None and (changed.events or 0) > most:
            raise ValueError(f"The recording has only {most} events.")
        self._take_over(changed)
        if "grow" in actions:
            self._sequence.grow(actions["grow"])
        if "insert" in actions:
            self._sequence.insert(*actions["insert"])
        if "delete" in actions:
            self._sequence.delete(*actions["delete"])

    def _take_over(self, now: Options) -> None:
        api, before = self._api, self._api.options
        faults = [parse_fault(spec) for spec in now.fault]
        api.options = now
        if now.fault != before.fault:
            armed = {one.spec: one for one in api.faults}  # goes on counting
            api.faults = [armed.get(one.spec, one) for one in faults]
            api.store = api.make_store()
        if now.events is not None and now.events != before.events:
            self._sequence.resize(now.events)
        self._sequence.order = now.order
        if now.key_expires_after != before.key_expires_after:
            api.accepted = 0
        if now.rate_limit is None or (now.limiter, now.rate_window) != (
            before.limiter, before.rate_window
        ):  # fmt: skip
            api.limiters.clear()
        else:
            for limiter in api.limiters.values():
                limiter.limit = now.rate_limit


def _guarded(
    method: str, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.remote not in ("127.0.0.1", "::1") or not _is_asked_by_us(request):
            return web.json_response({"error": "Only for tests on this machine"}, status=403)
        if request.method != method:
            return web.json_response({"error": f"Only {method}"}, status=405)
        return await handler(request)

    return handle


def _is_asked_by_us(request: web.BaseRequest) -> bool:
    """Not by a web page that a browser on this machine shows: not by its name (DNS rebinding
    leads that to 127.0.0.1), nor from its origin.
    """
    host = request.headers.get("Host", "")
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    origin = request.headers.get("Origin", f"http://{host}")
    return name in ("127.0.0.1", "::1", "localhost") and origin == f"http://{host}"


def _changed(options: Options, changes: Mapping[str, object]) -> Options:
    known = {item.name: item for item in fields(Options)}
    values: dict[str, object] = {}
    for name, value in changes.items():
        if name not in known or name in _FIXED:
            raise ValueError(f"{name!r} can't be changed while the mock runs.")
        values[name] = tuple(value) if isinstance(value, list) else value
        kind = known[name].metadata["kind"]
        if not _fits(name, values[name], kind):
            raise ValueError(f"{name}: {value!r} is not a value for it.")
    return replace(options, **values)  # type: ignore[arg-type]


def _fits(name: str, value: object, kind: type) -> bool:
    if value is None:
        return name in _NULLABLE
    if name == "fault":
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if name in ("bulk", "gzip"):
        return isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(
        value, bool
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_place(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))
