"""``scrapy status``: how far the crawl is, from the database alone. Sends no requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

from datasync_crawler.commands.base import ConfiguredCommand, Options

if TYPE_CHECKING:
    import argparse


class Command(ConfiguredCommand):
    """Prints it; `exitcode` 1 when there is nothing or no database, 2 for an invalid setting."""

    summary = "Show how far the crawl is: total, done, gaps, rejections, runs"
    description = (
        "Reads the configured database (or the demonstration's when nothing is configured), never "
        "the API. A run without a heartbeat has crashed. As an alarm: with --max-age 15m the exit "
        "status is 1 when no run was complete for longer than that, or the API has rejected the "
        "key."
    )
    options: ClassVar[Options] = {
        "--json": {"action": "store_true", "help": "print one JSON object"},
        "--max-age": {
            "metavar": "AGE",
            "help": "exit with 1 when the last complete run ended longer ago: 90s, 15m, 2h, 1d",
        },
        "--max-event-age": {
            "metavar": "AGE",
            "help": "exit with 1 when the newest event's timestamp is older than that",
        },
    }

    def act(self, args: list[str], opts: argparse.Namespace) -> None:
        """Prints the status, and on standard error what is too old."""
        from dataclasses import asdict, replace  # noqa: PLC0415

        from datasync_crawler.monitor import freshness, report  # noqa: PLC0415
        from datasync_crawler.store.connection import Connector  # noqa: PLC0415
        from datasync_crawler.store.freshness import (  # noqa: PLC0415
            read_freshness,
            read_newest_event,
        )
        from datasync_crawler.store.verify import ProofReader  # noqa: PLC0415

        self.check_no_arguments(args)
        max_age_s = _age("--max-age", opts.max_age)
        max_event_age_s = _age("--max-event-age", opts.max_event_age)
        config = self.configured()
        connector = Connector(config.database)
        with ProofReader(connector, config.schema) as reader:
            figures = reader.figures(*reader.source(), "the last known")
            seen = figures, reader.reasons(), reader.runs(), reader.processes()
            fresh = read_freshness(connector, config.schema)
            newest = read_newest_event(connector, config.schema)
        fresh = replace(fresh, newest_event_at=newest)
        excess = report.too_many_rejected(figures, config.max_rejected)
        stale = freshness.problems(fresh, max_age_s=max_age_s, max_event_age_s=max_event_age_s)
        if opts.json:
            values = {**report.status_values(*seen), "freshness": asdict(fresh), "stale": stale}
            values["too_many_rejected"] = excess or None
            print(json.dumps(values, ensure_ascii=False))
        else:
            said = [*report.status_lines(*seen), *freshness.lines(fresh), excess]
            self.say(filter(None, said))
        for sentence in stale:
            self.fail(sentence, 1)


def _age(option: str, text: str | None) -> float | None:
    """The option's age in seconds; None when it isn't given. Raises ConfigError."""
    from datasync_crawler.errors import ConfigError  # noqa: PLC0415
    from datasync_crawler.monitor.freshness import parse_age  # noqa: PLC0415

    try:
        return None if text is None else parse_age(text)
    except ValueError:
        raise ConfigError(
            f"{option} is {text!r}: give it an age such as 90s, 15m, 2h or 1d."
        ) from None
