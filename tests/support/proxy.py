"""A TCP proxy between a client and PostgreSQL that cuts connections where a test says.

It speaks no protocol: it looks for bytes in what the client sends. Connections are cut on both
sides, or, to leave the server's backend behind, only on the client's.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

#: Called with the bytes the client sent: True cuts here.
Watch = Callable[[bytes], bool]

COMMIT = b"COMMIT\0"


class CuttingProxy:
    """Forwards to *host*:*port*. Each `cut_…` holds for one cut."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        self._hangs = self._is_apart = False
        self._before: Watch | None = None
        self._after: Watch | None = None
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._kept: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # close() alone lets one more connection in
        self._listener.close()
        for pair in [*self._pairs, self._kept]:
            for end in pair:
                _hang_up(end)

    def cut_before(self, sent: bytes) -> None:
        """Cuts when the client sends *sent*, which the server never sees."""
        self._before = lambda data: sent in data

    def cut_after(self, sent: bytes) -> None:
        """Lets *sent* through, and cuts when the server answers: the client never hears it."""
        self._after = lambda data: sent in data

    def cut_client_sides(self) -> None:
        """Cuts what is open now as a partition does: the server isn't told."""
        for client, upstream in self._pairs:
            self._kept.append(upstream)
            _hang_up(client)

    def reset_client_sides(self, last: bytes) -> None:
        """Resets what is open now, behind *last* from the server: a minute after it has crashed,
        TCP's keepalive finds nobody at its end.
        """
        for client, _ in self._pairs:
            with contextlib.suppress(OSError):
                client.sendall(last)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            _hang_up(client)

    def part(self) -> None:
        """No network from now until `join`: the client is told, the server isn't."""
        self._is_apart = True
        self.cut_client_sides()

    def join(self) -> None:
        """The network is back; what the server still keeps of the time before, it keeps."""
        self._is_apart = False

    def hang(self) -> None:
        """From now on nothing is passed on, and nothing closed: a server that doesn't answer."""
        self._hangs = True

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    if self._is_apart:
                        raise ConnectionError
                    upstream = socket.create_connection(self._upstream)
                except OSError:
                    _hang_up(client)
                    continue
                pair = (client, upstream)
                self._pairs.append(pair)
                threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, client: socket.socket, upstream: socket.socket) -> None:
        deaf = False
        with contextlib.suppress(OSError, ValueError):
            while True:
                for end in select.select([client, upstream], [], [])[0]:
                    data = end.recv(1 << 20)
                    if not data:
                        raise ConnectionError
                    if self._hangs:
                        continue
                    if end is upstream:
                        if deaf:
                            self.cuts += 1
                            raise ConnectionError
                        client.sendall(data)
                        continue
                    if self._before is not None and self._before(data):
                        self._before = None
                        self.cuts += 1
                        raise ConnectionError
                    if self._after is not None and self._after(data):
                        self._after, deaf = None, True
                    upstream.sendall(data)
        _hang_up(client)
        if upstream not in self._kept:
            _hang_up(upstream)


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
