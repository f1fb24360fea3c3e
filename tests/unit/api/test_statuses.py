"""What a status other than 200 means for the request that it answers."""

from __future__ import annotations

import pytest

from datasync_crawler.api.statuses import read_status, remedy
from datasync_crawler.crawl.values import (
    Ask,
    CursorExpired,
    Empty,
    Failed,
    LimitRefused,
    NoEndpoint,
    Outcome,
)

FRONT, LATER = Ask(1, 0, 100), Ask(1, 500, 99, 1)
START, ON = Ask(1, 0, 100, cursor=""), Ask(1, 300, 100, cursor="c7")


def read(status: int, ask: Ask, body: bytes = b"") -> Outcome:
    return read_status(status, body, "http://api/events/bulk?offset=0&limit=9", ask, "limit")


@pytest.mark.parametrize("status", [400, 404, 410, 422])
def test_an_expired_cursor_is_one_whatever_the_answer_calls_it(status: int) -> None:
    """400 "invalid page token", 410, 404, 422: start over; the first page has no cursor."""
    assert read(status, ON, b'{"error":"invalid page token"}') == CursorExpired(ON)
    assert not isinstance(read(status, START), CursorExpired)


@pytest.mark.parametrize("status", [204, 404, 416])
def test_nothing_there_is_an_empty_answer(status: int) -> None:
    """Below a total that is stale as well as behind the end; at the front 404 is no endpoint."""
    assert read(status, LATER) == Empty(LATER)
    assert isinstance(read(status, FRONT), NoEndpoint if status == 404 else Empty)


def test_a_limit_is_refused_when_the_answer_names_it() -> None:
    """At the front alone; another 400 says nothing of the limit."""
    assert read(400, FRONT, b'{"error":"Limit too large"}') == LimitRefused(FRONT)
    assert read(400, FRONT, b'{"error":"no"}') == Failed(FRONT, "HTTP 400")
    assert read(400, LATER, b"limit") == Failed(LATER, "HTTP 400")


def test_no_endpoint_is_named_without_its_query() -> None:
    """A query may hold anything."""
    found = read(405, FRONT)
    assert found == NoEndpoint("There is no bulk endpoint at http://api/events/bulk (HTTP 405)")


@pytest.mark.parametrize(
    ("status", "words"),
    [(302, "Redirects"), (405, "BULK_PATH"), (400, "LIMIT_PARAM"), (401, None), (503, None)],
)
def test_what_trying_again_doesnt_mend_has_a_remedy(status: int, words: str | None) -> None:
    """A refused key has its own sentence; a 5xx may pass."""
    said = remedy(status)
    assert (said is None) if words is None else (words in str(said))


@pytest.mark.parametrize(
    "body",
    [
        b"<center>The plain HTTP request was sent to HTTPS port</center>",  # nginx 1.26
        b"Client sent an HTTP request to an HTTPS server.\n",  # Go's net/http
        b"Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",  # Apache 2.4
    ],
)
def test_a_server_that_speaks_https_says_so_itself(body: bytes) -> None:
    """Its 400 is about the scheme, not about a parameter."""
    assert "speaks https" in (remedy(400, body) or "")
    assert "BULK_PAGE_SIZE" in (remedy(400, b'{"error":"https required"}') or "")
