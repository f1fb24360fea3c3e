"""Pages that hold other events than asked for, and totals that lie: one class per misbehaviour."""

# What an overriding method does, its class says.
from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from datasync_crawler.mockapi.faults import Fault, When, fault
from datasync_crawler.mockapi.sequence import Span
from datasync_crawler.mockapi.source import GeneratedEvents
from faults.choices import ChoosingFault
from faults.sequence import RunSequence, indices
from faults.truth import event_json, truth

if TYPE_CHECKING:
    from datasync_crawler.mockapi.faults import Scene
    from datasync_crawler.mockapi.reply import Page, Reply

ALWAYS = When()


def _cut(page: Page, scene: Scene, offset: int, count: int) -> Page:
    """Put other events on the page: `count` from `offset` on; what is said stays as it was."""
    return replace(page, spans=scene.spans(offset, count), events=None)


def _set_of(scene: Scene) -> RunSequence:
    """The served set, of the kind that `faults.extend` has put in."""
    assert isinstance(scene.sequence, RunSequence)
    return scene.sequence


def events_of(page: Page, scene: Scene) -> list[bytes]:
    """The page's events one by one."""
    if page.events is not None:
        return list(page.events)
    spans = (Span(index, 1) for span in page.spans for index in indices(span))
    return [bytes(scene.store.pieces([span])[0]) for span in spans]


@fault("empty-page")
@dataclass(frozen=True)
class EmptyPage(Fault):
    """A page before the total is empty."""

    def on_page(self, page: Page, scene: Scene) -> Page:
        return replace(page, spans=(), events=None, next_cursor=None)


@fault("capped-limit", ALWAYS)
@dataclass(frozen=True)
class CappedLimit(Fault):
    """Pages hold at most `limit` events; with echo=false nothing says so."""

    limit: int = 1000
    echo: bool = True

    def on_page(self, page: Page, scene: Scene) -> Page:
        if page.limit <= self.limit:
            return page
        echoed = self.limit if self.echo else page.echoed_limit
        page = _cut(page, scene, page.offset, self.limit)
        more = page.offset + self.limit < scene.sequence.total
        return replace(page, limit=self.limit, echoed_limit=echoed, has_more=more)


@fault("ignored-offset", ALWAYS)
@dataclass(frozen=True)
class IgnoredOffset(Fault):
    """Whatever the offset, the first page is served."""

    def on_page(self, page: Page, scene: Scene) -> Page:
        return _cut(page, scene, 0, page.limit) if scene.request.endpoint == "bulk" else page


@fault("repeated-page")
@dataclass(frozen=True)
class RepeatedPage(Fault):
    """The page before the one asked for is served again."""

    def on_page(self, page: Page, scene: Scene) -> Page:
        return _cut(page, scene, max(0, page.offset - page.limit), page.limit)


@fault("missing-fields")
@dataclass(frozen=True)
class MissingFields(Fault):
    """Every `each`-th event lacks `fields` (joined by +), under X-Chaos-Applied: missingFields."""

    fields: str = "timestamp+userId"
    each: int = 3

    def on_page(self, page: Page, scene: Scene) -> Page:
        events = events_of(page, scene)
        for place in range(0, len(events), self.each):
            event = json.loads(events[place])
            for name in self.fields.split("+"):
                event.pop(name, None)
            events[place] = json.dumps(event, separators=(",", ":")).encode()
        return replace(page, events=tuple(events))

    def on_reply(self, reply: Reply, scene: Scene) -> Reply:
        return reply.with_headers({"X-Chaos-Applied": "missingFields"})


@fault("other-format", ALWAYS)
@dataclass(frozen=True)
class OtherFormat(Fault):
    """The same event comes with its timestamp in another format at each request."""

    needs_generated: ClassVar[bool] = True

    def on_page(self, page: Page, scene: Scene) -> Page:
        source = scene.store.source
        if not isinstance(source, GeneratedEvents):
            return page
        events = events_of(page, scene)
        places = [index for span in page.spans for index in indices(span)]
        for place, index in enumerate(places[: len(events)]):
            plain = event_json(source.seed, index)
            # An event that is bad, or that another fault has changed, stays as it is.
            if events[place] == plain:
                true = truth(source.seed, index)
                event = json.loads(plain)
                event["timestamp"] = _in_another_format(true.instant_us, scene.request.number)
                events[place] = json.dumps(event, separators=(",", ":")).encode()
        return replace(page, events=tuple(events))


def _in_another_format(instant_us: int, turn: int) -> str | int:
    """Say the same instant in the formats that can, one after the other."""
    seconds, micros = divmod(instant_us, 1_000_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    iso = f"{moment:%Y-%m-%dT%H:%M:%S}.{micros // 1000:03d}Z"
    forms: list[str | int] = [iso, instant_us // 1000]
    if not micros:
        forms += [f"{moment:%Y-%m-%d %H:%M:%S}", seconds]
    return forms[turn % len(forms)]


@fault("duplicate-in-page")
@dataclass(frozen=True)
class DuplicateInPage(Fault):
    """The page's last `count` events are its first ones again: ids twice, others missing."""

    count: int = 3

    def on_page(self, page: Page, scene: Scene) -> Page:
        events = events_of(page, scene)
        count = min(self.count, len(events) // 2)
        return replace(page, events=(*events[: len(events) - count], *events[:count]))


@fault("has-more", ALWAYS)
@dataclass(frozen=True)
class HasMore(ChoosingFault):
    """`hasMore` is false in mid-set; with say=missing it isn't there; say=true: at the end too."""

    choices: ClassVar = {"say": ("false", "true", "missing")}
    say: str = "false"

    def on_page(self, page: Page, scene: Scene) -> Page:
        said = {"false": False, "true": True, "missing": None}[self.say]
        return replace(page, has_more=said)


@fault("total", ALWAYS)
@dataclass(frozen=True)
class Total(ChoosingFault):
    """A total that lies; where: header, body, both; say: missing, stale, inflated, shrinking,
    negative, text, null, zero.
    """

    choices: ClassVar = {
        "where": ("header", "body", "both"),
        "say": (
            *("missing", "stale", "inflated", "shrinking"),
            *("negative", "text", "null", "zero"),
        ),
    }
    where: str = "both"
    say: str = "missing"
    by: int = 1000

    def on_page(self, page: Page, scene: Scene) -> Page:
        true = scene.sequence.total
        values: dict[str, object] = {
            "missing": None,
            "stale": max(0, true - self.by),
            "inflated": true + self.by,
            "shrinking": max(0, true - self.by * scene.request.number),
            "negative": -1,
            "text": "many",
            "null": "null",
            "zero": 0,
        }
        said = values[self.say]
        header = said if self.where in ("header", "both") else page.header_total
        body = said if self.where in ("body", "both") else page.body_total
        return replace(page, header_total=header, body_total=body)


@fault("shift-insert")
@dataclass(frozen=True)
class ShiftInsert(Fault):
    """`count` events are inserted at offset `at`: all behind move up."""

    needs_generated: ClassVar[bool] = True
    at: int = 0
    count: int = 3

    def on_sequence(self, scene: Scene) -> None:
        _set_of(scene).insert(self.at, self.count)


@fault("shift-delete")
@dataclass(frozen=True)
class ShiftDelete(Fault):
    """`count` events are deleted at offset `at`: all behind move down."""

    at: int = 0
    count: int = 3

    def on_sequence(self, scene: Scene) -> None:
        _set_of(scene).delete(self.at, self.count)
