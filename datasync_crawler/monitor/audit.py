"""The comparison of stored events with what the API serves now, and what it means. Pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from datasync_crawler.events.event import Event

#: Differing events that a report shows.
MOST_SHOWN: Final = 10
#: Probability that the share of differing pages is below the reported one.
CONFIDENCE: Final = 0.95
_TEXTS: Final = ("session_id", "user_id", "type", "name")
_JSON: Final = ("properties", "session", "extra")


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of one event: stored, and as the API serves it now."""

    event_id: str
    field: str
    stored: str | None
    served: str | None


@dataclass(slots=True)
class Audit:
    """The result of pages that were fetched again, in pages and events."""

    pages: int = 0
    pages_with: int = 0
    events: int = 0
    differing: int = 0
    missing: int = 0
    rejected: int = 0
    shown: list[Difference] = field(default_factory=list)
    missing_ids: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing differs and nothing is missing."""
        return not (self.differing or self.missing)

    def add(
        self, served: Sequence[Event], stored: Mapping[str, Mapping[str, Any]], rejected: int
    ) -> None:
        """Adds one page; *stored* holds the table's rows of its ids."""
        before = self.differing + self.missing
        self.pages += 1
        self.events += len(served) + rejected
        self.rejected += rejected
        for event in served:
            row = stored.get(event.id)
            if row is None:
                self.missing += 1
                self.missing_ids += [event.id] * (len(self.missing_ids) < MOST_SHOWN)
                continue
            found = differences(event, row)
            self.differing += bool(found)
            self.shown += found[: max(0, MOST_SHOWN - len(self.shown))]
        self.pages_with += self.differing + self.missing > before


def differences(served: Event, stored: Mapping[str, Any]) -> list[Difference]:
    """The fields in which an event differs from its row. JSON is compared by value."""
    found = [
        Difference(served.id, name, stored[name], getattr(served, name))
        for name in _TEXTS
        if getattr(served, name) != stored[name]
    ]
    for name in _JSON:
        raw = getattr(served, name)
        text = None if raw is None else bytes(raw).decode()
        if _value(text) != _value(stored[name]):
            found.append(Difference(served.id, name, stored[name], text))
    if served.timestamp != stored["timestamp"]:
        found.append(
            Difference(served.id, "timestamp", _iso(stored["timestamp"]), _iso(served.timestamp))
        )
    return found


def lines(audit: Audit) -> list[str]:
    """The report, the meaning last."""
    said = [
        f"audit             {audit.pages:,} pages at random, {audit.events:,} events: "
        f"{audit.differing:,} differ, {audit.missing:,} aren't stored"
        + (f", {audit.rejected:,} can't be stored" if audit.rejected else "")
    ]
    said += [
        f"  {one.event_id}  {one.field}: stored {one.stored!r}, served {one.served!r}"
        for one in audit.shown
    ]
    said += [f"  {event_id}  isn't stored" for event_id in audit.missing_ids]
    return [*said, meaning(audit)]


def meaning(audit: Audit) -> str:
    """What the result means for all pages."""
    if not audit.pages:
        return "No page was fetched: nothing is known."
    if not audit.is_clean:
        return (
            f"{audit.pages_with:,} of {audit.pages:,} pages differ: the API has changed or added "
            "events since they were read. Run the crawl again; with ON_DUPLICATE=update it stores "
            "changed content."
        )
    # If a share p of all pages differs, n random ones hold none with probability (1 - p) ** n.
    share = 1 - (1 - CONFIDENCE) ** (1 / audit.pages)
    said = f"{audit.differing:,} of {audit.events:,} events differ: "
    if share > 0.5:
        return f"{said}too few pages to say anything of the others. --audit 30 says more."
    return f"{said}with {CONFIDENCE:.0%} confidence fewer than {_one_in(share)} does."


def _one_in(share: float) -> str:
    """A share as "1 page in n", rounded up."""
    return f"1 page in {int(1 / share)}"


def _value(text: str | None) -> Any:
    if text is None:
        return None
    try:  # Decimals: Python's int takes no more than 4,300 digits
        return json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except RecursionError:
        return text


def _iso(instant: object) -> str:
    return instant.isoformat() if isinstance(instant, datetime) else str(instant)


def rows_by_id(rows: Iterable[Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Rows as the statement `stored_events` gives them."""
    names = ("id", *_TEXTS, *_JSON, "timestamp")
    return {row[0]: dict(zip(names, row, strict=True)) for row in rows}
