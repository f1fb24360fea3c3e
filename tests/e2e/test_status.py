"""`scrapy status --max-age`, `/healthz?max_age=` and the metrics: is the table up to date?"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from crawling import crawl
from dashboards import DashboardServer, ask
from mockserver import MockServer
from test_verify import SETTINGS, as_json, scrapy

if TYPE_CHECKING:
    from databases import Database

EVENTS = 500
AGED = "UPDATE proofs SET proved_at = proved_at - interval '1 hour'"


def test_a_second_run_that_finds_nothing_new_renews_it(database: Database) -> None:
    """The last complete run is that of the last proof, whether or not it brought anything."""
    with MockServer("--events", str(EVENTS)) as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
        database.execute(AGED)
        stale = scrapy(mock, database, "status", "--max-age", "15m")
        assert stale.status == 1
        assert "The last complete run ended 1 h 0 min ago, more than 15 min 0 s: " in stale.log
        assert "none has begun since: look at the timer, cron job or scheduler" in stale.log
        assert crawl(mock, database, *SETTINGS).status == 0
        fresh = scrapy(mock, database, "status", "--max-age", "15m")
        assert fresh.status == 0, fresh.log
        assert re.search(r"last complete \d{4}-.* UTC \(\d+ s ago\)", fresh.log)


def test_a_refused_key_is_an_alarm_at_once(database: Database) -> None:
    """Whatever was complete a moment ago; of the newest event, when that is asked for."""
    with MockServer("--events", str(EVENTS)) as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
        values = as_json(scrapy(mock, database, "status", "--json", "--max-age", "1h"))
        assert values["stale"] == []
        assert values["freshness"]["newest_event_at"] > 1e9
        old = scrapy(mock, database, "status", "--max-event-age", "1s")
        assert (old.status, "The newest event is " in old.log) == (1, True)
        mock.config(key_expires_after=0)
        assert crawl(mock, database, *SETTINGS).status == 1
    refused = scrapy(mock, database, "status", "--max-age", "1h")
    assert (refused.status, "The API has rejected the key in run 2" in refused.log) == (1, True)
    assert scrapy(mock, database, "status").status == 0
    wrong = scrapy(mock, database, "status", "--max-age", "15")
    assert wrong.status == 2
    assert "--max-age is '15': give it an age such as 90s, 15m, 2h or 1d." in wrong.log


def test_before_any_crawl(database: Database) -> None:
    """Exit 1: an alarm that was set up first goes off."""
    assert scrapy(None, database, "status", "--max-age", "1d").status == 1


def test_health_and_metrics(database: Database) -> None:
    """200 while the last proof is young, 503 when it isn't, and both moments as metrics."""
    with MockServer("--events", str(EVENTS)) as mock:
        assert crawl(mock, database, *SETTINGS).status == 0
        with DashboardServer(database) as served:
            health = f"{served.url}healthz"
            assert ask(f"{health}?max_age=15m")[::2] == (200, '{"status": "ok"}')
            assert ask(f"{health}?max_age=15m&max_event_age=1s")[0] == 503
            assert ask(f"{health}?max_age=soon")[0] == 400
            text = ask(f"{served.url}metrics")[2]
            figures = dict(re.findall(r"^(datasync_\w+) (\S+)$", text, re.MULTILINE))
            database.execute(AGED)
            assert ask(health)[0] == 200
            code, _, body = ask(f"{health}?max_age=15m")
            assert (code, json.loads(body)) == (503, {"status": "last complete run too old"})
        mock.config(key_expires_after=0)
        assert crawl(mock, database, *SETTINGS).status == 1
        with DashboardServer(database) as served:
            assert ask(f"{served.url}healthz")[::2] == (503, '{"status": "key refused"}')
    proved, newest = database.execute(
        "SELECT extract(epoch FROM max(proved_at) + interval '1 hour')::float8, "
        '(SELECT extract(epoch FROM max("timestamp"))::float8 FROM events) FROM proofs'
    )[0]
    assert abs(float(figures["datasync_last_complete_timestamp_seconds"]) - proved) < 1
    assert abs(float(figures["datasync_newest_event_timestamp_seconds"]) - newest) < 1
