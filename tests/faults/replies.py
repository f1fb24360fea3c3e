"""Replies that are no page, or a page that arrives badly: one class per misbehaviour."""

# What an overriding method does, its class says.
from __future__ import annotations

import asyncio
import contextlib
import math
import time
import zlib
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from aiohttp import web

from datasync_crawler.mockapi.faults import (
    THREE_IN_A_ROW,
    Fault,
    ServerError,
    TooManyRequests,
    When,
    fault,
)
from datasync_crawler.mockapi.reply import Reply, error_reply, json_reply, too_many_requests
from datasync_crawler.mockapi.server import end_connection
from faults.choices import ChoosingFault
from faults.pages import ALWAYS, events_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datasync_crawler.mockapi.faults import Scene
    from datasync_crawler.mockapi.reply import Page

FROM_THE_TENTH = When(start=10)
_MEGABYTE = 1_000_000
_NONSENSE = {"negative": "-5", "absurd": "99999999999999", "text": "soon"}


def _http_date(wait_s: int) -> str:
    return formatdate(math.ceil(time.time() + wait_s), usegmt=True)


@fault("429")
@dataclass(frozen=True)
class TooManyRequestsInForms(ChoosingFault, TooManyRequests):
    """429 for no visible reason; form: seconds, http-date, body-only, none, negative, absurd,
    text.
    """

    choices: ClassVar = {"form": ("seconds", "http-date", "body-only", "none", *_NONSENSE)}
    form: str = "seconds"

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        told = too_many_requests(self.retry_after)
        if self.form == "seconds":
            return told
        if self.form == "http-date":
            return replace(told, headers={"Retry-After": _http_date(self.retry_after)})
        if self.form == "body-only":
            return replace(told, headers={})
        headers = {"Retry-After": _NONSENSE[self.form]} if self.form in _NONSENSE else {}
        return too_many_requests(0, is_told=False).with_headers(headers)


@dataclass(frozen=True)
class _ServerErrorInForms(ChoosingFault, ServerError):
    choices: ClassVar = {"form": ("seconds", "http-date", *_NONSENSE)}
    form: str = "seconds"

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        told = super().on_reply(reply, scene)
        if self.retry_after < 0 or self.form == "seconds":
            return told
        value = _NONSENSE.get(self.form) or _http_date(self.retry_after)
        return replace(told, headers={"Retry-After": value})


@fault("502", THREE_IN_A_ROW)
@dataclass(frozen=True)
class BadGateway(_ServerErrorInForms):
    """502 from the load balancer, three in a row."""


@fault("503", THREE_IN_A_ROW)
@dataclass(frozen=True)
class UnavailableInForms(_ServerErrorInForms):
    """503 from the load balancer, three in a row; with Retry-After when retry_after is given."""


@fault("504", THREE_IN_A_ROW)
@dataclass(frozen=True)
class GatewayTimeout(_ServerErrorInForms):
    """504 from the load balancer, three in a row."""


@fault("401", FROM_THE_TENTH)
@dataclass(frozen=True)
class Unauthorized(Fault):
    """401 from the tenth request on: the key has expired."""

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        return error_reply(401, "Unauthorized", "API key has expired", "API_KEY_EXPIRED")


@fault("403", FROM_THE_TENTH)
@dataclass(frozen=True)
class Forbidden(Fault):
    """403 from the tenth request on: the key was withdrawn."""

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        return error_reply(403, "Forbidden", "API key was revoked", "FORBIDDEN")


@fault("cursor-expired")
@dataclass(frozen=True)
class CursorExpired(Fault):
    """400 CURSOR_EXPIRED for a request with a cursor."""

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        if not scene.request.query.get("cursor"):
            return reply
        return error_reply(400, "Bad Request", "Cursor has expired", "CURSOR_EXPIRED")


