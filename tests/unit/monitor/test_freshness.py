"""monitor/freshness.py: ages, and what is said of those that are too great."""

from __future__ import annotations

import re

import pytest

from datasync_crawler.monitor.freshness import lines, parse_age, problems
from datasync_crawler.store.freshness import Freshness

NOW = 1_795_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1.5h", 5400), (" 1m ", 60)],
)
def test_an_age_has_one_unit(text: str, seconds: float) -> None:
    """Seconds, minutes, hours, days."""
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["15", "m", "0m", "-1m", "1w", "1h30m", "١٥m", "1e3s", "inf"])
def test_no_other_age_is_guessed_at(text: str) -> None:
    """What has no unit, none of ours, or isn't more than nothing is refused."""
    with pytest.raises(ValueError, match=re.escape(text)):
        parse_age(text)


@pytest.mark.parametrize(
    ("fresh", "said"),
    [
        (Freshness(NOW, NOW - 60, 3, NOW - 60, "finished"), []),
        (Freshness(NOW, NOW - 900, 3, NOW - 900, "finished"), []),
        (Freshness(NOW, NOW - 3600, 3, NOW - 3600, "finished", 3600),
         [("The last complete run ended 1 h 0 min ago, more than 15 min 0 s: run 3 was the "
          "last one, and none has begun since: look at the timer, cron job or scheduler "
          "that starts it.")]),
        (Freshness(NOW, NOW - 3600, 4, NOW - 9, "incomplete", 9),
         [("The last complete run ended 1 h 0 min ago, more than 15 min 0 s: run 4 ended with "
          "incomplete; its last lines say what to do.")]),
        (Freshness(NOW, NOW - 3600, 4, None, None, 1),
         ["The last complete run ended 1 h 0 min ago, more than 15 min 0 s: run 4 is under way."]),
        (Freshness(NOW, NOW - 3600, 4, None, None, 1800),
         [("The last complete run ended 1 h 0 min ago, more than 15 min 0 s: run 4 has sent no "
          "heartbeat for 30 min 0 s: it has crashed; run the crawl again.")]),
        (Freshness(NOW, NOW - 60, 4, NOW - 9, "unauthorized", 9),
         [("The API has rejected the key in run 4: set API_KEY to a valid key and run the crawl "
          "again.")]),
        (Freshness(),
         ["No run has ever been complete: nothing has been crawled into this schema yet."]),
    ],
)  # fmt: skip
def test_what_is_too_old_is_said_with_its_cause(fresh: Freshness, said: list[str]) -> None:
    """A stopped timer, a failed run, a crash, a refused key; nothing within the bound."""
    assert problems(fresh, max_age_s=900) == said
    assert problems(fresh, max_age_s=None) == []


def test_the_newest_event_has_a_bound_of_its_own() -> None:
    """The crawl may be up to date with a source that has gone silent."""
    fresh = Freshness(NOW, NOW, newest_event_at=NOW - 7200)
    assert problems(fresh, max_age_s=900, max_event_age_s=86400) == []
    assert problems(fresh, max_age_s=900, max_event_age_s=3600) == [
        (
            "The newest event is 2 h 0 min old, more than 1 h 0 min: look at what writes events "
            "to the API."
        )
    ]
    assert problems(Freshness(NOW, NOW), max_age_s=None, max_event_age_s=3600) == [
        "No event with a timestamp is stored."
    ]


def test_times_are_given_with_their_age() -> None:
    """In UTC; what never was, and what is to come, is said so."""
    assert lines(Freshness(NOW, None)) == ["last complete never"]
    assert lines(Freshness(NOW, NOW - 65, newest_event_at=NOW + 1)) == [
        "last complete 2026-11-18 11:05:35 UTC (1 min 5 s ago)",
        "newest event  2026-11-18 11:06:41 UTC (in the future)",
    ]
