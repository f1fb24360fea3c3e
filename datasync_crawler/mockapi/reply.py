"""The values that pass between the mock's rooms: a request, a page to serve, a reply to send.

Owns no behaviour but theirs. Must not know of aiohttp.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datasync_crawler.mockapi.sequence import Span
    from datasync_crawler.mockapi.source import Piece

Endpoint = Literal["bulk", "regular"]
Ending = Literal["whole", "cut", "reset", "hang"]


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request to an events endpoint; `number` counts them from 1."""

    number: int
    endpoint: Endpoint
    path: str
    query: Mapping[str, str]
    header_key: str | None
    accepts_gzip: bool = False

    @property
    def key_in_query(self) -> bool:
        """Whether the key travelled in the URL, which a crawler must never do."""
        return "api_key" in self.query


@dataclass(frozen=True, slots=True)
class Page:
    """A page before it is bytes: faults change it. A total of None is left out."""

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
    """The events one by one, once a fault has asked for them; else the spans are served."""

    @property
    def returned(self) -> int:
        """Events on the page."""
        if self.events is not None:
            return len(self.events)
        return sum(span.count for span in self.spans)


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent, and how it ends."""

    status: int
    body: tuple[Piece, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json; charset=utf-8"
    returned: int | None = None
    delay_s: float = 0.0
    ending: Ending = "whole"
    send_bytes: int | None = None
    """Bytes of the body that go out before a cut or a reset; None is all of it."""
    chunked: bool = False
    repeat_last: bool = False
    """The last piece of the body is sent for ever."""
    encoded: bool = False
    """The body is compressed already."""
    faults: tuple[str, ...] = ()

    @property
    def body_bytes(self) -> int:
        """Length of the whole body."""
        return sum(len(piece) for piece in self.body)

    def with_headers(self, more: Mapping[str, str]) -> Reply:
        """Add headers; the reply's own win."""
        return replace(self, headers={**more, **self.headers})

    def with_body(self, *pieces: Piece) -> Reply:
        """Put another body in."""
        return replace(self, body=pieces)


def json_reply(status: int, body: object, headers: Mapping[str, str] | None = None) -> Reply:
    """Give a small JSON reply."""
    encoded = json.dumps(body, separators=(",", ":")).encode()
    return Reply(status, (encoded,), headers or {})


def error_reply(status: int, error: str, message: str, code: str) -> Reply:
    """Give an error as the service words them."""
    return json_reply(status, {"error": error, "message": message, "code": code})