@fault("redirect")
@dataclass(frozen=True)
class Redirect(Fault):
    """302 to another host (to=URL)."""

    to: str = "http://other-host.invalid/api/v1/events/bulk"

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        return Reply(302, (), {"Location": self.to})


async def _send_reset(
    request: web.BaseRequest, reply: Reply, headers: Mapping[str, str]
) -> web.StreamResponse:
    end_connection(request, reset=True)
    return web.Response()


async def _send_chunked(
    request: web.BaseRequest, reply: Reply, headers: Mapping[str, str]
) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.enable_chunked_encoding()
    with contextlib.suppress(ConnectionResetError):  # the client has left
        await response.prepare(request)
        await response.write(b"".join(reply.body)[: reply.send_bytes])
        if reply.ending == "whole":
            await response.write_eof()
    if reply.ending != "whole":
        end_connection(request, reset=reply.ending == "reset")
    return response


async def _send_endlessly(
    request: web.BaseRequest, reply: Reply, headers: Mapping[str, str]
) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.enable_chunked_encoding()
    with contextlib.suppress(ConnectionResetError):  # the client has left, as it should
        await response.prepare(request)
        await response.write(b"".join(reply.body))
        while True:
            await response.write(bytes(reply.body[-1]))
    return response


async def _send_and_hang(
    request: web.BaseRequest, reply: Reply, headers: Mapping[str, str]
) -> web.StreamResponse:
    if reply.send_bytes:
        response = web.StreamResponse(status=reply.status, headers=headers)
        response.content_length = reply.body_bytes
        with contextlib.suppress(ConnectionResetError):
            await response.prepare(request)
            await response.write(b"".join(reply.body)[: reply.send_bytes])
    await asyncio.Event().wait()  # until the client gives up or the server is stopped
    raise AssertionError("nothing sets the event")


@fault("reset-before")
@dataclass(frozen=True)
class ResetBefore(Fault):
    """The connection is reset before a byte of the response."""

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        return replace(reply, send=_send_reset)


@fault("cut-chunked")
@dataclass(frozen=True)
class CutChunked(Fault):
    """A chunked body ends without its last chunk (after the share `at`)."""

    at: float = 0.5

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        sent = int(reply.body_bytes * self.at)
        return replace(reply, ending="cut", send_bytes=sent, send=_send_chunked)


@fault("chunked", ALWAYS)
@dataclass(frozen=True)
class Chunked(Fault):
    """The body comes chunked, whole and without Content-Length: no error."""

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        return replace(reply, send=_send_chunked)


@fault("html")
@dataclass(frozen=True)
class Html(Fault):
    """200 with an HTML page."""

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        body = b"<!DOCTYPE html><html><body><h1>Please wait</h1></body></html>"
        return Reply(200, (body,), content_type="text/html")


@fault("empty-body")
@dataclass(frozen=True)
class EmptyBody(Fault):
    """200 with no byte in the body."""

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        return Reply(200)


@fault("half-json")
@dataclass(frozen=True)
class HalfJson(Fault):
    """200 with half a JSON document, its Content-Length right."""

    at: float = 0.5

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        whole = b"".join(reply.body)
        return replace(reply, body=(whole[: int(len(whole) * self.at)],))


@fault("null-body")
@dataclass(frozen=True)
class NullBody(Fault):
    """200 with `null`."""

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        return json_reply(200, None)


@fault("error-object")
@dataclass(frozen=True)
class ErrorObject(Fault):
    """200 with an error object."""

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        return error_reply(200, "Internal", "Something went wrong", "INTERNAL_ERROR")


@fault("hang")
@dataclass(frozen=True)
class Hang(Fault):
    """No response ever; with mid=true, headers and half the body, then nothing more."""

    mid: bool = False

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        sent = reply.body_bytes // 2 if self.mid else 0
        return replace(reply, send=_send_and_hang, send_bytes=sent)


@fault("slow")
@dataclass(frozen=True)
class Slow(Fault):
    """The response comes late, by delay_ms."""

    delay_ms: int = 2000

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        return replace(reply, delay_s=reply.delay_s + self.delay_ms / 1000)


