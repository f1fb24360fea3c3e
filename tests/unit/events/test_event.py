"""The shape of an event."""

import msgspec
import pytest

from datasync_crawler.events import copyrows
from datasync_crawler.events.event import Event, Rejection


def decode(text: bytes) -> Event:
    return msgspec.json.decode(text, type=Event)


def test_attributes_are_the_columns_of_the_table() -> None:
    """What COPY writes and what an event holds have the same names in the same order."""
    assert Event.__struct_fields__ == copyrows.COLUMNS


def test_json_names_are_the_apis() -> None:
    """The API's camel case becomes the columns' names; nested values stay as served."""
    event = decode(b'{"id":"a","sessionId":"s","userId":"u","properties":{"n": 1.50}}')
    assert (event.session_id, event.user_id) == ("s", "u")
    assert bytes(event.properties or b"") == b'{"n": 1.50}'
    assert (event.session, event.extra, event.timestamp) == (None, None, None)


@pytest.mark.parametrize(
    "served",
    [b'{"id":""}', b'{"id":1}', b"{}", b'{"id":"a","x":1}', b'{"id":"a","extra":"1"}'],
)
def test_what_does_not_fit_is_refused_while_decoding(served: bytes) -> None:
    """An empty or missing id, another type, an unknown field, the API's own "extra"."""
    with pytest.raises(msgspec.ValidationError):
        decode(served)


def test_a_rejection_is_a_value() -> None:
    """Two rejections of the same event for the same reason are equal, and can't be changed."""
    rejection = Rejection(3, "id: missing", b"{}")
    assert rejection == Rejection(3, "id: missing", b"{}")
    with pytest.raises(AttributeError):
        rejection.index = 4  # type: ignore[misc]


def test_a_rejection_keeps_a_million_bytes_and_says_so() -> None:
    """As served up to there; nobody reads more of an event that can't be stored."""
    assert Rejection.of(1, "id: null", b"x" * 1_000_000) == Rejection(
        1, "id: null", b"x" * 1_000_000
    )
    assert Rejection.of(1, "id: null", b"x" * 1_000_001) == Rejection(
        1, "id: null (its first 1,000,000 bytes)", b"x" * 1_000_000
    )
