"""The HTTP side: the page's files, its server-sent events, metrics and health. GET only.

Owns access: by password where one is set, else only from this machine, under a name of this machine
(another name is a web site's in somebody's browser, by DNS rebinding). Must not read the database
itself.
"""

import asyncio
import base64
import binascii
import contextlib
import hmac
import socket
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final, Protocol

from aiohttp import web

from datasync_crawler.config import is_this_machine
from datasync_crawler.errors import DatabaseRefused
from datasync_crawler.monitor import connections
from datasync_crawler.monitor.board import phase
from datasync_crawler.monitor.connections import Connections
from datasync_crawler.monitor.feed import INTERVAL_S, Feed, Parts
from datasync_crawler.monitor.freshness import parse_age, problems
from datasync_crawler.store.freshness import Freshness

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Ages(Protocol):
    """Reads the freshness; with *newest*, of the newest event too. None: the database is away."""

    def __call__(self, *, newest: bool) -> Awaitable[Freshness | None]:
        """By the database's clock."""


#: The page's files and their types.
FILES: Final = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "plots.js": "text/javascript",
    **{f"icon{kind}.svg": "image/svg+xml" for kind in ("", "-run", "-wait", "-bad")},
    "uPlot.iife.min.js": "text/javascript",
    "uPlot.min.css": "text/css",
}
#: No script but our own files, no other server, no frame, no form. Styles by class and CSSOM alone.
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
#: Delay of the response to a wrong password, in seconds; other requests wait for it.
WRONG_PASSWORD_S: Final = 0.5
#: Readers of the page at the same time.
MOST_READERS: Final = 50