@fault("endless")
@dataclass(frozen=True)
class Endless(Fault):
    """A body without end: the page's events again and again."""

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        events = reply.body[1:-1]
        again = b",".join((b"", *(piece for piece in events if piece != b",")))
        return replace(reply, body=(*reply.body[:-1], again or b" "), send=_send_endlessly)


@lru_cache(maxsize=2)
def _bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    megabyte = b" " * _MEGABYTE
    parts = [packer.compress(b'{"data":[')]
    parts += [packer.compress(megabyte) for _ in range(megabytes)]
    parts += [packer.compress(b"]}"), packer.flush()]
    return b"".join(parts)


@fault("gzip-bomb")
@dataclass(frozen=True)
class GzipBomb(Fault):
    """A small gzip body that unpacks to `megabytes` MB."""

    megabytes: int = 300

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        headers = {**reply.headers, "Content-Encoding": "gzip"}
        return replace(reply, body=(_bomb(self.megabytes),), headers=headers, returned=None)


@dataclass(frozen=True)
class _FirstEvent(Fault):
    """Puts something in the place of the page's first event."""

    def first(self) -> bytes:
        """Give what stands there instead."""
        raise NotImplementedError

    def on_page(self, page: Page, scene: Scene) -> Page:
        events = events_of(page, scene)
        return replace(page, events=(self.first(), *events[1:])) if events else page


@fault("deep-nesting")
@dataclass(frozen=True)
class DeepNesting(_FirstEvent):
    """The page's first event is nested `levels` deep."""

    levels: int = 100_000

    def first(self) -> bytes:
        return b'{"id":"deep","properties":' + b"[" * self.levels + b"]" * self.levels + b"}"


@fault("huge-string")
@dataclass(frozen=True)
class HugeString(_FirstEvent):
    """The page's first event holds a string of `megabytes` MB."""

    megabytes: int = 50

    def first(self) -> bytes:
        return b'{"id":"huge","name":"' + b"x" * (self.megabytes * _MEGABYTE) + b'"}'


@fault("nan")
@dataclass(frozen=True)
class NotANumber(ChoosingFault, _FirstEvent):
    """The page's first event holds `value` (NaN, Infinity, -Infinity), which is no JSON."""

    choices: ClassVar = {"value": ("NaN", "Infinity", "-Infinity")}
    value: str = "NaN"

    def first(self) -> bytes:
        return b'{"id":"nan","properties":{"value":%s}}' % self.value.encode()


@fault("bad-rate-headers", ALWAYS)
@dataclass(frozen=True)
class BadRateHeaders(ChoosingFault):
    """Nonsense in the rate headers; say: text, negative, absurd."""

    choices: ClassVar = {"say": ("text", "negative", "absurd")}
    say: str = "text"

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        value = {"text": "banana", "negative": "-7", "absurd": "1e400"}[self.say]
        names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
        return replace(reply, headers={**reply.headers, **dict.fromkeys(names, value)})


@fault("rate-headers", ALWAYS)
@dataclass(frozen=True)
class RateHeaders(Fault):
    """Rate headers of your choice: limit, remaining, reset, as they are."""

    limit: str = "10"
    remaining: str = "9"
    reset: str = "60"

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        said = {
            "X-RateLimit-Limit": self.limit,
            "X-RateLimit-Remaining": self.remaining,
            "X-RateLimit-Reset": self.reset,
        }
        return replace(reply, headers={**reply.headers, **said})


@fault("extra-envelope", ALWAYS)
@dataclass(frozen=True)
class ExtraEnvelope(Fault):
    """A field more at the top of the body, which a crawler must not mind."""

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        head, *rest = reply.body
        if bytes(head) != b'{"data":[':
            return reply
        return replace(reply, body=(b'{"apiVersion":"9","data":[', *rest))
