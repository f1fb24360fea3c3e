"""Scrapy's HTTP/1.1 handler with verified certificates and bounds on headers and bodies.

Must not know of keys, pages or rate limits.
"""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from scrapy.core.downloader.handlers.http11 import (
    HTTP11DownloadHandler,
    TunnelError,
    _LenientHTTP11ClientFactory,
    _LenientHTTP11ClientProtocol,
    _LenientHTTPClientParser,
    _TunnelingTCP4ClientEndpoint,
)
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.web.client import HTTPConnectionPool

from datasync_crawler.handlers.tls import VerifyingPolicy

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from twisted.internet.interfaces import IAddress

#: Bytes of bodies held at most, those that wait for their commit included. A page takes up to five
#: times its body until it is stored: with pages of 60 MB the process takes 500 MB. Pages of 1.7 MB
#: are as fast with this bound as without: the database is the bottleneck by then.
MOST_BYTES: Final = 64 * 1024 * 1024
#: Of one response, interim ones (1xx) included. Servers accept 8 to 64 kB from a client.
MOST_HEADER_BYTES: Final = 65_536
MOST_HEADER_LINES: Final = 500
#: Seconds between two checks whether a paused connection may be read again.
RETRY_S: Final = 0.02


class BoundedHandler(HTTP11DownloadHandler):
    """Replaces HTTP11DownloadHandler. Setting: DOWNLOAD_VERIFY_CERTIFICATES."""

    def __init__(self, crawler: "Crawler") -> None:
        super().__init__(crawler)
        if crawler.settings.getbool("DOWNLOAD_VERIFY_CERTIFICATES"):
            self._contextFactory = VerifyingPolicy(self._contextFactory)  # type: ignore[assignment]
        self._pool.__class__ = _Pool  # Scrapy gives no other way to its tunnels
        self._pool._factory = partial(_Factory, Room(crawler))  # type: ignore[assignment]


class TooManyHeaders(Exception):
    """The headers of a response exceed the bounds. Raised by the parser."""


class Room:
    """The memory that is left for bodies. Where there is none, connections aren't read for a while,
    and the server waits (TCP flow control).
    """

    def __init__(self, crawler: "Crawler") -> None:
        self._crawler = crawler
        self.connections: WeakSet[_Connection] = WeakSet()

    def is_left_for(self, connection: "_Connection") -> bool:
        """Whether *connection* may be read. The one that holds most may: so one always ends."""
        held = [other.held for other in self.connections]
        waiting = bytes_waiting(self._crawler)
        if sum(held) + waiting <= MOST_BYTES:
            return True
        return waiting <= MOST_BYTES // 2 and connection.held >= max(held, default=0)


def bytes_waiting(crawler: "Crawler") -> int:
    """Bodies that are being parsed or wait for their commit, in bytes."""
    engine = crawler.engine
    slot = engine.scraper.slot if engine is not None else None
    return slot.active_size if slot is not None else 0


class _Parser(_LenientHTTPClientParser):
    """Counts header lines and bytes."""

    header_lines = 0
    header_bytes = 0

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - Twisted's
        self.header_lines += 1
        self.header_bytes += len(line)
        if self.header_lines > MOST_HEADER_LINES or self.header_bytes > MOST_HEADER_BYTES:
            raise TooManyHeaders(
                f"The response's headers are longer than {MOST_HEADER_LINES} lines or "
                f"{MOST_HEADER_BYTES:,} bytes."
            )
        super().lineReceived(line)


class _Connection(_LenientHTTP11ClientProtocol):
    """One connection, for one response after another."""

    def __init__(self, room: Room, quiescent: Any) -> None:
        super().__init__(quiescent)  # type: ignore[no-untyped-call]
        self._room = room
        self._received = 0
        room.connections.add(self)

    @property
    def held(self) -> int:
        """Bytes of the response that is being read."""
        return 0 if self.state in {"QUIESCENT", "CONNECTION_LOST"} else self._received

    def request(self, request: Any) -> Any:
        """Twisted's: sends a request; returns a Deferred of the response."""
        self._received = 0
        response = super().request(request)
        # Twisted has no other way to set the parser; Scrapy 2.19 does the same.
        assert self._parser is not None
        self._parser.__class__ = _Parser
        return response

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's
        """Twisted's, with up to 64 kB a call."""
        self._received += len(data)
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if self.held and not self._room.is_left_for(self):
            self.transport.pauseProducing()  # type: ignore[union-attr]
            asyncio.get_running_loop().call_later(RETRY_S, self._resume_if_room)

    def _resume_if_room(self) -> None:
        if self.state == "CONNECTION_LOST":
            return
        if self.held and not self._room.is_left_for(self):
            asyncio.get_running_loop().call_later(RETRY_S, self._resume_if_room)
            return
        self.transport.resumeProducing()  # type: ignore[union-attr]


class _Factory(_LenientHTTP11ClientFactory):
    """Builds the pool's connections."""

    def __init__(self, room: Room, quiescent: Any, metadata: str) -> None:
        super().__init__(quiescent, metadata)  # type: ignore[no-untyped-call]
        self._room = room

    def buildProtocol(self, addr: "IAddress | None") -> _Connection:  # noqa: N802 - Twisted's
        """Twisted's."""
        del addr
        return _Connection(self._room, self._quiescentCallback)


class _Pool(HTTPConnectionPool):
    """Twisted's, which opens tunnels through a proxy with a bound."""

    def _newConnection(self, key: Any, endpoint: Any) -> Any:  # noqa: N802 - Twisted's
        if isinstance(endpoint, _TunnelingTCP4ClientEndpoint):
            endpoint.__class__ = _Tunnel
        return super()._newConnection(key, endpoint)


class _Tunnel(_TunnelingTCP4ClientEndpoint):
    """A tunnel whose proxy's answer is bounded, and whose connection ends with the attempt.

    Scrapy 2.19 keeps whatever the proxy sends, also after the download's timeout.
    """

    _protocol: Any = None

    def connect(self, protocolFactory: Any) -> "Deferred[Any]":  # noqa: N803 - Twisted's
        """Scrapy's, but what it returns can be cancelled."""
        self._protocolFactory = protocolFactory
        connecting = TCP4ClientEndpoint.connect(self, protocolFactory)

        def hang_up(_: object) -> None:
            if self._protocol is None:
                connecting.cancel()
            else:
                self._protocol.transport.abortConnection()

        self._tunnelReadyDeferred = Deferred(hang_up)
        connecting.addCallback(self.requestTunnel).addErrback(self.connectFailed)
        return self._tunnelReadyDeferred

    def processProxyResponse(self, data: bytes) -> None:  # noqa: N802 - Scrapy's
        """Scrapy's, with up to 64 kB a call."""
        super().processProxyResponse(data)
        answer = self._connectBuffer
        if self._tunnelReadyDeferred.called:
            found = self._responseMatcher.match(answer)
            is_open = found is not None and found["status"] == b"200"
        else:
            is_open = len(answer) <= MOST_HEADER_BYTES
        if not is_open and not self._tunnelReadyDeferred.called:
            said = f"The proxy's answer is longer than {MOST_HEADER_BYTES:,} bytes"
            self._tunnelReadyDeferred.errback(TunnelError(said))
        if not is_open:
            self._protocol.transport.abortConnection()
