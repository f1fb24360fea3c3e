"""The spider's reading of bodies, on cassettes that scrapy-mock has recorded.

The URL names the cassette's source (tests/fixtures/record.py); nothing is contacted when a
cassette is there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
import scrapy
from faults.truth import truths
from scrapy.crawler import Crawler
from scrapy.http import TextResponse
from scrapy.settings import Settings
from twisted.python.failure import Failure
from twisted.web._newclient import ResponseNeverReceived

from datasync_crawler.crawl.values import Ask, Empty, LimitRefused, Outcome
from datasync_crawler.events.decoding import WireError
from datasync_crawler.items import EventPage
from datasync_crawler.monitor.progress import Meter
from datasync_crawler.pipelines.normalize import NormalizePipeline
from datasync_crawler.spiders import events as spider_module
from datasync_crawler.spiders.events import EventsSpider, _cause

if TYPE_CHECKING:
    from scrapy.http import Response

RECORDED = "http://127.0.0.1:8764"
ASK = Ask(1, 0, 20)


@pytest.fixture
def spider() -> EventsSpider:
    """The spider with the project's settings, beside a crawler that doesn't run."""
    settings = Settings()
    settings.setmodule("datasync_crawler.settings")
    settings.setdict(
        {
            "API_BASE_URL": f"{RECORDED}/api/v1",
            "API_KEY": "a-key",
            "DATABASE_URL": "postgresql://127.0.0.1:1/nowhere",
            "EXTENSIONS": {},
            "TWISTED_REACTOR_ENABLED": False,
        },
        priority="cmdline",
    )
    crawler = Crawler(EventsSpider, settings)
    crawler._apply_settings()
    crawler.spider = EventsSpider.from_crawler(crawler)
    return crawler.spider


def parse(spider: EventsSpider, response: Response) -> object:
    if response.request is not None:
        response.request.cb_kwargs.update(number=1, ask=ASK)
    return spider.parse(response, 1, ASK)


def page(spider: EventsSpider, response: Response) -> EventPage:
    parsed = parse(spider, response)
    assert isinstance(parsed, EventPage)
    return parsed


def test_a_refused_limit_is_quoted_without_control_sequences_and_key(
    spider: EventsSpider, caplog: pytest.LogCaptureFixture
) -> None:
    """The planner is told, and tries a smaller one; the answer can forge no log line."""
    spider.config = dataclasses.replace(spider.config, api_key="a-very-secret-key")
    body = b"limit is wrong\n\x1b[2JERROR: a-very-secret-key"
    outcomes = resolved(spider)
    answer = TextResponse(f"{RECORDED}/full", status=400, body=body)
    assert spider.parse(answer, 1, ASK) is None
    assert outcomes == [LimitRefused(ASK)]
    assert "limit is wrong [2JERROR: [API_KEY])" in caplog.text
    assert "\x1b" not in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "url",
    [f"{RECORDED}/{shape}?offset=0&limit=20" for shape in ("full", "data", "list")],
    ids=["full", "data", "list"],
)
def test_each_shape_of_a_page_is_read(spider: EventsSpider, response: Response, url: str) -> None:
    """With pagination and meta, as {"data": […]} alone and as a bare list: the same twenty events,
    in order, equal to the data set.
    """
    got = page(spider, response)
    assert (got.key, got.requested, got.received) == ((1, 0), 20, 20)
    assert got.rejections == []
    NormalizePipeline().process_item(got)
    wanted = list(truths(1, 0, 20))
    assert [event.id for event in got.events] == [truth.id for truth in wanted]
    assert [event.session_id for event in got.events] == [truth.session_id for truth in wanted]
    # Without a number in the body, an API says its total in a header: cassettes have none.
    assert got.total == (20 if url.startswith(f"{RECORDED}/full") else None)


@pytest.mark.parametrize("url", [f"{RECORDED}/bad"], ids=["bad"])
def test_bad_events_are_rejections_beside_good_ones(
    spider: EventsSpider, response: Response, url: str
) -> None:
    """Each event that can't be stored is kept with its place, its reason and its own bytes."""
    got = NormalizePipeline().process_item(page(spider, response))
    assert got.received == 8
    assert [event.id for event in got.events] == ["good-1", "17", "exact", "good-2"]
    assert list(got.indexes) == [0, 3, 6, 7]
    rejected = {rejection.index: rejection for rejection in got.rejections}
    assert sorted(rejected) == [1, 2, 4, 5]
    assert all(rejection.reason for rejection in got.rejections)
    assert rejected[2].raw == b'["not", "an object"]'
    assert rejected[4].raw == b'{"id":"bare time","timestamp":"10:30"}'
    # A number of thirty digits isn't rounded, an unknown field isn't lost.
    assert b"123456789012345678901234567890" in bytes(got.events[2].properties or b"")
    assert b"blue" in bytes(got.events[1].extra or b"")


