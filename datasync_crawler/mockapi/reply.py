"""Values of one request to the mock: request, page and reply."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp import web

    from datasync_crawler.mockapi.sequence import Span
    from datasync_crawler.mockapi.source import Piece

    Sender = Callable[[web.BaseRequest, "Reply", Mapping[str, str]], Awaitable[web.StreamResponse]]

Endpoint = Literal["bulk", "regular"]
Ending = Literal["whole", "cut", "reset"]


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request to an events endpoint; `number` counts them from 1."""

    number: int
    endpoint: Endpoint
    path: str
    query: Mapping[str, str]
    header_key: str | None
    accepts_gzip: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A page before it is rendered, which faults may change. A total of None is left out."""

    offset: int
    limit: int
    spans: tuple[Span, ...]
    echoed_limit: int
    header_total: object
    body_total: object
    has_more: bool | None
    next_cursor: str | None = None
    cursor_expires_in_s: int | None = None
    events: tuple[bytes, ...] | None = None
    """The events one by one, where a fault changed them; else the spans are served."""

    @property
    def returned(self) -> int:
        """Events on the page."""
        if self.events is not None:
            return len(self.events)
        return sum(span.count for span in self.spans)


@dataclass(frozen=True, slots=True)
class Reply:
    """A response and how it ends."""

    status: int
    body: tuple[Piece, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json; charset=utf-8"
    returned: int | None = None
    delay_s: float = 0.0
    ending: Ending = "whole"
    send_bytes: int | None = None
    """Bytes of the body that are sent; None means all."""
    send: Sender | None = None
    """Replaces the server's own way of sending."""
    faults: tuple[str, ...] = ()

    @property
    def body_bytes(self) -> int:
        """Length of the whole body."""
        return sum(len(piece) for piece in self.body)

    def with_headers(self, more: Mapping[str, str]) -> Reply:
        """Add headers; the reply's own win."""
        return replace(self, headers={**more, **self.headers})


def json_reply(status: int, body: object, headers: Mapping[str, str] | None = None) -> Reply:
    """Builds a small JSON reply."""
    encoded = json.dumps(body, separators=(",", ":")).encode()
    return Reply(status, (encoded,), headers or {})


def error_reply(status: int, error: str, message: str, code: str) -> Reply:
    """Builds an error reply in the API's wording."""
    return json_reply(status, {"error": error, "message": message, "code": code})


def too_many_requests(wait_s: int, limit: int | None = None, *, is_told: bool = True) -> Reply:
    """Builds a 429 in the API's wording; with `is_told`, header and body hold the wait."""
    body: dict[str, object] = {
        "error": "Too Many Requests",
        "message": "Rate limit exceeded",
        "code": "RATE_LIMIT_EXCEEDED",
    }
    if not is_told:
        return json_reply(429, body)
    told = {"remaining": 0, "reset": wait_s, "retryAfter": wait_s}
    body["rateLimit"] = told if limit is None else {"limit": limit, **told}
    return json_reply(429, body, {"Retry-After": str(wait_s)})
