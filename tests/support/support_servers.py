"""A server over HTTP whose answers a function makes, and virtual servers behind it."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from virtual import Server

#: What a server makes of a query: headers and body of a 200, or a whole answer.
Answer = tuple[dict[str, str], Any] | tuple[int, dict[str, str], Any]


@contextlib.contextmanager
def serving(answer: Callable[[str, Mapping[str, str]], Answer | None]) -> Iterator[str]:
    """A server that answers (path, query) in JSON, None with 404; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            found = answer(parts.path, query) or (404, {}, {"error": "Not Found"})
            status, headers, content = found if len(found) == 3 else (200, *found)
            body = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):  # a client that was killed
                self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client was killed
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def serving_virtual(virtual: Server) -> Iterator[str]:
    """A virtual server over HTTP, one request at a time."""
    one_by_one = threading.Lock()

    def answer(path: str, query: Mapping[str, str]) -> Answer | None:
        if path != "/events/bulk":
            return None
        with one_by_one:
            ids, total = virtual.get(int(query["offset"]), int(query["limit"]))
        events = [{"id": one, "type": "click", "timestamp": 1_769_541_612_369} for one in ids]
        return {}, {"data": events, "meta": {} if total is None else {"total": total}}

    with serving(answer) as url:
        yield url
