"""Whether an answer has the shape that the settings say, and which setting would fit it. Pure."""

import copy
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from datasync_crawler.events.decoding import PageFormat, WirePage
from datasync_crawler.events.scan import printable
from datasync_crawler.events.timestamps import normalize_timestamps

#: Names that a sentence lists, and characters of each.
MOST_NAMES: Final = 20
LONGEST_NAME: Final = 60
#: Levels of an answer that are searched for a list of events.
MOST_LEVELS: Final = 3
#: Bytes of an answer that is searched.
MOST_SEARCHED: Final = 4_000_000
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def nothing_storable(wire: WirePage, names: PageFormat) -> str:
    """The sentence for a page of which nothing can be stored; "" when something can."""
    trial = [copy.copy(event) for event in wire.events]
    undated = normalize_timestamps(trial)
    if len(undated) < len(trial):
        return ""
    reason = wire.rejections[0].reason if wire.rejections else undated[0][1]
    seen = _fields_seen(wire, names)
    if not seen:
        return (
            f"Nothing of the first page can be stored: {wire.received:,} of {wire.received:,} "
            f"events are rejected ({reason}), and none is an object with fields. Set EVENTS_KEY to "
            "where the list of events stands."
        )
    return (
        f"Nothing of the first page can be stored: {wire.received:,} of {wire.received:,} events "
        f"are rejected ({reason}). Their fields are {_listed(seen)}. Set ID_FIELD "
        f"(now {names.id_field}) to the one that holds the id, and TIMESTAMP_FIELD "
        f"(now {names.timestamp_field}) to the one that holds the time."
    )


def too_many_rejected(rejected: int, of: int, most: float) -> str:
    """The sentence for more rejections than MAX_REJECTED allows; "" when it allows them."""
    if not rejected or rejected <= most * of:
        return ""
    return (
        f"{rejected:,} of {of:,} events are rejected, more than MAX_REJECTED ({most:g}) allows: "
        "scrapy status names the reasons. Map the fields with ID_FIELD and TIMESTAMP_FIELD, or "
        "raise MAX_REJECTED."
    )


def lists_elsewhere(body: bytes) -> list[str]:
    """Dotted paths of lists of objects in an answer that isn't said to be an error."""
    if len(body) > MOST_SEARCHED:
        return []
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return []
    if not isinstance(document, dict) or {"error", "errors"} & document.keys():
        return []
    return list(_lists(document, ()))


def no_list(events_key: str, elsewhere: list[str]) -> str:
    """The sentence for an answer whose list of events stands elsewhere."""
    is_one = len(elsewhere) == 1
    return (
        f"The first answer has no list at EVENTS_KEY ({events_key}). It has "
        f"{'one' if is_one else 'lists'} at {_listed(elsewhere)}: set EVENTS_KEY to "
        f"{elsewhere[0] if is_one else 'the one that holds the events'}."
    )


def _lists(node: dict[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield ".".join((*path, name))
        elif isinstance(value, dict) and len(path) + 1 < MOST_LEVELS:
            yield from _lists(value, (*path, name))


def _fields_seen(wire: WirePage, names: PageFormat) -> list[str]:
    """Names of the fields of the first events, in their order."""
    seen: dict[str, None] = {}
    for rejection in wire.rejections[:MOST_NAMES]:
        try:
            seen |= dict.fromkeys(_FIELDS.decode(rejection.raw))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            continue
    for event in wire.events[:MOST_NAMES]:
        seen[names.id_field] = None
        seen |= dict.fromkeys(
            one.encode_name
            for one in msgspec.structs.fields(event)
            if one.name not in {"id", "timestamp", "extra"} and getattr(event, one.name) is not None
        )
        if event.timestamp is not None:
            seen[names.timestamp_field] = None
        if event.extra is not None:
            seen |= dict.fromkeys(_FIELDS.decode(event.extra))
    return list(seen)


def _listed(names: list[str]) -> str:
    said = [printable(name[:LONGEST_NAME]) for name in names[:MOST_NAMES]]
    more = len(names) - len(said)
    return ", ".join(said) + (f" and {more} more" if more else "")