class Dashboard:
    """The server. `url` is where it listens, once started."""

    def __init__(
        self, feed: Feed, *, host: str, port: int, password: str, ages: Ages | None = None
    ) -> None:
        self._feed, self._ages = feed, ages
        self._host, self._port, self._password = host, port, password
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._connections: Connections | None = None
        self._guessing = asyncio.Lock()
        self._ending = asyncio.Event()
        self._readers = 0
        self.url = ""

    async def start(self) -> None:
        """Listens. Raises OSError when the address is taken or isn't this machine's."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/", self._page)
        app.router.add_get("/events", self._events, allow_head=False)  # it has no end
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        for name in FILES:
            app.router.add_get(f"/{name}", self._file)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,  # when the client has gone
            shutdown_timeout=1.0,
        )
        await self._runner.setup()
        assert self._runner.server is not None
        self._connections = Connections(self._runner.server)
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._connections, self._host, self._port, backlog=connections.BACKLOG
            )
        except BaseException:
            await self._runner.cleanup()
            raise
        port = self._listener.sockets[0].getsockname()[1]
        host = "localhost" if self._host in {"0.0.0.0", "::"} else self._host  # noqa: S104
        self.url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    async def refusal(self) -> DatabaseRefused | None:
        """The database's error if it refuses to be read; None also while it is only away."""
        await self._feed.parts(None)
        problem = self._feed.problem
        return problem if isinstance(problem, DatabaseRefused) else None

    async def stop(self) -> None:
        """Sends the last figures to the viewers, and closes."""
        self._ending.set()
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()
        await self._feed.close()

    # --- access -----------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        refused = await self._refusal(request)
        try:
            response = refused or await handler(request)
        except web.HTTPException as error:
            error.headers.update(HEADERS)
            error.force_close()
            raise
        if not response.prepared:
            response.headers.update(HEADERS)
        response.force_close()  # one request per connection: none of them is ever idle
        return response

    async def _refusal(self, request: web.Request) -> web.Response | None:
        if request.path == "/healthz":
            return None  # it holds no figures
        if self._password:
            header = request.headers.get("Authorization")
            if header is not None and await self._is_right(header):
                return None
            return web.Response(
                status=401,
                text="The password is DASHBOARD_PASSWORD; any user name will do.\n",
                headers={"WWW-Authenticate": 'Basic realm="datasync-crawler", charset="UTF-8"'},
            )
        if not is_this_machine(request.host.rsplit(":", 1)[0] if request.host else ""):
            return web.Response(
                status=421,
                text="This page is served only as localhost and 127.0.0.1. To use another name, "
                "set DASHBOARD_PASSWORD.\n",
            )
        return None

    async def _is_right(self, header: str) -> bool:
        """One check at a time for all addresses: parallel guesses are no quicker."""
        async with self._guessing:
            right = _has_password(header, self._password)
            if not right:
                await asyncio.sleep(WRONG_PASSWORD_S)
            return right

    # --- responses --------------------------------------------------------------------------------

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(body=_static("index.html"), content_type="text/html", charset="utf-8")

    async def _file(self, request: web.Request) -> web.Response:
        name = request.path[1:]
        return web.Response(body=_static(name), content_type=FILES[name], charset="utf-8")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events (HTML Living Standard, 9.2): a part of the page each, when changed."""
        text = request.query.get("run", "")
        if text and not (text.isascii() and text.isdigit() and len(text) < 19):
            raise web.HTTPBadRequest(text="run is the number of a run.\n")
        if self._readers >= MOST_READERS:
            raise web.HTTPServiceUnavailable(text="Too many readers.\n")
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
        assert self._connections is not None  # started
        self._readers += 1
        try:
            with self._connections.streaming(request):
                await response.prepare(request)
                await self._stream(response, int(text) if text else None)
        except ConnectionError:
            pass  # the viewer has gone
        except TimeoutError:  # the viewer takes nothing
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._readers -= 1
        return response

    async def _stream(self, response: web.StreamResponse, run_id: int | None) -> None:
        sent: Parts = {}
        last = False
        while True:
            parts = await self._feed.parts(run_id, max_age_s=0.0 if last else INTERVAL_S * 0.9)
            changed = {name: part for name, part in parts.items() if sent.get(name) != part}
            # The run last: the page is drawn when it arrives.
            order = sorted(changed, key=lambda name: name in {"run", "health"})
            text = b"".join(
                b"event: %b\ndata: %b\n\n" % (name.encode(), changed[name]) for name in order
            )
            await asyncio.wait_for(response.write(text), connections.PATIENCE_S)
            sent = parts
            if last:
                await response.write(b"event: end\ndata: {}\n\n")
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), INTERVAL_S)
            last = self._ending.is_set()

    async def _metrics(self, request: web.Request) -> web.Response:
        from datasync_crawler.monitor import metrics  # noqa: PLC0415  # only when requested

        await self._feed.parts(None)
        up = self._feed.away_s is None
        fresh = None if self._ages is None else await self._ages(newest=True)
        body, content_type = metrics.exposition(
            self._feed.run,
            self._feed.ledger,
            up=up,
            fresh=fresh,
            processes=self._feed.processes,
        )
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, request: web.Request) -> web.Response:
        bounds = _age(request, "max_age"), _age(request, "max_event_age")
        await self._feed.parts(None)
        word = "ok"
        if self._feed.away_s is not None:
            word = "database away"
        elif self._feed.run is not None and self._feed.run.malformed:
            word = "malformed figures in crawl_runs"
        elif self._feed.run is not None and phase(self._feed.run) == "silent":
            word = "crawl without heartbeat"
        elif self._feed.run is not None and self._feed.run.finish_reason == "unauthorized":
            word = "key refused"
        elif any(bounds):
            word = await self._too_old(*bounds)
        return web.json_response({"status": word}, status=200 if word == "ok" else 503)

    async def _too_old(self, max_age_s: float | None, max_event_age_s: float | None) -> str:
        fresh = None
        if self._ages is not None:
            fresh = await self._ages(newest=max_event_age_s is not None)
        if fresh is None:
            return "database away"
        if problems(fresh, max_age_s=max_age_s):
            return "last complete run too old"
        if problems(fresh, max_age_s=None, max_event_age_s=max_event_age_s):
            return "newest event too old"
        return "ok"


def _age(request: web.Request, name: str) -> float | None:
    """An age in seconds from the query; None when it isn't there."""
    text = request.query.get(name)
    try:
        return None if text is None else parse_age(text)
    except ValueError:
        raise web.HTTPBadRequest(text=f"{name} is an age such as 90s, 15m, 2h or 1d.\n") from None


def explain(error: OSError, host: str, port: int) -> str:
    """Why the page can't be served there, and what to do."""
    if isinstance(error, socket.gaierror):
        return f"DASHBOARD_HOST {host} isn't an address of this machine: set it to 127.0.0.1."
    cause = (error.strerror or type(error).__name__).split(": ")[-1]
    return (
        f"The dashboard can't listen on {host} port {port} ({cause}): set DASHBOARD_PORT to a "
        "free port, or to 0 for any."
    )


def _has_password(header: str, password: str) -> bool:
    """RFC 7617, in UTF-8; any user name."""
    scheme, _, coded = header.partition(" ")
    try:
        given = base64.b64decode(coded.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return False
    return scheme.lower() == "basic" and hmac.compare_digest(given, password.encode())


def _static(name: str) -> bytes:
    # importlib.resources: under Scrapyd the package is an egg.
    return files("datasync_crawler.monitor").joinpath("static", name).read_bytes()
