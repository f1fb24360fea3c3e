"""Bodies of every kind, from recorded and regular ones to those that were made to hurt."""

import contextlib
import gzip
import json
import re
import time
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.events import scan
from datasync_crawler.events.decoding import PageDecoder, PageFormat, WireError, WirePage
from datasync_crawler.events.event import Event, Rejection
from datasync_crawler.events.timestamps import normalize_timestamps

DECODER = PageDecoder()
BARE = PageDecoder(PageFormat(events_key="", total_key=""))


def one(served: bytes) -> Event:
    """The event of a page that holds it alone."""
    page = DECODER.decode(b"[" + served + b"]")
    assert (page.received, page.rejections) == (1, [])
    return page.events[0]


def refused(served: bytes) -> str:
    """The reason why an event is rejected; its raw bytes are checked on the way."""
    body = b'{"data":[{"id":"first"}, ' + served + b' ,{"id":"last"}],"meta":{"total":3}}'
    page = DECODER.decode(body)
    assert ids(page) == ["first", "last"]
    assert page.indexes == [0, 2]
    assert (page.received, page.total) == (3, 3)
    assert [(r.index, r.raw) for r in page.rejections] == [(1, served)]
    assert DECODER.raw_events(body, [1]) == [served]
    return page.rejections[0].reason


def ids(page: WirePage) -> list[str]:
    return [event.id for event in page.events]


def why_not(body: bytes, decoder: PageDecoder = DECODER) -> str:
    with pytest.raises(WireError) as caught:
        decoder.decode(body)
    return caught.value.reason


def recorded_page() -> bytes:
    for folder in Path(__file__).resolve().parents:
        found = folder / "shared" / "data" / "recorded-events-page.json.gz"
        if found.exists():
            return gzip.decompress(found.read_bytes())
    pytest.skip("no recorded page beside this checkout")


def test_the_recorded_page_gives_its_events_with_the_right_instants() -> None:
    """5,000 real events, every third with a number as timestamp, and the server's own words."""
    body = recorded_page()
    page = DECODER.decode(body)
    assert (page.received, page.rejections, page.indexes, page.plain) == (5000, [], None, True)
    assert (page.total, page.limit, page.has_more) == (3_000_000, 5000, True)
    assert page.cursor_expires_in_s == 116
    assert page.request_id == "afcc9fc6-6b76-4160-b0cb-261aa3c2fd0d"
    assert page.next_cursor is not None
    assert normalize_timestamps(page.events) == []
    for event, served in zip(page.events, json.loads(body)["data"], strict=True):
        said = served["timestamp"]
        if isinstance(said, int):
            instant = datetime.fromtimestamp(said // 1000, UTC).replace(
                microsecond=said % 1000 * 1000
            )
        else:
            instant = datetime.strptime(said, "%Y-%m-%dT%H:%M:%S.%f%z")
        assert (event.id, event.timestamp) == (served["id"], instant)
        assert json.loads(bytes(event.properties or b"")) == served["properties"]
        assert json.loads(bytes(event.session or b"")) == served["session"]


def test_the_slower_roads_give_the_same_page() -> None:
    """One bad event at the end, for msgspec alone and for the scanner: all others are the same."""
    body = recorded_page()
    quick = DECODER.decode(body)
    for bad in (b'{"id":null}', b'{"id":NaN}'):
        page = DECODER.decode(body.replace(b'],"pagination"', b"," + bad + b'],"pagination"'))
        assert page.events == quick.events
        assert page.rejections[0].raw == bad
        assert (page.total, page.limit, page.next_cursor) == (3_000_000, 5000, quick.next_cursor)


