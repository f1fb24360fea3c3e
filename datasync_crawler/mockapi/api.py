"""The mock API without HTTP: a function from a request value to a reply value.

Owns keys, limits, paging, cursors and the order in which faults apply. Must not do I/O or read a
clock: the server passes the time in.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from datasync_crawler.mockapi import limits
from datasync_crawler.mockapi.faults import Scene, parse_fault
from datasync_crawler.mockapi.reply import (
    ApiRequest,
    Page,
    Reply,
    error_reply,
    too_many_requests,
)
from datasync_crawler.mockapi.sequence import NEWEST_FIRST, EventSequence
from datasync_crawler.mockapi.source import (
    EventSource,
    GeneratedEvents,
    PageStore,
    RecordedEvents,
    read_recording,
)

if TYPE_CHECKING:
    from datasync_crawler.mockapi.options import Options

DEFAULT_EVENTS = 100_000
DEFAULT_LIMIT = 100


class MockApi:
    """The mock API with the given `options`.

    Raises ValueError for an unknown fault and OSError for a recording that can't be read.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.faults = [parse_fault(spec) for spec in options.fault]
        self.store = self.make_store()
        total, most = options.events, self.store.source.total
        if total is None:
            total = DEFAULT_EVENTS if most is None else most
        self.sequence = EventSequence(total if most is None else min(total, most), options.order)
        self.limiters: dict[str, limits.Limiter] = {}
        """The rate limiter of each key that has been used."""
        self.accepted = 0
        """Requests with the right key that the rate limit let through."""

    def make_store(self) -> PageStore:
        """Builds the event source from the options and the faults."""
        return PageStore(self._source(), self.options.cache_mb * 1_000_000)

    def _limiter(self, key: str) -> limits.Limiter | None:
        chosen = self.options
        if chosen.rate_limit is None:
            return None
        if key not in self.limiters:
            self.limiters[key] = limits.make_limiter(
                chosen.limiter, chosen.rate_limit, chosen.rate_window
            )
        return self.limiters[key]

    def _source(self) -> EventSource:
        if self.options.replay is None:
            source = GeneratedEvents(self.options.seed)
            for armed in self.faults:
                source = armed.fault.on_source(source)
            return source
        for armed in self.faults:
            if armed.fault.needs_generated:
                name = armed.fault.fault_name
                raise ValueError(f"Fault {name} makes events up, which a --replay can't.")
        newest_first = self.options.order == NEWEST_FIRST
        return RecordedEvents(read_recording(Path(self.options.replay)), newest_first=newest_first)

    def answer(self, request: ApiRequest, now_s: float) -> Reply:
        """Answers one request to an events endpoint; `now_s` is monotonic."""
        key = request.header_key
        if key is None or key not in (self.options.api_key, *self.options.other_key):
            return error_reply(401, "Unauthorized", "Invalid or missing API key", "UNAUTHORIZED")
        expires = self.options.key_expires_after
        if expires is not None and self.accepted >= expires:
            return error_reply(401, "Unauthorized", "API key has expired", "API_KEY_EXPIRED")
        headers: dict[str, str] = {}
        limiter = self._limiter(key)
        if limiter is not None:
            verdict, style = limiter.hit(now_s), self.options.rate_headers
            headers = limits.rate_headers(verdict, style, self.options.rate_window)
            if not verdict.allowed:
                wait_s = math.ceil(verdict.retry_after_s)
                reply = too_many_requests(wait_s, verdict.limit, is_told=style != "none")
                return reply.with_headers(headers)
        self.accepted += 1
        try:
            reply = self._page_reply(request, now_s)
        except _BadRequestError as error:
            reply = error_reply(400, "Bad Request", str(error), error.code)
        return reply.with_headers(headers)

    def _page_reply(self, request: ApiRequest, now_s: float) -> Reply:
        if request.endpoint == "bulk" and not self.options.bulk:
            message = "Event with id 'bulk' not found"
            return error_reply(404, "Not Found", message, "EVENT_NOT_FOUND")
        limit = self._limit(request)
        offset = self._offset(request, now_s)
        asked = range(offset, offset + limit)
        struck = [armed.fault for armed in self.faults if armed.strikes(request.number, asked)]
        scene = Scene(request, self.sequence, self.store)
        for fault in struck:
            fault.on_sequence(scene)
        page = self._page(scene, offset, limit, now_s)
        for fault in struck:
            page = fault.on_page(page, scene)
        reply = self._render(page)
        for fault in struck:
            reply = fault.on_reply(reply, scene)
        return replace(reply, faults=tuple(fault.fault_name for fault in struck))

    def _limit(self, request: ApiRequest) -> int:
        limit = _number(request, "limit", DEFAULT_LIMIT)
        if limit < 1:
            raise _BadRequestError("limit must be at least 1", "INVALID_LIMIT")
        if limit > self.options.max_limit and self.options.over_limit == "error":
            message = f"limit must be at most {self.options.max_limit}"
            raise _BadRequestError(message, "INVALID_LIMIT")
        return min(limit, self.options.max_limit)

    def _offset(self, request: ApiRequest, now_s: float) -> int:
        """Returns the requested offset; the regular endpoint takes a cursor only."""
        if request.endpoint == "bulk":
            offset = _number(request, "offset", 0)
            if offset < 0:
                raise _BadRequestError("offset must not be negative", "INVALID_OFFSET")
            return offset
        text = request.query.get("cursor")
        if not text:
            return 0
        try:
            cursor = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            older, expires_s = int(cursor["left"]), float(cursor["exp"])
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise _BadRequestError("Cursor can't be read", "INVALID_CURSOR") from error
        if expires_s < now_s:
            raise _BadRequestError("Cursor has expired", "CURSOR_EXPIRED")
        return max(0, self.sequence.total - older)

    def _page(self, scene: Scene, offset: int, limit: int, now_s: float) -> Page:
        total = self.sequence.total
        page = Page(
            offset=offset,
            limit=limit,
            spans=scene.spans(offset, limit),
            echoed_limit=limit,
            header_total=total,
            body_total=total,
            has_more=offset + limit < total,
        )
        if not page.spans or not page.has_more or self.options.shape != "full":
            return page
        place, ttl_s = offset + page.returned, self.options.cursor_ttl
        # The number of older events: it stays right when newer events are added.
        left = total - place if page.spans[-1].backwards else place - 1
        cursor = json.dumps({"exp": now_s + ttl_s, "left": left, "v": 2}, separators=(",", ":"))
        packed = base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")
        return replace(page, next_cursor=packed, cursor_expires_in_s=int(ttl_s))

    def _render(self, page: Page) -> Reply:
        pieces = self.store.pieces(page.spans) if page.events is None else [b",".join(page.events)]
        before, after = b'{"data":[', b"]}"
        if self.options.shape == "list":
            before, after = b"[", b"]"
        elif self.options.shape == "full":
            tail = {"pagination": _pagination(page), "meta": _meta(page)}
            after = b"]," + json.dumps(tail, separators=(",", ":")).encode()[1:]
        headers = {} if page.header_total is None else {"X-Total-Count": str(page.header_total)}
        return Reply(200, (before, *pieces, after), headers, returned=page.returned)


class _BadRequestError(Exception):
    """A 400, raised where the parameter is read and answered in `answer`."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def _number(request: ApiRequest, name: str, default: int) -> int:
    try:
        return int(request.query.get(name, default))
    except ValueError as error:
        raise _BadRequestError(f"{name} must be a number", f"INVALID_{name.upper()}") from error


def _pagination(page: Page) -> dict[str, object]:
    said: dict[str, object] = {"limit": page.echoed_limit}
    if page.has_more is not None:
        said["hasMore"] = page.has_more
    if page.next_cursor is not None:
        said["nextCursor"] = page.next_cursor
        said["cursorExpiresIn"] = page.cursor_expires_in_s
    return said


def _meta(page: Page) -> dict[str, object]:
    said: dict[str, object] = {} if page.body_total is None else {"total": page.body_total}
    return {**said, "returned": page.returned, "requestId": str(uuid.uuid4())}
