r"""
COPY text, held against a decoder written from PostgreSQL's documentation ("COPY", "Text Format").

The decoder shares no code with the encoder: it splits at unescaped newlines and tabs, takes \N as
NULL, and undoes \b \f \n \r \t \v, octal, hex and "any other character is itself".
"""

import re
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datasync_crawler.events.copyrows import COLUMNS, encode, is_plain
from datasync_crawler.events.event import Event

NOON = datetime(2026, 1, 27, 19, 20, 12, tzinfo=UTC)
NAMED = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.))", re.DOTALL)


def unescape(match: re.Match[bytes]) -> bytes:
    octal, digits, sign = match.groups()
    if sign is None:
        return bytes([int(octal, 8) if octal else int(digits, 16)])
    return NAMED.get(sign, sign)


def read_copy(data: bytes) -> list[tuple[bytes | None, ...]]:
    """The rows that PostgreSQL would read."""
    assert b"\r" not in data, "a raw carriage return is an error in COPY"
    rows = []
    for line in data.split(b"\n")[:-1]:
        assert line != b"\\.", "the end-of-data marker"
        rows.append(
            tuple(
                None if field == b"\\N" else ESCAPE.sub(unescape, field)
                for field in line.split(b"\t")
            )
        )
    assert data == b"" or data.endswith(b"\n")
    return rows


def expected(event: Event) -> tuple[bytes | None, ...]:
    values = []
    for column in COLUMNS:
        value = getattr(event, column)
        if isinstance(value, str):
            value = value.encode()
        elif isinstance(value, datetime):
            value = value.replace(tzinfo=None).isoformat().encode() + b"Z"
        values.append(None if value is None else bytes(value))
    return tuple(values)


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(
    ["\\N", "\\.", "\\", "\t", "\n", "\r", "\r\n", "\0", "\\\t", "a\\", "", "\x1f", "😀\ufeff"]
)
JSON = st.binary(max_size=12).map(msgspec.Raw) | st.sampled_from(
    [b'{"a": "\\n\\\\N"}', b'{\n\t"a": 1\r\n}', b'"\\u00e9"', b'{"a":"\xc3\xa9"}']
).map(msgspec.Raw)
EVENTS = st.builds(
    Event,
    id=TEXT,
    session_id=TEXT | st.none(),
    user_id=TEXT | st.none(),
    type=TEXT | st.none(),
    name=TEXT | st.none(),
    properties=JSON | st.none(),
    timestamp=st.datetimes(timezones=st.just(UTC)),
    session=JSON | st.none(),
    extra=JSON | st.none(),
)


@given(st.lists(EVENTS, max_size=5))
@example([Event(id="\0N", name="\0", timestamp=NOON)])
@example([Event(id="a\\", name="\r", timestamp=NOON)])
def test_postgresql_reads_back_what_was_written(events: list[Event]) -> None:
    """Any text and any bytes of JSON come back exactly, one row an event, NULL as NULL."""
    assert read_copy(encode(events)) == [expected(event) for event in events]


@given(st.lists(EVENTS, max_size=5))
def test_a_prefix_stands_before_each_row(events: list[Event]) -> None:
    """Constant leading columns, themselves COPY text, are put first and not escaped again."""
    rows = read_copy(encode(events, prefix=b"3\t\\N\t"))
    assert rows == [(b"3", None, *expected(event)) for event in events]


PLAIN_TEXT = st.text(st.characters(exclude_characters="\\\t\n\r", exclude_categories=("Cs",)))
PLAIN_JSON = PLAIN_TEXT.map(lambda text: msgspec.Raw(text.encode()))


@given(
    st.lists(
        st.builds(
            Event,
            id=PLAIN_TEXT,
            user_id=PLAIN_TEXT | st.none(),
            properties=PLAIN_JSON | st.none(),
            timestamp=st.datetimes(timezones=st.just(UTC)),
            extra=PLAIN_JSON | st.none(),
        ),
        max_size=5,
    )
)
def test_plain_rows_are_the_same_rows(events: list[Event]) -> None:
    """Where nothing needs escaping, the quick way writes the same bytes as the careful one."""
    for prefix in (b"", b"12\t"):
        assert encode(events, plain=True, prefix=prefix) == encode(events, prefix=prefix)


def test_one_row_byte_for_byte() -> None:
    """A row as documented: tabs between, a newline after, instants with their offset."""
    event = Event(
        id="a\tb",
        user_id="\\N",
        properties=msgspec.Raw(b'{"path":"C:\\\\x"}'),
        timestamp=NOON + timedelta(microseconds=369_000),
    )
    assert encode([event]) == (
        b"a\\tb\t\\N\t\\\\N\t\\N\t\\N\t"
        b'{"path":"C:\\\\\\\\x"}\t2026-01-27T19:20:12.369000Z\t\\N\t\\N\n'
    )


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-01-27T19:20:12Z",
        None,
        NOON.replace(tzinfo=None),
        NOON.astimezone(timezone(timedelta(hours=1))),
    ],
    ids=repr,
)
def test_an_event_that_was_not_normalised_is_refused(timestamp: object) -> None:
    """Only aware UTC datetimes are written: anything else would be read by the session's rules."""
    with pytest.raises(ValueError, match="normalised to UTC"):
        encode([Event(id="a", timestamp=timestamp)], plain=True)


@pytest.mark.parametrize("sign", [b"\\", b"\n", b"\t", b"\r"])
def test_a_body_with_something_to_escape_is_not_plain(sign: bytes) -> None:
    """Backslashes and raw white space other than blanks make a body one to be looked at."""
    assert is_plain(b'[{"id": "a"}]')
    assert not is_plain(b'[{"id":' + sign + b' "a"}]')
