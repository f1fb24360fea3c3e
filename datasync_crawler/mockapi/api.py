"""The DataSync API itself: a request comes in as a value, a reply goes out as a value.

Owns keys, limits, paging, the cursor and the order in which faults step in. No HTTP and no clock of
its own: the server passes both in.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from datasync_crawler.mockapi import badevents, limits, options
from datasync_crawler.mockapi.catalogue import parse_fault
from datasync_crawler.mockapi.faults import Scene
from datasync_crawler.mockapi.reply import ApiRequest, Page, Reply, error_reply, json_reply
from datasync_crawler.mockapi.sequence import EventSequence
from datasync_crawler.mockapi.source import (
    EventSource,
    GeneratedEvents,
    PageStore,
    ReplayedEvents,
    read_recording,
)

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_EVENTS = 100_000
DEFAULT_PAGE = 100


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_place(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


_ACTIONS: dict[str, Callable[[object], bool]] = {
    "grow": _is_count,
    "insert": _is_place,
    "delete": _is_place,
    "expire_cursors": lambda value: value is True,
}


@dataclass(frozen=True, slots=True)
class Clock:
    """The time of one request: monotonic seconds and seconds since the epoch."""

    monotonic_s: float
    epoch_s: float


class MockApi:
    """The fake service, as `options` describe it."""

    def __init__(self, given: options.Options) -> None:
        """Read the recording and the faults.

        Raises:
            ValueError: an unknown fault, more events than the recording has.
            OSError: the recording can't be read.

        """
        self.options = given
        self.faults = [parse_fault(spec) for spec in given.fault]
        source = self._source()
        total = given.events
        if total is None:
            total = DEFAULT_EVENTS if source.total is None else source.total
        elif source.total is not None:
            total = min(total, source.total)
        self.sequence = EventSequence(total, given.order)
        self.store = PageStore(source, given.cache_mb * 1_000_000)
        self.accepted = 0
        self._cursor_series = 0
        self._limiter = self._make_limiter(1)
        self._query_limiter = self._make_limiter(2)

    def _source(self) -> EventSource:
        if self.options.replay is not None:
            for armed in self.faults:
                if armed.fault.needs_generated:
                    msg = f"Fault {armed.name} makes events up, which a --replay can't."
                    raise ValueError(msg)
            newest_first = self.options.order == "newest-first"
            events = read_recording(Path(self.options.replay))
            return ReplayedEvents(events, newest_first=newest_first)
        plan = badevents.plan_of(armed.fault for armed in self.faults)
        seed, timestamps = self.options.seed, self.options.timestamps
        overlay = None if plan is None else badevents.Overlay(seed, timestamps, plan)
        return GeneratedEvents(seed, timestamps, overlay)

    def _make_limiter(self, divisor: int) -> limits.Limiter | None:
        limit = self.options.rate_limit
        if limit is None:
            return None
        share = max(1, limit // divisor)
        return limits.make_limiter(self.options.limiter, share, self.options.rate_window)

    def reconfigure(self, given: options.Options) -> None:
        """Take changed options over in mid-crawl; what was counted in a window stays counted.

        Raises:
            ValueError: an unknown fault, or more events than the recording has.

        """
        before, faults = self.options, [parse_fault(spec) for spec in given.fault]
        most = self.store.source.total
        if most is not None and (given.events or 0) > most:
            raise ValueError(f"The recording has only {most} events.")
        self.options = given
        if given.fault != before.fault:
            armed = {one.spec: one for one in self.faults}
            self.faults = [armed.get(one.spec, one) for one in faults]
            self.store = PageStore(self._source(), given.cache_mb * 1_000_000)
        if given.events is not None and given.events != before.events:
            self.sequence.resize(given.events)
        self.sequence.order = given.order
        if given.key_expires_after != before.key_expires_after:
            self.accepted = 0
        self._change_limit(before)

    def _change_limit(self, before: options.Options) -> None:
        now = self.options
        kept = (now.limiter, now.rate_window) == (before.limiter, before.rate_window)
        if kept and self._limiter and self._query_limiter and now.rate_limit:
            self._limiter.limit = now.rate_limit
            self._query_limiter.limit = max(1, now.rate_limit // 2)
        elif (now.limiter, now.rate_window, now.rate_limit) != (
            before.limiter, before.rate_window, before.rate_limit,
        ):  # fmt: skip
            self._limiter = self._make_limiter(1)
            self._query_limiter = self._make_limiter(2)

    def control(self, changes: object) -> None:
        """Change options in mid-crawl; `grow`, `insert`, `delete` and `expire_cursors` too.

        `{"grow": n}` adds newer events, `{"insert": [offset, n]}` and `{"delete": [offset, n]}`
        shift offsets, `{"expire_cursors": true}` makes every cursor given so far expire.

        Raises:
            ValueError: an unknown name or a wrong value; nothing is changed then.

        """
        if not isinstance(changes, dict):
            raise ValueError("The body must be an object of options.")  # noqa: TRY004 - one kind
        changes = dict(changes)
        actions = {name: changes.pop(name) for name in list(changes) if name in _ACTIONS}
        for name, value in actions.items():
            if not _ACTIONS[name](value):
                msg = f"{name}: {value!r} is not a value for it."
                raise ValueError(msg)
        if self.store.source.total is not None and actions.keys() & {"grow", "insert"}:
            raise ValueError("A recording can't grow.")
        self.reconfigure(options.changed(self.options, changes))
        grow, insert, delete = (actions.get(name) for name in ("grow", "insert", "delete"))
        if isinstance(grow, int):
            self.sequence.grow(grow)
        if isinstance(insert, list):
            self.sequence.insert(*insert)
        if isinstance(delete, list):
            self.sequence.delete(*delete)
        self._cursor_series += bool(actions.get("expire_cursors"))

    def stats(self) -> dict[str, object]:
        """Give total, the set as runs of indices (first, count), how often each fault struck."""
        return {
            "total": self.sequence.total,
            "runs": self.sequence.runs,
            "order": self.sequence.order,
            "struck": {armed.spec: armed.struck for armed in self.faults},
        }

    def answer(self, request: ApiRequest, clock: Clock) -> Reply:
        """Answer one request to an events endpoint."""
        refused = self._check_key(request)
        if refused is not None:
            return refused
        limiter = self._query_limiter if request.header_key is None else self._limiter
        headers: dict[str, str] = {}
        if limiter is not None:
            verdict = limiter.hit(clock.monotonic_s)
            headers = self._budget_headers(verdict, clock)
            if not verdict.allowed:
                return self._refusal(verdict, clock).with_headers(headers)
        self.accepted += 1
        try:
            reply = self._page_reply(request, clock)
        except _BadRequestError as error:
            reply = error.reply
        return reply.with_headers(headers)

    def _check_key(self, request: ApiRequest) -> Reply | None:
        key = request.header_key
        if key is None:
            key = request.query.get("api_key")
        if key != self.options.api_key:
            return error_reply(401, "Unauthorized", "Invalid or missing API key", "UNAUTHORIZED")
        expires = self.options.key_expires_after
        if expires is not None and self.accepted >= expires:
            return error_reply(401, "Unauthorized", "API key has expired", "API_KEY_EXPIRED")
        return None

    def _budget_headers(self, verdict: limits.Verdict, clock: Clock) -> dict[str, str]:
        return limits.budget_headers(
            verdict,
            self.options.rate_headers,
            self.options.reset_format,
            window_s=self.options.rate_window,
            epoch_s=clock.epoch_s,
        )

    def _refusal(self, verdict: limits.Verdict, clock: Clock) -> Reply:
        style, form = self.options.rate_headers, self.options.retry_after_format
        headers = limits.retry_after_header(
            verdict.retry_after_s, style, form, epoch_s=clock.epoch_s
        )
        return json_reply(429, limits.refusal_body(verdict, style, form), headers)

    def _page_reply(self, request: ApiRequest, clock: Clock) -> Reply:
        if request.endpoint == "bulk" and not self.options.bulk:
            return error_reply(
                404, "Not Found", "Event with id 'bulk' not found", "EVENT_NOT_FOUND"
            )
        limit = self._limit(request)
        offset = self._offset(request, clock)
        asked = range(offset, offset + limit)
        struck = [
            armed
            for armed in self.faults
            if armed.strikes(self.options.seed, request.number, asked)
        ]
        scene = Scene(request, self.sequence, self.store, clock.epoch_s)
        for armed in struck:
            armed.fault.on_sequence(scene)
        page = self._page(request, offset, limit, clock)
        for armed in struck:
            page = armed.fault.on_page(page, scene)
        reply = self._render(page)
        for armed in struck:
            reply = armed.fault.on_reply(reply, scene)
        return replace(reply, faults=tuple(armed.name for armed in struck))

    def _limit(self, request: ApiRequest) -> int:
        limit = _number(request, "limit", DEFAULT_PAGE)
        if limit < 1:
            raise _BadRequestError("limit must be at least 1", "INVALID_LIMIT")
        if limit > self.options.max_limit and self.options.over_limit == "error":
            message = f"limit must be at most {self.options.max_limit}"
            raise _BadRequestError(message, "INVALID_LIMIT")
        return min(limit, self.options.max_limit)

    def _offset(self, request: ApiRequest, clock: Clock) -> int:
        """Give the offset asked for; the regular endpoint knows only its cursor."""
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
            older, expires_ms = int(cursor["left"]), int(cursor["exp"])
            series = int(cursor["series"])
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise _BadRequestError("Cursor can't be read", "INVALID_CURSOR") from error
        if expires_ms < clock.epoch_s * 1000 or series != self._cursor_series:
            raise _BadRequestError("Cursor has expired", "CURSOR_EXPIRED")
        return max(0, self.sequence.total - older)

    def _page(self, request: ApiRequest, offset: int, limit: int, clock: Clock) -> Page:
        total = self.sequence.total
        regular = request.endpoint == "regular"
        spans = self.sequence.spans(offset, limit, "newest-first" if regular else None)
        page = Page(
            offset=offset,
            limit=limit,
            spans=tuple(spans),
            echoed_limit=limit,
            header_total=total,
            body_total=total,
            has_more=offset + limit < total,
        )
        if not spans or not page.has_more or self.options.shape != "full":
            return page
        last = spans[-1]
        index = last.first if last.backwards else last.first + last.count - 1
        event_id, instant_ms = self.store.source.sort_key(index)
        place = offset + page.returned
        cursor = {
            "id": event_id,
            "ts": instant_ms,
            "v": 2,
            "exp": int((clock.epoch_s + self.options.cursor_ttl) * 1000),
            # How many older events there are: the place survives growth at the newest end.
            "left": total - place if last.backwards else place - 1,
            "series": self._cursor_series,
        }
        packed = base64.urlsafe_b64encode(json.dumps(cursor, separators=(",", ":")).encode())
        return replace(
            page,
            next_cursor=packed.decode().rstrip("="),
            cursor_expires_in_s=int(self.options.cursor_ttl),
        )

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
    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.reply = error_reply(400, "Bad Request", message, code)


def _number(request: ApiRequest, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        return int(text)
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
    said["returned"] = page.returned
    said["requestId"] = str(uuid.uuid4())
    return said
