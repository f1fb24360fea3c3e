"""The mock's HTTP server: aiohttp in front of `api.MockApi`.

Owns listening, sending and the end of the process. Must not decide replies: `api` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import signal
import socket
import struct
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from aiohttp import web

from datasync_crawler.mockapi.api import MockApi
from datasync_crawler.mockapi.faults import load_plugins
from datasync_crawler.mockapi.reply import ApiRequest, Endpoint, Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from datasync_crawler.mockapi.options import Options

BASE_PATH = "/api/v1"
_ENDPOINTS: dict[str, Endpoint] = {
    f"{BASE_PATH}/events/bulk": "bulk",
    f"{BASE_PATH}/events": "regular",
}


class MockServer:
    """Serves one `MockApi`; `address` holds the API's base URL once it listens.

    Plug-ins may put the handler of another path into `routes`, and a function that is called with
    each request and its reply into `observers`.
    """

    def __init__(self, options: Options) -> None:
        plugins = load_plugins(options.plugin)
        self.api = MockApi(options)
        self.address = ""
        self.routes: dict[str, Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]] = {}
        self.observers: list[Callable[[ApiRequest, Reply], None]] = []
        self._runner: web.ServerRunner | None = None
        self._count = 0
        for plugin in plugins:
            extend = getattr(plugin, "extend", None)
            if extend is not None:
                extend(self)

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken, or the address isn't this machine's.

        """
        options = self.api.options
        # The low-level server: one handler, no router, no access log. Handlers that hang are
        # cancelled when their client leaves or the server ends, not waited for.
        handler = web.Server(self._handle, access_log=None, handler_cancellation=True)
        self._runner = web.ServerRunner(handler, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, options.host, options.port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"http://{host}:{port}{BASE_PATH}"

    async def stop(self) -> None:
        """End all connections at once."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.rstrip("/")
        if path in self.routes:
            return await self.routes[path](request)
        endpoint = _ENDPOINTS.get(path)
        if endpoint is None or request.method != "GET":
            body = {"error": "Not Found", "message": f"No route {path}", "code": "NOT_FOUND"}
            return web.json_response(body, status=404)
        self._count += 1
        asked = ApiRequest(
            number=self._count,
            endpoint=endpoint,
            path=path,
            query=request.query,
            header_key=request.headers.get("X-API-Key"),
            accepts_gzip="gzip" in request.headers.get("Accept-Encoding", ""),
        )
        reply = self.api.answer(asked, time.monotonic())
        for observe in self.observers:
            observe(asked, reply)
        delay_s = reply.delay_s + self.api.options.latency_ms / 1000
        if delay_s:
            await asyncio.sleep(delay_s)
        return await self._send(request, asked, reply)

    async def _send(
        self, request: web.BaseRequest, asked: ApiRequest, reply: Reply
    ) -> web.StreamResponse:
        headers = {"Content-Type": reply.content_type, **reply.headers}
        if self.api.options.gzip and asked.accepts_gzip and "Content-Encoding" not in headers:
            body = await asyncio.to_thread(gzip.compress, b"".join(reply.body), 1)
            reply = replace(reply, body=(body,))
            headers["Content-Encoding"] = "gzip"
        if reply.send is not None:
            return await reply.send(request, reply, headers)
        whole = b"".join(reply.body)
        if reply.ending == "whole":
            return web.Response(status=reply.status, body=whole, headers=headers)
        response = web.StreamResponse(status=reply.status, headers=headers)
        response.content_length = len(whole)
        with contextlib.suppress(ConnectionResetError):  # the client may have closed it first
            await response.prepare(request)
            await response.write(whole[: reply.send_bytes])
        end_connection(request, reset=reply.ending == "reset")
        return response


def end_connection(request: web.BaseRequest, *, reset: bool) -> None:
    """Close the connection in mid-response, or reset it."""
    transport = request.transport
    if transport is None:  # the client has closed it
        return
    if reset:
        # SO_LINGER of zero seconds makes close() send RST instead of FIN.
        opened = transport.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()


async def serve(options: Options) -> None:
    """Serve until SIGTERM, SIGINT or the end of standard input.

    Raises:
        ValueError: options that can't be served.
        OSError: the port is taken, or the recording can't be opened.

    """
    server = MockServer(options)
    await server.start()
    sys.stdout.write(f"mock API listening on {server.address}\n")
    sys.stdout.flush()
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def watch_stdin() -> None:
        while os.read(0, 4096):
            pass
        # The loop is closed if the mock was stopped otherwise at the same moment.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)

    if options.stop_with_stdin:
        # A thread, because epoll fails for /dev/null and files; a daemon, because nothing ends its
        # read.
        threading.Thread(target=watch_stdin, daemon=True).start()
    try:
        await stop.wait()
    finally:
        await server.stop()


def run(options: Options) -> int:
    """Serves; returns the exit status: 0 stopped, 1 can't listen or read, 2 wrong options."""
    try:
        asyncio.run(serve(options))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except BrokenPipeError:  # whoever started it has gone
        return 1
    except OSError as error:
        if error.filename is not None:
            sys.stderr.write(f"{error.filename}: {error.strerror}.\n")
        else:
            sys.stderr.write(
                f"The mock API can't listen on {options.host}:{options.port} "
                f"({os.strerror(error.errno or 0)}): choose another port with --port, or --port 0 "
                "for any free one.\n"
            )
        return 1
    return 0
