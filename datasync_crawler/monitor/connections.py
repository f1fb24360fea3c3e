"""How many connections the page holds, and how long one may take.

A page in a crawl shares the crawl's file descriptors and event loop, so a connection beyond the
bounds is closed. Must not know requests or responses.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

#: Connections at a time. 1,100 idle ones took all descriptors of a crawl, and half its rate.
MOST_CONNECTIONS: Final = 100
#: Accepted before they are counted: so many more may be open for a moment.
BACKLOG: Final = 16
#: A connection that isn't a stream is closed after this, in seconds; so is a stream whose reader
#: takes nothing for so long.
PATIENCE_S: Final = 10.0


class Connections:
    """Makes the protocol of each connection; given to ``loop.create_server``."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._streams: set[RequestHandler] = set()

    def __call__(self) -> asyncio.Protocol:
        """The protocol for a connection that was accepted."""
        if len(self._server.connections) >= MOST_CONNECTIONS:
            return _Refused()
        handler = self._server()
        self._end_later(handler)
        return handler

    @contextlib.contextmanager
    def streaming(self, request: web.Request) -> Iterator[None]:
        """While inside, the request's connection may live as long as its reader keeps up."""
        handler = request.protocol
        self._streams.add(handler)
        try:
            yield
        finally:
            self._streams.discard(handler)
            self._end_later(handler)  # the reader may still take what is buffered

    def _end_later(self, handler: RequestHandler) -> None:
        asyncio.get_running_loop().call_later(PATIENCE_S, self._end, handler)

    def _end(self, handler: RequestHandler) -> None:
        if handler.transport is not None and handler not in self._streams:
            handler.transport.abort()


class _Refused(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
