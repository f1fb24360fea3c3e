"""Whether a table is up to date: ages, bounds, and problems in sentences. Pure."""

import re
from typing import Final

from datasync_crawler.monitor.progress import duration, utc
from datasync_crawler.store.freshness import Freshness
from datasync_crawler.store.reader import SILENT_AFTER_S

_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_age(text: str) -> float:
    """An age such as 90s, 15m, 2h or 1d, in seconds. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])", text.strip())
    if found is None or not float(found[1]):
        raise ValueError(text)
    return float(found[1]) * _UNIT_S[found[2]]


def lines(f: Freshness) -> list[str]:
    """Its lines in `scrapy status`."""
    said = [f"last complete {_at(f.last_complete_at, f.now)}"]
    return said + [f"newest event  {_at(f.newest_event_at, f.now)}"] * (
        f.newest_event_at is not None
    )


def _at(when: float | None, now: float) -> str:
    if when is None:
        return "never"
    ago = f"{duration(now - when)} ago" if when <= now else "in the future"
    return f"{utc(when)} ({ago})"


def problems(
    f: Freshness, *, max_age_s: float | None, max_event_age_s: float | None = None
) -> list[str]:
    """What is too old, each a sentence; none: the table is up to date."""
    found = []
    if max_age_s is not None:
        if f.finish_reason == "unauthorized":
            found.append(
                f"The API has rejected the key in run {f.run_id}: set API_KEY to a valid key and "
                "run the crawl again."
            )
        elif f.last_complete_at is None:
            found.append(f"No run has ever been complete: {_since(f)}.")
        elif f.now - f.last_complete_at > max_age_s:
            found.append(
                f"The last complete run ended {duration(f.now - f.last_complete_at)} ago, more "
                f"than {duration(max_age_s)}: {_since(f)}."
            )
    if max_event_age_s is not None:
        if f.newest_event_at is None:
            found.append("No event with a timestamp is stored.")
        elif f.now - f.newest_event_at > max_event_age_s:
            found.append(
                f"The newest event is {duration(f.now - f.newest_event_at)} old, more than "
                f"{duration(max_event_age_s)}: look at what writes events to the API."
            )
    return found


def _since(f: Freshness) -> str:
    """Why no newer run is complete, from the newest run."""
    if f.run_id is None:
        return "nothing has been crawled into this schema yet"
    if f.finished_at is None:
        if (f.silent_s or 0.0) < SILENT_AFTER_S:
            return f"run {f.run_id} is under way"
        return (
            f"run {f.run_id} has sent no heartbeat for {duration(f.silent_s or 0.0)}: it has "
            "crashed; run the crawl again"
        )
    if f.finish_reason in {"finished", "too_many_rejected"}:
        return (
            f"run {f.run_id} was the last one, and none has begun since: look at the timer, cron "
            "job or scheduler that starts it"
        )
    return f"run {f.run_id} ended with {f.finish_reason}; its last lines say what to do"
