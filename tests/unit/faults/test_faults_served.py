"""Each misbehaviour, seen by a client."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults.mock import badevents
from faults.sequence import INSERTED_FROM
from faults.truth import truth, truths

from datasync_crawler.mockapi.faults import REGISTER, fault_list, parse_fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from inprocess import Answer, InProcess

    Start = Callable[..., InProcess]

PAGE = {"offset": 1000, "limit": 500}


def struck(start: Start, spec: str, **query: object) -> Answer:
    """Ask for one page under one fault."""
    name = spec.partition(":")[0]
    glue = "," if ":" in spec else ":"
    api = start(fault=(f"{spec}{glue}start=1",))
    answer = api.get(**(query or PAGE))
    assert api.stats()["entries"][-1]["faults"] == [name]
    return answer


def ids(answer: Answer) -> list[str]:
    return [event["id"] for event in answer.json()["data"]]


def true_ids(first: int, stop: int) -> list[str]:
    return [true.id for true in truths(1, first, stop)]


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503, 504])
def test_statuses(mock: Start, status: int) -> None:
    """Error statuses come as such."""
    assert struck(mock, str(status)).status == status


@pytest.mark.parametrize(
    ("spec", "header"),
    [
        ("429:retry_after=7", "7"),
        ("429:form=none", None),
        ("429:form=body-only", None),
        ("429:form=negative", "-5"),
        ("429:form=text", "soon"),
        ("503:retry_after=3", "3"),
        ("503", None),
    ],
)
def test_retry_after(mock: Start, spec: str, header: str | None) -> None:
    """Retry-After comes in the form asked for, or not at all."""
    answer = struck(mock, spec)
    assert answer.headers.get("Retry-After") == header
    if spec.startswith("429"):
        assert ("rateLimit" in answer.json()) == (
            spec in ("429:retry_after=7", "429:form=body-only")
        )


def test_retry_after_as_a_date(mock: Start) -> None:
    """Retry-After comes as an HTTP date."""
    assert struck(mock, "429:form=http-date").headers["Retry-After"].endswith("GMT")


def test_bodies_that_are_no_page(mock: Start) -> None:
    """200 with HTML, nothing, half a document, null, an error object."""
    assert struck(mock, "html").headers["Content-Type"] == "text/html"
    assert struck(mock, "empty-body").body == b""
    half = struck(mock, "half-json").body
    assert half.startswith(b'{"data":[')
    with pytest.raises(json.JSONDecodeError):
        json.loads(half)
    assert struck(mock, "null-body").body == b"null"
    assert struck(mock, "error-object").json()["code"] == "INTERNAL_ERROR"


def test_redirect(mock: Start) -> None:
    """A redirect names another host."""
    answer = struck(mock, "redirect:to=http://elsewhere.invalid:81/x")
    assert (answer.status, answer.headers["Location"]) == (302, "http://elsewhere.invalid:81/x")


@pytest.mark.parametrize("spec", ["reset-before", "reset-mid"])
def test_resets(mock: Start, spec: str) -> None:
    """The client sees a reset connection, not an orderly end."""
    with pytest.raises(ConnectionResetError):
        struck(mock, spec)


@pytest.mark.parametrize("spec", ["cut-length", "cut-chunked"])
def test_cuts(mock: Start, spec: str) -> None:
    """The client sees the body end too early."""
    with pytest.raises(http.client.IncompleteRead):
        struck(mock, spec)


def test_chunked_is_whole(mock: Start) -> None:
    """A chunked body is a good one."""
    answer = struck(mock, "chunked")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert ids(answer) == true_ids(1000, 1500)


def begun(start: Start, spec: str, bytes_wanted: int) -> bytes:
    """Read the beginning of a response that never ends."""
    api = start(fault=(spec,))
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as client:
        client.sendall(
            b"GET /api/v1/events/bulk?limit=5 HTTP/1.1\r\nHost: x\r\nX-API-Key: demo-key\r\n\r\n"
        )
        if bytes_wanted:
            got = b""
            while len(got) < bytes_wanted:
                piece = client.recv(1 << 16)
                assert piece, "the mock ended the response"
                got += piece
            return got
        # Once it stands in the journal, nothing more will come.
        while not api.stats()["entries"]:
            pass
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1)
        return b""


def test_endings_that_never_come(mock: Start) -> None:
    """A hanging response, one that hangs in mid-body, and one without end; the mock ends anyway."""
    assert begun(mock, "hang:start=1", 0) == b""
    assert b'{"data":[' in begun(mock, "hang:mid=true,start=1", 500)
    assert begun(mock, "endless:start=1", 3_000_000).count(true_ids(0, 1)[0].encode()) > 100


def test_slow_is_late_but_whole(mock: Start) -> None:
    """A slow response is the right one."""
    assert ids(struck(mock, "slow:delay_ms=1")) == true_ids(1000, 1500)


def test_gzip_bomb_unpacks_large(mock: Start) -> None:
    """A small body unpacks to many times its size."""
    answer = struck(mock, "gzip-bomb:megabytes=5")
    assert len(answer.body) < 20_000
    assert len(gzip.decompress(answer.body)) > 5_000_000


def test_first_event_is_hostile(mock: Start) -> None:
    """Deep nesting, a huge string and NaN stand in the first event; the others are good."""
    assert b"[" * 100_000 in struck(mock, "deep-nesting").body
    assert len(struck(mock, "huge-string:megabytes=2").body) > 2_000_000
    for value in ("NaN", "Infinity", "-Infinity"):
        body = struck(mock, f"nan:value={value}").body
        assert b'{"value":%s}' % value.encode() in body
        assert true_ids(1001, 1002)[0].encode() in body


def test_pages_that_hold_less(mock: Start) -> None:
    """Short, empty and capped pages hold the first of what was asked."""
    assert ids(struck(mock, "short-page:keep=0.1")) == true_ids(1000, 1050)
    empty = struck(mock, "empty-page").json()
    assert empty["data"] == []
    assert empty["meta"]["total"] == 3000
    capped = struck(mock, "capped-limit:limit=100")
    assert ids(capped) == true_ids(1000, 1100)
    assert capped.json()["pagination"]["limit"] == 100
    silent = struck(mock, "capped-limit:limit=100,echo=false").json()
    assert (len(silent["data"]), silent["pagination"]["limit"]) == (100, 500)
    assert ids(struck(mock, "capped-limit", **PAGE)) == true_ids(1000, 1500)


def test_pages_that_hold_others(mock: Start) -> None:
    """An ignored offset, a repeated page, ids twice in a page."""
    assert ids(struck(mock, "ignored-offset")) == true_ids(0, 500)
    assert ids(struck(mock, "repeated-page")) == true_ids(500, 1000)
    twice = ids(struck(mock, "duplicate-in-page:count=2"))
    assert twice == true_ids(1000, 1498) + true_ids(1000, 1002)


def test_missing_fields_are_marked(mock: Start) -> None:
    """Fields are missing from every n-th event, under the chaos header."""
    answer = struck(mock, "missing-fields:fields=timestamp+id,each=4")
    assert answer.headers["X-Chaos-Applied"] == "missingFields"
    lacking = [
        place
        for place, one in enumerate(answer.json()["data"])
        if not {"id", "timestamp"} & set(one)
    ]
    assert lacking == list(range(0, 500, 4))


def test_an_event_comes_in_other_formats(mock: Start) -> None:
    """The same events come with their timestamps in another format, all else unchanged."""
    plain = struck(mock, "chunked").json()["data"]
    api = mock(fault=("other-format",))
    pages = [api.get(**PAGE).json()["data"] for _ in range(4)]
    for place in range(500):
        instant_us = truth(1, 1000 + place).instant_us
        values = [page[place].pop("timestamp") for page in pages]
        assert len({str(value) for value in values}) == (2 if instant_us % 1_000_000 else 4)
        assert instant_us // 1000 in values
    for one in plain:
        one.pop("timestamp")
    assert pages == [plain] * 4


def test_has_more_lies(mock: Start) -> None:
    """`hasMore` is false, or missing, in mid-set."""
    assert struck(mock, "has-more").json()["pagination"]["hasMore"] is False
    assert "hasMore" not in struck(mock, "has-more:say=missing").json()["pagination"]
    assert struck(mock, "has-more:say=true", offset=3000).json()["pagination"]["hasMore"] is True


@pytest.mark.parametrize(
    ("say", "said"),
    [
        ("missing", None), ("stale", 2000), ("inflated", 4000), ("shrinking", 2000),
        ("negative", -1), ("text", "many"), ("null", "null"), ("zero", 0),
    ],
)  # fmt: skip
def test_totals_lie(mock: Start, say: str, said: object) -> None:
    """Header and body lie together or each alone."""
    header = None if said is None else str(said)
    for where, heads, bodies in (
        ("both", header, said), ("header", header, 3000), ("body", "3000", said),
    ):  # fmt: skip
        answer = struck(mock, f"total:where={where},say={say}")
        assert answer.headers.get("X-Total-Count") == heads
        assert answer.json()["meta"].get("total") == bodies
        assert ids(answer) == true_ids(1000, 1500)


def test_the_set_changes_under_way(mock: Start) -> None:
    """Growth, insertions and deletions happen before the page is cut, and stats tell the set."""
    assert struck(mock, "growing:by=5").json()["meta"]["total"] == 3005
    inserted = struck(mock, "shift-insert:at=10,count=3")
    assert ids(inserted) == true_ids(997, 1497)
    assert ids(struck(mock, "shift-delete:at=10,count=3")) == true_ids(1003, 1503)
    api = mock(fault=("shift-insert:at=10,count=3,start=1,times=1",))
    answer = api.get(offset=9, limit=5)
    assert ids(answer) == [
        truth(1, 9).id,
        *true_ids(INSERTED_FROM, INSERTED_FROM + 3),
        truth(1, 10).id,
    ]
    api.get(offset=9, limit=5)
    assert api.stats()["runs"] == [[0, 10], [INSERTED_FROM, 3], [10, 2990]]


def test_headers_lie(mock: Start) -> None:
    """Rate headers hold nonsense, or what a test wants them to."""
    assert struck(mock, "bad-rate-headers").headers["X-RateLimit-Reset"] == "banana"
    answer = struck(mock, "rate-headers:limit=3,remaining=0,reset=9")
    assert [answer.headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset")] == [
        *("3", "0", "9")
    ]
    assert struck(mock, "extra-envelope").json()["apiVersion"] == "9"


def test_expired_cursor(mock: Start) -> None:
    """Only a request with a cursor is struck by an expired one."""
    api = mock(fault=("cursor-expired:start=1",))
    first = api.get("/events", limit=5)
    assert first.status == 200
    cursor = first.json()["pagination"]["nextCursor"]
    assert api.get("/events", limit=5, cursor=cursor).json()["code"] == "CURSOR_EXPIRED"


def test_bad_events_are_on_the_page(mock: Start) -> None:
    """Bad events stand at their indices; the bytes are tested beside their module."""
    answer = struck(mock, "bad-events:kind=no-id,each=100")
    assert [place for place, one in enumerate(answer.json()["data"]) if "id" not in one] == [
        *(99, 199, 299, 399, 499)
    ]


def test_faults_combine(mock: Start) -> None:
    """Several faults on one request all have their say."""
    api = mock(fault=("short-page:keep=0.5,start=1", "total:say=missing", "chunked"))
    answer = api.get(**PAGE)
    assert (len(answer.json()["data"]), answer.headers.get("X-Total-Count")) == (250, None)
    assert answer.headers["Transfer-Encoding"] == "chunked"


def test_schedule_by_request_number(mock: Start) -> None:
    """`every`, `burst` and `times` count requests; a changed list keeps what was counted."""
    api = mock(fault=("503:every=3,burst=2,times=3",))
    assert [api.get(limit=1).status for _ in range(8)] == [200, 200, 503, 503, 200, 503, 200, 200]
    api.config(fault=["503:every=3,burst=2,times=3", "chunked"])
    assert [api.get(limit=1).status for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(
    "spec",
    [
        *("html:nope=1", "hang:mid=maybe", "total:say=what", "429:form=what"),
        *("bad-events:kind=what", "bad-events:each=1"),
    ],
)
def test_a_wrong_fault_is_refused(spec: str) -> None:
    """An unknown fault, key or value is refused with a sentence."""
    with pytest.raises(ValueError, match=r"\w+"):
        parse_fault(spec)


def test_every_fault_is_described() -> None:
    """The list names each fault and each kind of bad event with a sentence of its own."""
    lines = dict(line.split(maxsplit=1) for line in fault_list().splitlines())
    kinds = {f"bad-events:kind={kind}" for kind in badevents.KINDS}
    assert lines.keys() == REGISTER.keys() | kinds
    assert all(text.strip() for text in lines.values())


def test_every_fault_has_a_test() -> None:
    """Each fault of the register is named by a test of this module."""
    tests = Path(__file__).read_text(encoding="utf-8")
    assert not [name for name in REGISTER if not re.search(rf'["\[ ]{name}\b', tests)]