# What an event's fields may be


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        (b"{}", "id: missing"),
        (b'{"id":null}', "id: null"),
        (b'{"id":""}', "id: empty"),
        (b'{"id":1.5}', "id: neither text nor an integer"),
        (b'{"id":true}', "id: neither text nor an integer"),
        (b'{"id":["a"]}', "id: neither text nor an integer"),
        (b"null", "event: not an object"),
        (b'"text"', "event: not an object"),
        (b"[1, 2]", "event: not an object"),
        (b"7", "event: not an object"),
        (b'{"id":"a","properties":"\xff"}', "event: invalid UTF-8"),
        (b'{"id":"\xed\xa0\x80"}', "event: invalid UTF-8"),
        (
            b'{"id":"a","name":"\\u0000"}',
            "event: holds \\u0000, which PostgreSQL can't store",
        ),
        (
            b'{"id":"a","x":{"y":"\\\\\\u0000"}}',
            "event: holds \\u0000, which PostgreSQL can't store",
        ),
        (b'{"id":"a","name":7,"timestamp":' + b"9" * 5000 + b"}", "timestamp: a number of too "),
        (b'{"id":"a","properties":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "event: nested too"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_event_that_cannot_be_stored_costs_itself_alone(served: bytes, reason: str) -> None:
    """Its neighbours are kept, its bytes are exact, its reason is short and without content."""
    said = refused(served)
    assert said.startswith(reason)
    assert len(said) <= 100


@pytest.mark.parametrize(
    "value",
    [b"NaN", b"-Infinity", b'"\\ud800"', b'"\\udc00"', b'"a\nb"', b"01", b"[1}", b'"\\q"'],
)
def test_json_that_a_parser_refuses_costs_one_event(value: bytes) -> None:
    """A value that makes msgspec refuse the whole page is cut out with its event."""
    assert refused(b'{"id":"a","x":' + value + b"}").startswith("event: not valid JSON")


def test_ids_are_text_or_integers() -> None:
    """A number is its decimal text, whatever its size, also where only some ids are numbers."""
    page = DECODER.decode(b'[{"id":1},{"id":-0},{"id":"c"},{"id":123456789012345678901234567890}]')
    assert ids(page) == ["1", "0", "c", "123456789012345678901234567890"]
    assert {type(event) for event in page.events} == {Event}
    page = DECODER.decode(b'[{"id":1},{"id":-0},{"id":"c"},{"id":"d","name":5}]')
    assert ids(page) == ["1", "0", "c", "d"]
    assert one(b'{"id":' + b"9" * 5000 + b"}").id == "9" * 5000


def test_other_text_columns_take_what_they_get() -> None:
    """Text as it is; other values as the JSON text that was served; null and missing are None."""
    event = one(b'{"id":"a","sessionId":1.50,"userId":{"a": [1]},"type":true,"name":null}')
    assert (event.session_id, event.user_id, event.type) == ("1.50", '{"a": [1]}', "true")
    assert event.name is None
    event = one(b'{"id":"a","name":"t\\u00e9\\n","x":1}')
    assert event.name == "té\n"


@pytest.mark.parametrize("road", [b"", b',"x":1', b',"name":1'])
def test_json_columns_stay_as_served_and_null_is_none(road: bytes) -> None:
    """Every digit and blank of properties and session is kept, on every road; null is None."""
    number = b'{"n": 123456789012345678901234567890.10, "m":1e400}'
    event = one(b'{"id":"a","properties":' + number + b',"session":null' + road + b"}")
    assert bytes(event.properties or b"") == number
    assert event.session is None
    event = one(b'{"id":"a","properties":null,"session":[ ]' + road + b"}")
    assert (event.properties, bytes(event.session or b"")) == (None, b"[ ]")


def test_unknown_fields_are_kept_as_served() -> None:
    """Fields without a column, one called "extra" among them, end in `extra`, byte for byte."""
    event = one(
        b'{"new":[1, 2.50],"id":"a","extra":{"b":null},"k\\"\xc3\xa9":NULL}'.replace(
            b"NULL", b"null"
        )
    )
    assert bytes(event.extra or b"") == b'{"new":[1, 2.50],"extra":{"b":null},"k\\"\xc3\xa9":null}'
    assert bytes(one(b'{"id":"a","x":"1"}').extra or b"") == b'{"x":"1"}'
    assert one(b'{"id":"a","name":1}').extra is None


@pytest.mark.parametrize("road", [b"", b',"x":1', b',"name":1'])
def test_timestamps_come_as_they_are(road: bytes) -> None:
    """Numbers with a fraction are Decimals, so that nothing is lost before the rules see it."""
    event = one(b'{"id":"a","timestamp":1769541612.3691239' + road + b"}")
    assert event.timestamp == Decimal("1769541612.3691239")
    assert one(b'{"id":"a","timestamp":null' + road + b"}").timestamp is None
    assert one(b'{"id":"a","timestamp":1e99999999999999999999' + road + b"}").timestamp > 1e300


def test_a_key_that_comes_twice_counts_last() -> None:
    """In an event and in the envelope, on every road."""
    assert ids(DECODER.decode(b'{"data":[],"data":[{"id":"a","id":"b"}]}')) == ["b"]
    assert ids(DECODER.decode(b'{"data":null,"data":[{"id":"a","id":"b","x":1}]}')) == ["b"]
    assert ids(DECODER.decode(b'{"data":7,"data":[{"id":"a"},NaN]}')) == ["a"]


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    r"""The text \u0000, written with an escaped backslash, is stored like any other."""
    assert one(b'{"id":"a","name":"\\\\u0000"}').name == "\\u0000"


# What a page may be


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b"\xef\xbb\xbf", "the body is empty"),
        (b"<!doctype html><html></html>", "the body is HTML or XML, not JSON"),
        (b"null", 'the body is null, no list at "data"'),
        (b"7", 'the body is a single value, no list at "data"'),
        (b"{}", 'the body has no list at "data"'),
        (b'{"data":null}', 'the body has no list at "data"'),
        (b'{"data":{"id":"a"}}', 'the body has no list at "data"'),
        (
            b'{"error":"Too Many Requests","code":"RATE_LIMITED","message":"secret"}',
            'the body is an error object (Too Many Requests, RATE_LIMITED), no list at "data"',
        ),
        (
            rb'{"error":"no\n2026-01-01 INFO: complete\u001b[2J"}',
            'the body is an error object (no 2026-01-01 INFO: complete [2J), no list at "data"',
        ),
        (b'{"data":[{"id":"a"}', "the body is cut short"),
        (b'{"data":[{"id":"a"}]', "the body is cut short"),
        (b'{"data":[{"id":"a', "the body is cut short"),
        (b'{"data":[{"id":"a}]}', "the body is cut short"),
        (b"[", "the body is cut short"),
        (b'"', "the body is cut short"),
        (b'{"data":[NaN],"meta":"cut', "the body is cut short"),
        (b'{"data":' + b"[" * 100_000, "the body is cut short"),
        (b"[]]", "the body is not JSON: something follows its end"),
        (b"[{},]", "the body is not JSON: malformed between its events"),
        (b'[{"id":"a"}{"id":"b"}]', "the body is not JSON: malformed between its events"),
        (b'{"data" [NaN]}', "the body is not JSON: malformed between its events"),
        (b'{"data":[NaN] 1}', "the body is not JSON: malformed between its events"),
        (b'{"data":[NaN],"meta":tru}', "the body is not JSON outside its events"),
        (b'{data:[{"id":"a"}]}', "the body is not JSON outside its events"),
        (b'{"data":[NaN],"m":1e99999999999999999999}', "the body is not JSON outside its events"),
        (b"]", "the body is not JSON: malformed between its events"),
        (b"\x00\xff", "the body is not JSON outside its events"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_page_is_refused_with_a_sentence(body: bytes, reason: str) -> None:
    """A body without a list of events is never taken for an empty page."""
    assert why_not(body) == reason


def test_a_list_without_events_is_a_page() -> None:
    """Bare or in its envelope: received 0, nothing rejected."""
    for body in (b"[]", b" [ ] ", b'{"data":[]}', b'{"data": [ ], "x": "\\u0000"}'):
        page = DECODER.decode(body)
        assert (page.received, page.events, page.rejections) == (0, [], [])
    assert scan.cut(b"[ ]", (), 10) == ([], {})


def test_a_refused_body_keeps_the_request_id() -> None:
    """The API's own name of the request is there for the log line, wherever it said it."""
    for body in (b'{"error":"x","requestId":"r1"}', b'{"data":null,"meta":{"requestId":"r1"}}'):
        with pytest.raises(WireError) as caught:
            DECODER.decode(body)
        assert caught.value.request_id == "r1"
    with pytest.raises(WireError) as caught:
        DECODER.decode(b"null")
    assert caught.value.request_id is None


@pytest.mark.parametrize("event", [b'{"id":"a"}', b'{"id":"a"},{"id":0.5}', b'{"id":"a"},NaN'])
def test_list_and_total_are_found_by_their_paths(event: bytes) -> None:
    """Dotted paths, side by side or apart, on every road; a bare list whatever they say."""
    cases = [
        ("data", "meta.total", b'{"data":[%b],"meta":{"total":9}}'),
        ("response.items", "response.count", b'{"response":{"items":[%b],"count":9}}'),
        ("response.items", "response.page.n", b'{"response":{"page":{"n":"9"},"items":[%b]}}'),
        ("hits", "total", b'{"total":9,"hits":[%b]}'),
        ("meta.rows", "meta.total", b'{"meta":{"total":9,"rows":[%b]}}'),
    ]
    for events_key, total_key, body in cases:
        decoder = PageDecoder(PageFormat(events_key, total_key))
        page = decoder.decode(body % event)
        assert (ids(page), page.total) == (["a"], 9)
        assert decoder.raw_events(body % event, [0]) == [b'{"id":"a"}']
        bare = decoder.decode(b" " * 100 + b"[%b]" % event)
        assert (ids(bare), bare.total) == (["a"], None)
    assert why_not(b'{"data":[]}', BARE) == "the body has no list"
    assert why_not(b'{"a":[{"x":[]}]}', PageDecoder(PageFormat("a.x"))).endswith('at "a.x"')
    assert ids(BARE.decode(b"[%b]" % event)) == ["a"]


@pytest.mark.parametrize(
    ("said", "total", "problem"),
    [
        (b"3000000", 3_000_000, None),
        (b'"3000000"', 3_000_000, None),
        (b"0", 0, None),
        (b"null", None, None),
        (b"-1", None, "negative"),
        (b"123.0", 123, None),
        (b"1e3", 1000, None),
        (b"-0.0", 0, None),
        (b"1e400", None, "beyond 1,000,000,000,000,000"),
        (b'"123.0"', None, "not a whole number"),
        (b'""', None, "not a whole number"),
        (b"true", None, "not a whole number"),
        (b"1.5", None, "not a whole number"),
        (b'"many"', None, "not a whole number"),
        (b'"\xc2\xb2"', None, "not a whole number"),
        (b'"-5"', None, "not a whole number"),
        (b"[1]", None, "not a whole number"),
        (b"NaN", None, "not a whole number"),
        (b"9" * 5000, None, "not a whole number"),
        (b"10000000000000000", None, "beyond 1,000,000,000,000,000"),
        (b'"9999999999999999"', None, "beyond 1,000,000,000,000,000"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_total_is_a_whole_number_or_a_problem(
    said: bytes, total: int | None, problem: str | None
) -> None:
    """Only what can be a count is one; the rest is named, and costs no event."""
    page = DECODER.decode(b'{"data":[{"id":"a"}],"meta":{"total":' + said + b"}}")
    assert (page.received, page.total) == (1, total)
    assert page.total_problem == (problem and f"the body's total is {problem}")


@pytest.mark.parametrize("name", ["r\n2026-11-23 INFO: complete", "\x1b[2J", "r" * 201])
def test_a_request_id_that_would_write_its_own_lines_is_left_out(name: str) -> None:
    """It goes into the log: no line break, no control sequence, nothing endless."""
    with pytest.raises(WireError) as caught:
        DECODER.decode(json.dumps({"data": None, "meta": {"requestId": name}}).encode())
    assert caught.value.request_id is None


@pytest.mark.parametrize("meta", [b"null", b"[]", b'"x"', b"7", b'{"requestId":["r"]}'])
def test_an_envelope_of_another_shape_costs_no_event(meta: bytes) -> None:
    """What stands beside the list may be anything; then it says nothing."""
    page = DECODER.decode(b'{"data":[{"id":"a"}],"meta":%b,"pagination":%b}' % (meta, meta))
    assert ids(page) == ["a"]
    assert (page.total, page.limit, page.has_more, page.next_cursor) == (None,) * 4
    assert (page.cursor_expires_in_s, page.request_id) == (None, None)


@pytest.mark.parametrize("event", [b'{"id":"a"}', b'{"id":"a"},NaN'])
def test_pagination_is_read(event: bytes) -> None:
    """Limit, hasMore, cursor and its seconds, and the request's id, as text or number."""
    page = DECODER.decode(
        b'{"data":[%b],"requestId":17,"pagination":'
        b'{"limit":"500","hasMore":false,"nextCursor":12.50,"cursorExpiresIn":115.5}}' % event
    )
    assert (page.limit, page.has_more, page.next_cursor) == (500, False, "12.50")
    assert (page.cursor_expires_in_s, page.request_id) == (115.5, "17")
    page = DECODER.decode(
        b'{"data":[%b],"pagination":'
        b'{"limit":-1,"hasMore":"no","nextCursor":"","cursorExpiresIn":-3}}' % event
    )
    assert (page.limit, page.has_more, page.next_cursor) == (None, None, None)
    assert page.cursor_expires_in_s is None
    page = DECODER.decode(b'{"data":[],"pagination":{"cursorExpiresIn":true,"nextCursor":false}}')
    assert (page.cursor_expires_in_s, page.next_cursor) == (None, None)


@pytest.mark.parametrize("event", [b'{"id":"a"}', b'{"id":"a"},NaN'])
def test_what_stands_at_the_top_level_is_read(event: bytes) -> None:
    """The API's documentation has hasMore and nextCursor there, the recording under pagination."""
    page = DECODER.decode(
        b'{"data":[%b],"hasMore":true,"nextCursor":"c","cursorExpiresIn":9,"total":7}' % event
    )
    assert (page.has_more, page.next_cursor, page.cursor_expires_in_s) == (True, "c", 9)
    assert (page.total, page.next_url) == (7, None)
    page = DECODER.decode(
        b'{"data":[%b],"hasMore":true,"nextCursor":"outer",'
        b'"pagination":{"hasMore":false,"nextCursor":"inner"}}' % event
    )
    assert (page.has_more, page.next_cursor) == (False, "inner")


@pytest.mark.parametrize(
    ("beside", "total", "problem"),
    [
        (b'"meta":{"total":1},"pagination":{"total":2},"total":3,"count":4', 1, False),
        (b'"meta":{},"pagination":{"total":2},"total":3,"count":4', 2, False),
        (b'"meta":[],"pagination":null,"total":3,"count":4', 3, False),
        (b'"count":4', 4, False),
        (b'"meta":{"total":null},"count":4.0', 4, False),
        (b'"meta":{"total":"many"},"total":"3"', 3, True),
        (b'"meta":{"total":"many"}', None, True),
    ],
)
def test_a_total_is_looked_for_where_apis_put_it(
    beside: bytes, total: int | None, problem: bool
) -> None:
    """The first usable one counts; a TOTAL_KEY looks in its own place alone."""
    body = b'{"data":[{"id":"a"}],' + beside + b"}"
    page = DECODER.decode(body)
    assert (page.total, page.total_problem is not None) == (total, problem)
    assert PageDecoder(PageFormat(total_key="info.total")).decode(body).total is None


@pytest.mark.parametrize(
    ("beside", "cursor", "url"),
    [
        (b'"next":"https://h/events?cursor=c%3D"', None, "https://h/events?cursor=c%3D"),
        (b'"next":"/events?page=2","previous":null', None, "/events?page=2"),
        (b'"links":{"next":"?page=2"}', None, "?page=2"),
        (b'"links":{"next":{"href":"/x?y"}}', None, None),
        (b'"next":null', None, None),
        (b'"next":2', None, None),
        (b'"next":"dG9rZW4="', "dG9rZW4=", None),
        (b'"nextCursor":"a?b","next":"/events?cursor=a%3Fb"', "a?b", "/events?cursor=a%3Fb"),
    ],
)
def test_the_next_page_is_a_cursor_or_an_address(
    beside: bytes, cursor: str | None, url: str | None
) -> None:
    """As Django REST framework has it, or JSON:API; under the name of a cursor it is a cursor."""
    page = DECODER.decode(b'{"data":[{"id":"a"}],' + beside + b"}")
    assert (page.next_cursor, page.next_url) == (cursor, url)


def test_a_next_key_is_the_only_place() -> None:
    """A dotted path of the user's own: an address or a cursor, text or number."""
    decoder = PageDecoder(PageFormat(next_key="result.after", events_key="result.rows"))
    for said, expected in (
        (b'"t/+="', ("t/+=", None)),
        (b"17", ("17", None)),
        (b'"https://h/x"', (None, "https://h/x")),
    ):
        page = decoder.decode(b'{"next":"/x?y","result":{"rows":[{"id":"a"}],"after":%b}}' % said)
        assert (page.next_cursor, page.next_url) == expected


def test_a_cursor_beyond_reading_is_no_end() -> None:
    """A page whose cursor can't be read is refused: without it, it would look like the last one."""
    body = b'{"data":[{"id":"a"}],"nextCursor":"' + b"c" * 70_000 + b'"}'
    assert why_not(body) == '"nextCursor" can\'t be read'


def test_plain_is_said_of_bodies_without_anything_to_escape() -> None:
    """On every road, so that COPY can trust it."""
    assert DECODER.decode(b'[{"id":"a"}]').plain
    assert not DECODER.decode(b'[{"id":"a\\t"}]').plain
    assert DECODER.decode(b'[{"id":"a"},7]').plain
    assert not DECODER.decode(b'[{"id":"a"},\n7]').plain


def test_a_string_of_fifty_megabytes_ends_in_one_rejection() -> None:
    """Millions of escapes in one string, on the slowest road: bounded work, no event lost."""
    served = b'{"id":"a","x":NaN,"name":"' + b"\\n" * 25_000_000 + b'"}'
    page = DECODER.decode(b'{"data":[' + served + b',{"id":"b"}]}')
    assert ids(page) == ["b"]
    assert page.rejections[0].raw == served[:1_000_000]
    assert page.rejections[0].reason.endswith("(its first 1,000,000 bytes)")


# What is too large

MANY = 5_000_000
TOO_LARGE = {
    "events": b"[" + b'{"id":"a"},' * MANY + b'{"id":"a"}]',
    "objects": b'{"data":[' + b"{}," * MANY + b"{}]}",
    "numbers": b'{"data":[' + b"1," * MANY + b"1]}",
    "nothing": b'{"data":[NaN,' + b"1," * MANY + b"1]}",
    "lists-beside": b'{"data":[{"id":"a"}],"meta":[' + b"[]," * MANY + b"1]}",
    "lists-instead": b'{"data":null,"meta":[' + b"[]," * MANY + b"1]}",
    "lists-beside-nan": b'{"data":[NaN],"meta":[' + b"[]," * MANY + b"1]}",
    "names-beside": b'{"data":[NaN]' + b',"":1' * MANY + b"}",
    "timestamp": b'[{"id":"a","timestamp":[' + b"1.5," * MANY + b"1]}]",
    "timestamp-escaped": b'[{"id":"a","\\u0074imestamp":[' + b"1.5," * MANY + b"1]}]",
    "timestamp-twice": b'[{"id":"a","timestamp":[' + b"1.5," * MANY + b'1],"timestamp":1.5}]',
    "fields": b'[{"id":"a"' + b',"x":1' * MANY + b"}]",
    "fields-numbered": b'[{"id":1.5' + b"".join(b',"%d":1' % n for n in range(MANY // 2)) + b"}]",
}


@pytest.mark.parametrize("body", TOO_LARGE.values(), ids=TOO_LARGE)
def test_no_body_takes_much_more_memory_than_it_has_bytes(body: bytes) -> None:
    """Of millions of values at most a few are built, whatever becomes of the page."""
    tracemalloc.start()
    try:
        with contextlib.suppress(WireError):
            DECODER.decode(body, most_events=50_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(body) + 30_000_000


@pytest.mark.parametrize("event", [b'{"id":"a"}', b'{"id":"a","x":1}', b"1", b"NaN"])
def test_a_page_far_longer_than_asked_for_is_refused(event: bytes) -> None:
    """On every road, with a sentence; one event less is a page."""
    body = b'{"data":[%b]}'
    assert DECODER.decode(body % b",".join([event] * 10), most_events=10).received == 10
    with pytest.raises(WireError, match="the body holds more than 10 events, far more than were"):
        DECODER.decode(body % b",".join([event] * 11), most_events=10)


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":[{"id":"a","properties":' + b"[" * 2_100_000,
        b'{"data":[{"id":"a","timestamp":1' + b',"f":{}' * 2_100_000 + b"}]}",
        b'{"data":[{"id":"a","timestamp":1,"type":[' + b"[]," * 2_100_000 + b"1]}]}",
    ],
    ids=["depth", "fields", "a type"],
)
def test_a_body_of_millions_of_brackets_is_refused(body: bytes) -> None:
    """Where the quickest way doesn't take it: 60 MB of them took up to half a minute."""
    began = time.process_time()
    with pytest.raises(WireError, match="holds more than 2,000,000 lists and objects"):
        DECODER.decode(body)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("separator", [b",", b" ,\n"])
@pytest.mark.parametrize("event", [b'{"id":"a"}', b"[[1],{}]", b'"],"', b"1", b"NaN"])
def test_events_are_counted_without_being_built(separator: bytes, event: bytes) -> None:
    """As many as there are, up to the limit; what isn't regular is left to the scanner."""
    for body, path in ((b"[%b]", ()), (b'{"a":[0],"data":{"rows": [%b ]}}', ("data", "rows"))):
        for number in range(1, 5):
            served = body % separator.join([event] * number)
            assert scan.count(served, path, 3) == number
        assert scan.count(body % b"", path, 3) == 0
        assert scan.count(body % b"1 1", path, 3) is None
    assert scan.count(b'{"data":1}', ("data",), 3) is None
    assert scan.count(b'{"data', ("data",), 3) is None


def test_an_event_of_too_many_fields_costs_itself_alone() -> None:
    """Ten thousand fields are kept, one more is a rejection, and its bytes are there."""
    names = [b'"%d":1' % number for number in range(9_999)]
    served = b'{"id":"a",' + b",".join(names) + b"}"
    assert len(json.loads(bytes(one(served).extra or b""))) == 9_999
    assert refused(served[:-1] + b',"x":1}') == "event: more than 10,000 fields"


# Properties

GOOD = st.sampled_from(
    [
        b'{"id":"%d"}',
        b'{"id":"%d", "properties" : {"a": "]}"}}',
        b'{"id":"%d","name":"\\\\\\" ] } , \xc3\xa9"}',
        b'{\n\t"id":"%d",\r\n"x":[[[]]]}',
        b'{"id":%d,"name":null}',
    ]
)
BAD = st.sampled_from(
    [
        b"null",
        b'{"id":null}',
        b'{"id":"a","x":NaN}',
        b'{"id":"a","x":"\\ud800 ]"}',
        b'{"id":"a","name":"\xff\\""}',
        b'{"id":"a","name":"\\u0000"}',
        b"[[],[{}]]",
        b'{"id":{"a":"}"}}',
    ]
)
SPACE = st.sampled_from([b"", b" ", b"\n\t", b"\r\n"])


@given(st.lists(st.tuples(st.booleans(), GOOD, BAD, SPACE, SPACE), max_size=8))
def test_any_mixture_keeps_the_good_and_names_the_bad(
    drawn: list[tuple[bool, bytes, bytes, bytes, bytes]],
) -> None:
    """Nothing lost, nothing invented: positions, ids and exact bytes add up to the page."""
    served = [
        good % position if is_good else bad
        for position, (is_good, good, bad, _, _) in enumerate(drawn)
    ]
    body = b",".join(
        before + event + after
        for event, (_, _, _, before, after) in zip(served, drawn, strict=True)
    )
    body = b'{ "data" :[' + body + b'] , "meta":{"total":8}}'
    page = DECODER.decode(body)
    assert page.received == len(page.events) + len(page.rejections) == len(drawn)
    assert page.total == 8
    positions = [position for position, (is_good, *_) in enumerate(drawn) if is_good]
    assert ids(page) == [str(position) for position in positions]
    kept = range(page.received) if page.indexes is None else page.indexes
    assert list(kept) == positions
    assert [(r.index, r.raw) for r in page.rejections] == [
        (position, served[position]) for position in range(len(drawn)) if position not in positions
    ]
    assert DECODER.raw_events(body, range(len(drawn))) == served


JSONISH = st.lists(
    st.sampled_from(
        [bytes([sign]) for sign in b'{}[],:"\\1- \n\xff']
        + [b'"data"', b'"id"', b"null", b"NaN", b"\\u0000", b"\xef\xbb\xbf"]
        + [b'{"data":[', b'{"id":"a"}']
    ),
    max_size=12,
).map(b"".join)


@given(st.binary() | JSONISH)
def test_no_bytes_raise_anything_but_wire_error(body: bytes) -> None:
    """Whatever a server sends, it is a page that adds up or a WireError with a short sentence."""
    for decoder in (DECODER, BARE):
        try:
            page = decoder.decode(body)
        except WireError as error:
            adds_up = 0 < len(error.reason) <= 250
        else:
            raws = decoder.raw_events(body, range(page.received))
            adds_up = page.received == len(page.events) + len(page.rejections) == len(raws)
        assert adds_up


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.lists(JSON, max_size=4))
def test_the_scanner_cuts_where_a_parser_would(values: list[object]) -> None:
    """Each cut piece is the JSON of one element, whatever it holds."""
    body = json.dumps({"meta": values, "data": values}).encode()
    pieces, facts = scan.cut(body, ("data",), 10)
    assert pieces == [json.dumps(value).encode() for value in values]
    assert [json.loads(piece) for piece in pieces] == values
    assert facts["data"] == []


def test_rejections_of_a_page_are_values_that_can_be_grouped() -> None:
    """Reasons hold no content, so that a thousand bad events are a few groups."""
    page = DECODER.decode(b'[{"id":1.5},{"id":2.5},{"id":null}]')
    assert page.rejections == [
        Rejection(0, "id: neither text nor an integer", b'{"id":1.5}'),
        Rejection(1, "id: neither text nor an integer", b'{"id":2.5}'),
        Rejection(2, "id: null", b'{"id":null}'),
    ]
    assert not any(re.search(r"[12]\.5", rejection.reason) for rejection in page.rejections)
    assert isinstance(page.events, list)
    assert msgspec.json.encode(page.events) == b"[]"