@pytest.mark.parametrize("url", [f"{RECORDED}/full?offset=20&limit=20"], ids=["behind"])
def test_an_empty_page_behind_the_end_gives_nothing(
    spider: EventsSpider, response: Response, url: str
) -> None:
    """No page, no retry: the planner is told that nothing is there."""
    outcomes = resolved(spider)
    assert parse(spider, response) is None
    assert outcomes == [Empty(ASK, 20)]
    assert not retries(spider)


@pytest.mark.parametrize(
    "url",
    [f"{RECORDED}/{body}" for body in ("html", "half", "error", "null", "empty", "scalar")],
    ids=["html", "half", "error", "null", "empty", "scalar"],
)
def test_what_isnt_a_page_is_tried_again(
    spider: EventsSpider, response: Response, url: str
) -> None:
    """HTML, half a document, an error object, null, nothing at all and no list, all with status
    200: the same request again after a wait, and not one event of it.
    """
    again = parse(spider, response)
    assert isinstance(again, scrapy.Request)
    assert again.url == url
    assert again.meta["retry_times"] == 1
    assert 0 < again.meta["delay_s"] <= 60
    assert retries(spider) == 1


def resolved(spider: EventsSpider) -> list[Outcome]:
    """What the planner is told from now on."""
    outcomes: list[Outcome] = []
    spider._waiting.resolve = lambda _, outcome: outcomes.append(outcome)  # type: ignore[method-assign]
    return outcomes


def retries(spider: EventsSpider) -> object:
    assert spider.crawler.stats is not None
    return spider.crawler.stats.get_value("retry/count")


def test_a_key_that_the_api_repeats_is_kept_nowhere(
    spider: EventsSpider, caplog: pytest.LogCaptureFixture
) -> None:
    """What an error object says goes into log, stats and request without the key, cut or whole."""
    key = "kanarienvogel-0123456789-0123456789-0123456789-0123456789"
    spider.config = dataclasses.replace(spider.config, api_key=key)
    body = {"error": f"no such key: {key}", "requestId": key}
    request = scrapy.Request(f"{RECORDED}/error", cb_kwargs={"number": 1, "ask": ASK})
    response = TextResponse(request.url, body=json.dumps(body).encode(), request=request)
    with caplog.at_level("DEBUG"):
        again = parse(spider, response)
    assert isinstance(again, scrapy.Request)
    assert "no such key: [API_KEY]" in caplog.text
    assert spider.crawler.stats is not None
    said = f"{caplog.text} {spider.crawler.stats.get_stats()} {again.to_dict(spider=spider)}"
    assert "kanarienvogel" not in said


@pytest.mark.parametrize("body", [b'{"data":[{"id":"a","timestamp":1769541612}]}', b"[" * 40])
def test_a_large_body_is_decoded_beside_the_loop(
    spider: EventsSpider, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a thread, so that leases and heartbeats go on; what follows is as for a short one."""
    threads: list[object] = []

    async def run_in_thread(work: Any, *args: Any) -> Any:
        threads.append(work)
        return await asyncio.to_thread(work, *args)

    monkeypatch.setattr(spider_module, "MOST_IN_LOOP", 30)
    monkeypatch.setattr(spider_module, "run_in_thread", run_in_thread)
    request = scrapy.Request(f"{RECORDED}/large")
    parsed: Any = parse(spider, TextResponse(request.url, body=body, request=request))
    got = asyncio.run(parsed)
    assert len(threads) == 1
    if body.startswith(b"["):
        assert isinstance(got, scrapy.Request)  # tried again
    else:
        assert isinstance(got, EventPage)
        assert got.ids == ["a"]


def test_a_refusal_holds_no_body(spider: EventsSpider) -> None:
    """Its traceback would: eight answers of 60 MB took 670 MB until they were collected."""
    refusal = spider._decode(b"[", ASK)
    assert isinstance(refusal, WireError)
    assert refusal.__traceback__ is None


def test_what_others_received_is_counted_once(spider: EventsSpider) -> None:
    """The ledger is read again when another process has taken the plan over: it holds theirs."""
    spider.crawler.stats.set_value("crawl/total", 1000)
    spider.crawler.stats.set_value("crawl/received_by_others", 500)
    spider._planning._report_covered(700)
    assert Meter(0.0).read(1.0, 0.0, spider.crawler.stats.get_stats()).done == 700


def test_the_cause_of_a_lost_response_is_said_in_words() -> None:
    """Not as a list of Twisted's failures, wrapped by Scrapy or not, and without its full stop."""
    lost = ResponseNeverReceived([Failure(ValueError("Too many headers."))])
    wrapped, outer = RuntimeError(str(lost)), RuntimeError("outer")
    wrapped.__context__, wrapped.__cause__, outer.__cause__ = lost, wrapped, wrapped
    assert _cause(Failure(lost)) == _cause(Failure(outer)) == "Too many headers"
    assert _cause(Failure(ValueError("Too large."))) == "Too large"
