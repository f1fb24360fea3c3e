"""What stands in an answer beside its events, and its address."""

from __future__ import annotations

import pytest

from datasync_crawler.api import answers
from datasync_crawler.api.addresses import Addresses, next_address
from datasync_crawler.crawl.values import Ask
from datasync_crawler.events.decoding import PageDecoder

PLAIN = Addresses("http://a/bulk", "http://a/events", "offset", "limit", "cursor")


def known_by(body: bytes) -> list[str]:
    return list(answers.known_by(PageDecoder().decode(body)))


def test_events_are_known_by_their_ids_or_bytes() -> None:
    """Also those that can't be stored; the same event has the same name in each answer."""
    ids = known_by(b'[{"id":"a"},{"id":7},{"id":""},{"name":1},{"id":"b","name":"\\u0000"},5]')
    assert (ids[0], ids[1], ids[4]) == ("a", "7", "b")
    assert all(one.startswith("#") for one in (ids[2], ids[3], ids[5]))
    assert len(set(ids)) == 6
    assert known_by(b'[{"name":1}]') == [ids[3]]


def test_a_long_id_is_known_by_a_hash() -> None:
    """The ledger keeps a few ids of each page: none may be a megabyte."""
    long = "x" * 1_000_000
    (one,) = known_by(b'[{"id":"' + long.encode() + b'"}]')
    assert len(one) < 50


@pytest.mark.parametrize(
    ("headers", "age_s"),
    [
        ({}, 0),
        ({"x-cache": "MISS", "x-cache-ttl": "30"}, 0),
        ({"x-cache": "HIT", "x-cache-ttl": "30"}, 30),
        ({"x-cache": "Hit from cloudfront", "age": "12"}, 12),
        ({"x-cache": "HIT"}, 60),
        ({"age": "12"}, 12),
        ({"age": "soon"}, 0),
    ],
)
def test_how_old_an_answer_may_be(headers: dict[str, str], age_s: float) -> None:
    """A cache's own word, or RFC 9111's Age."""
    assert answers.cached_s(headers) == age_s


def test_each_kind_of_pagination_has_its_address() -> None:
    """Offsets less the overlap and moved by the shift; numbers from 0 or 1; cursors; addresses."""
    assert PLAIN.url(Ask(1, 500, 99, 1, 7)) == "http://a/bulk?offset=506&limit=100"
    numbered = Addresses("http://a/b", "", "page", "size", "", numbered_from=1)
    assert numbered.url(Ask(1, 120, 80, 20)) == "http://a/b?page=2&size=100"
    assert PLAIN.url(Ask(1, 0, 50, cursor="")) == "http://a/events?limit=50"
    assert PLAIN.url(Ask(1, 9, 50, cursor="a b")) == "http://a/events?limit=50&cursor=a+b"
    assert PLAIN.url(Ask(1, 9, 50, cursor="http://a/next?x=1")) == "http://a/next?x=1"


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("/events?page=2", "https://api.example.com/events?page=2"),
        ("?page=2", "https://api.example.com/v1/events?page=2"),
        ("https://api.example.com:443/x", "https://api.example.com:443/x"),
        ("https://evil.example.com/x", None),
        ("http://api.example.com/x?y=1", "https://api.example.com/x?y=1"),
        ("http://api.example.com:80/x", None),
        ("http://evil.example.com/x", None),
        ("//evil.example.com/x", None),
    ],
)
def test_a_next_page_of_another_origin_is_refused(said: str, address: str | None) -> None:
    """The key must not follow a link away from the API."""
    assert next_address("https://api.example.com/v1/events?page=1", said) == address
