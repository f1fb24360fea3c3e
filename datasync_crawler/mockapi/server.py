"""The mock on a socket: aiohttp in front of `api.MockApi`.

Owns listening, sending (also the sending that goes wrong), the control endpoints and the end of the
process. Must not decide what is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from datasync_crawler.mockapi.api import Clock, MockApi
from datasync_crawler.mockapi.journal import Journal
from datasync_crawler.mockapi.reply import ApiRequest, Endpoint, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasync_crawler.mockapi.options import Options

BASE_PATH = "/api/v1"
_ENDPOINTS: dict[str, Endpoint] = {
    f"{BASE_PATH}/events/bulk": "bulk",
    f"{BASE_PATH}/events": "regular",
}


class MockServer:
    """Serves one `MockApi`; `address` holds the API's base URL once it listens."""

    def __init__(self, options: Options) -> None:
        self.api = MockApi(options)
        self.journal = Journal(options.journal)
        self.address = ""
        self._runner: web.ServerRunner | None = None
        self._count = 0

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
        self.journal.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.rstrip("/")
        if path.startswith("/__mock__/"):
            return await self._control(request, path)
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
        reply = self.api.answer(asked, Clock(time.monotonic(), time.time()))
        self.journal.note(asked, reply)
        delay_s = reply.delay_s + self.api.options.latency_ms / 1000
        if delay_s:
            await asyncio.sleep(delay_s)
        return await self._send(request, asked, reply)

    async def _send(
        self, request: web.BaseRequest, asked: ApiRequest, reply: Reply
    ) -> web.StreamResponse:
        headers = {"Content-Type": reply.content_type, **reply.headers}
        if self.api.options.gzip and asked.accepts_gzip and not reply.encoded:
            body = await asyncio.to_thread(gzip.compress, b"".join(reply.body), 1)
            reply = replace(reply.with_body(body), encoded=True)
            headers["Content-Encoding"] = "gzip"
        if reply.ending == "whole" and not reply.chunked and not reply.repeat_last:
            return web.Response(status=reply.status, body=b"".join(reply.body), headers=headers)
        response = web.StreamResponse(status=reply.status, headers=headers)
        # A client that leaves a body without end is what that body is for.
        with contextlib.suppress(ConnectionResetError):
            await self._send_badly(request, reply, response)
        return response

    async def _send_badly(
        self, request: web.BaseRequest, reply: Reply, response: web.StreamResponse
    ) -> None:
        """Send piece by piece, and end as the reply says."""
        transport = request.transport
        whole = b"".join(reply.body)
        if reply.chunked or reply.repeat_last:
            response.enable_chunked_encoding()
        else:
            response.content_length = len(whole)
        if reply.send_bytes is None or reply.send_bytes >= 0:
            await response.prepare(request)
            await response.write(whole[: reply.send_bytes])
        if reply.ending == "hang":
            # Until the client gives up or the server is stopped.
            await asyncio.Event().wait()
        while reply.repeat_last:
            await response.write(bytes(reply.body[-1]))
        if reply.ending == "whole":
            await response.write_eof()
        elif transport is not None:
            _end_badly(transport, reset=reply.ending == "reset")

    async def _control(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Answer tests: figures, and changes in mid-crawl. On loopback only."""
        if request.remote not in ("127.0.0.1", "::1"):
            return web.json_response({"error": "Only on loopback"}, status=403)
        if not _is_asked_by_us(request):
            return web.json_response({"error": "Foreign Host or Origin"}, status=403)
        if path == "/__mock__/stats" and request.method == "GET":
            return web.json_response({**self.journal.stats(), **self.api.stats()})
        if path == "/__mock__/config" and request.method == "POST":
            try:
                self.api.control(json.loads(await request.text()))
            except ValueError as error:
                return web.json_response({"error": str(error)}, status=400)
            return web.json_response({"ok": True})
        return web.json_response({"error": f"No control endpoint {path}"}, status=404)


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


def _end_badly(transport: asyncio.Transport, *, reset: bool) -> None:
    if reset:
        # SO_LINGER of zero seconds makes close() send RST instead of FIN.
        opened = transport.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()


async def _until_told(*, stop_with_stdin: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if stop_with_stdin:
        # A thread, since epoll refuses /dev/null and files; a daemon, since nothing ends its read.
        watch = threading.Thread(
            target=_watch_stdin, args=(lambda: loop.call_soon_threadsafe(stop.set),), daemon=True
        )
        watch.start()
    await stop.wait()


def _watch_stdin(tell: Callable[[], object]) -> None:
    while os.read(0, 4096):
        pass
    # The loop is closed when something else ended the mock in the same moment.
    with contextlib.suppress(RuntimeError):
        tell()


async def serve(options: Options) -> None:
    """Serve until SIGTERM, SIGINT or the end of standard input.

    Raises:
        ValueError: options that can't be served.
        OSError: the port is taken, the recording or the journal can't be opened.

    """
    server = MockServer(options)
    await server.start()
    sys.stdout.write(f"mock API listening on {server.address}\n")
    sys.stdout.flush()
    try:
        await _until_told(stop_with_stdin=options.stop_with_stdin)
    finally:
        await server.stop()


def run(options: Options) -> int:
    """Serve, and give the exit status: 0 told to end, 1 can't listen or read, 2 wrong options."""
    try:
        asyncio.run(serve(options))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        if error.filename is not None:
            return _complain(f"{error.filename}: {error.strerror}.")
        return _complain(
            f"The mock API can't listen on {options.host}:{options.port}"
            f" ({os.strerror(error.errno or 0)}): choose another port with --port, or --port 0"
            " for any free one."
        )
    return 0


def _complain(sentence: str) -> int:
    sys.stderr.write(sentence + "\n")
    return 1
