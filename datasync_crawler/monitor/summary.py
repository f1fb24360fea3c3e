"""How a run ended: its figures and its verdict, from stats.

Pure: counts in events, times in seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from datasync_crawler import stats as stat

#: What is said of a known event that comes with other content.
EDITED: Final = "other content than stored; ON_DUPLICATE=update overwrites it"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, for its summary. Counts in events; `seconds` of wall time.

    `duplicates`: known events but for `reread`, those that were read again to check. `changed`:
    known events with other content. `total_found`: the total is where the pages ended, not the
    API's. `asides`: notes beside the proof. `rerun`: whether the same command may do better later.
    """

    reason: str
    complete: bool
    total: int | None
    stored: int | None
    received: int
    inserted: int
    duplicates: int
    changed: int
    reread: int
    rejected_now: int | None
    rejected: int
    seconds: float
    missing: str | None
    asides: tuple[str, ...]
    rerun: bool
    total_found: bool
    sentence: str | None


def outcome(reason: str, seconds: float, stats: Mapping[str, Any]) -> Outcome:
    """How a run ended, from Scrapy's stats."""
    reread = stats.get(stat.REREAD, 0)
    return Outcome(
        reason=reason,
        complete=stats.get(stat.COMPLETE, False),
        total=stats.get(stat.TOTAL),
        stored=stats.get(stat.STORED),
        received=stats.get(stat.RECEIVED, 0),
        inserted=stats.get(stat.INSERTED, 0),
        duplicates=stats.get(stat.DUPLICATES, 0) - reread,
        changed=stats.get(stat.CHANGED, 0),
        reread=reread,
        rejected_now=stats.get(stat.REJECTED_NOW),
        rejected=stats.get(stat.REJECTED, 0),
        seconds=seconds,
        missing=stats.get(stat.MISSING),
        asides=tuple(stats.get(stat.ASIDES, "").splitlines()),
        rerun=stats.get(stat.RERUN, True),
        total_found=stats.get(stat.TOTAL_FOUND, False),
        sentence=stats.get(stat.STOP_SENTENCE),
    )


def rows(outcome: Outcome) -> list[tuple[str, str]]:
    """The summary's figures: their scope (table or run) with their name, and the value."""
    if outcome.sentence and not outcome.received:
        return []  # it never began: zeros would hide the sentence
    rate = outcome.inserted / outcome.seconds if outcome.seconds > 0 else 0.0
    return [
        *_in_table(outcome),
        ("run: new", f"{outcome.inserted:,}"),
        ("run: already stored", f"{outcome.duplicates:,}"),
        ("run: re-read to check", f"{outcome.reread:,}"),
        *([("run: edited", f"{outcome.changed:,} ({EDITED})")] if outcome.changed else []),
        ("run: rejected", f"{outcome.rejected:,}"),
        ("run: seconds", f"{outcome.seconds:.1f}"),
        ("run: new events/s", f"{rate:,.0f}"),
    ]


def _in_table(outcome: Outcome) -> list[tuple[str, str]]:
    """What all runs have stored and rejected, where the proof has counted it."""
    if outcome.stored is None:
        return []
    rejected = outcome.rejected_now or 0
    where = " (table rejected_events: reason and raw bytes)" if rejected else ""
    return [
        ("table: events stored", f"{outcome.stored:,}"),
        ("table: rejected", f"{rejected:,}{where}"),
    ]


def kept(stored: int, served: int) -> list[str]:
    """Of a set that has become smaller: *stored*, with the rejected ones, against *served*."""
    if stored <= served:
        return []
    sentence = (
        f"The table holds {stored - served:,} events more than the API serves now: those that it "
        "served before are kept."
    )
    return [sentence]


def verdict(outcome: Outcome) -> list[str]:
    """The summary's last lines. "complete" only for a run that is proved."""
    if outcome.complete and outcome.reason in {"finished", "too_many_rejected"}:
        proof = "proved against the API's total"
        if outcome.total_found:
            proof = "read to its end, as the API sends no reliable total"
        rejected = f", with {outcome.rejected_now:,} rejected" if outcome.rejected_now else ""
        stored = (outcome.stored or 0) + (outcome.rejected_now or 0)
        more = kept(stored, outcome.total or 0)
        return [f"complete{rejected}: {proof} ({outcome.total:,})", *outcome.asides, *more]
    return [f"NOT complete: {_why(outcome)}"]


def summary(outcome: Outcome) -> list[str]:
    """The last lines of a run: its figures, and if it's incomplete, what is missing."""
    return [f"{name:<23}{value}" for name, value in rows(outcome)] + verdict(outcome)


def _why(outcome: Outcome) -> str:
    again = "Run the same command again: it resumes where it stopped."
    if outcome.sentence:
        return outcome.sentence
    if outcome.missing:
        return f"{outcome.missing}. {again}" if outcome.rerun else f"{outcome.missing}."
    if outcome.reason == "shutdown":
        return f"stopped by a signal; everything fetched is committed. {again}"
    if outcome.reason == "finished":
        return f"it ended without the proof. {again}"
    return f"ended with {outcome.reason}. {again}"
