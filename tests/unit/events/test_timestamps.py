"""The rules for timestamps, form by form, and as properties over random instants."""

import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datasync_crawler.events import timestamps
from datasync_crawler.events.event import Event
from datasync_crawler.events.timestamps import TimestampError, normalize_timestamps, parse


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


NOON = utc(2026, 1, 27, 19, 20, 12)
MILLIS = utc(2026, 1, 27, 19, 20, 12, 369_000)
MICROS = utc(2026, 1, 27, 19, 20, 12, 369_123)
MIDNIGHT = utc(2026, 1, 27)

READABLE = {
    "2026-01-27T19:20:12Z": NOON,
    "2026-01-27T19:20:12z": NOON,
    "2026-01-27t19:20:12Z": NOON,
    "2026-01-27 19:20:12": NOON,
    "2026-01-27T19:20:12": NOON,
    "2026-01-27 19:20:12Z": NOON,
    "2026-01-27T19:20Z": utc(2026, 1, 27, 19, 20),
    "2026-01-27T19:20:12.369Z": MILLIS,
    "2026-01-27 19:20:12.369": MILLIS,
    "2026-01-27T19:20:12,369Z": MILLIS,
    "2026-01-27T19:20:12.3Z": utc(2026, 1, 27, 19, 20, 12, 300_000),
    "2026-01-27T19:20:12.369123Z": MICROS,
    "2026-01-27T19:20:12.369123999Z": MICROS,
    "2026-01-27T19:20:12.999999999": utc(2026, 1, 27, 19, 20, 12, 999_999),
    "2026-01-27T19:20:12." + "3691239" + "9" * 5_000 + "Z": MICROS,
    "2026-01-27T20:20:12+01:00": NOON,
    "2026-01-27T20:20:12+0100": NOON,
    "2026-01-27T19:20:12.369000+00:00": MILLIS,
    "2026-01-27 19:20+00:00": utc(2026, 1, 27, 19, 20),
    "2026-01-27 20:20:12.369+01": MILLIS,
    "2026-01-27T13:50:12-05:30": NOON,
    "2026-01-27 19:20:12 +0000": NOON,
    "2026-01-27 19:20:12 UTC": NOON,
    "2026-01-27T19:20:12-00:00": NOON,
    "2026-01-27": MIDNIGHT,
    "2026-01-26T24:00": MIDNIGHT,
    "2026-01-26T24:00:00Z": MIDNIGHT,
    "2026-01-26 24:00:00.000+00:00": MIDNIGHT,
    "2024-02-29T00:00:00Z": utc(2024, 2, 29),
    "0001-01-01T00:00:00Z": utc(1, 1, 1),
    "1899-12-31T23:59:59Z": utc(1899, 12, 31, 23, 59, 59),
    "9999-12-31T23:59:59.999999Z": utc(9999, 12, 31, 23, 59, 59, 999_999),
    "Tue, 27 Jan 2026 19:20:12 GMT": NOON,
    "Tue, 27 Jan 2026 20:20:12 +0100": NOON,
    "tue, 27 jan 2026 19:20:12 gmt": NOON,
    "27 Jan 2026 19:20:12 +0000 (UTC)": NOON,
    "27 Jan 2026 19:20 -0000": utc(2026, 1, 27, 19, 20),
    "Sun, 1 Feb 2026 00:00:00 GMT": utc(2026, 2, 1),
    "1769541612": NOON,
    "1769541612369": MILLIS,
    "1769541612369123": MICROS,
    "1769541612369123999": MICROS,
    "1769541612.369123": MICROS,
    "1.769541612369e12": MILLIS,
    1769541612: NOON,
    1769541612369: MILLIS,
    1769541612369123: MICROS,
    1769541612369123999: MICROS,
    Decimal("1769541612.3691239999"): MICROS,
    Decimal("1769541612." + "369123" + "9" * 200): MICROS,
    Decimal("1769541612369.1239"): MICROS,
    Decimal("1.769541612369123e18"): MICROS,
    1769541612.369123: MICROS,
    946684800: utc(2000, 1, 1),
    4133980799: utc(2100, 12, 31, 23, 59, 59),
    4133980799_999_999_999: utc(2100, 12, 31, 23, 59, 59, 999_999),
}

DATE = "a date, time or offset that does not exist"
NO_FORM = "text that is neither ISO 8601, RFC 5322 nor an epoch"
OUTSIDE = "a number outside 2000–2100 in s, ms, µs and ns"
UNREADABLE = {
    "2026-01-27T19:20:60Z": DATE,
    "2026-01-27T19:60:00Z": DATE,
    "2026-01-27T25:00:00Z": DATE,
    "2026-01-27T24:00:01Z": DATE,
    "2026-01-27T24:00:00.1Z": DATE,
    "2026-01-27T24:00:00.0000001Z": DATE,
    "2026-02-29T00:00:00Z": DATE,
    "2026-13-01": DATE,
    "0000-01-01T00:00:00Z": DATE,
    "0001-01-01T00:00:00+01:00": DATE,
    "9999-12-31T24:00:00Z": DATE,
    "2026-01-27T19:20:12+24:00": DATE,
    "2026-01-27T19:20:12+01:60": DATE,
    "31 Feb 2026 19:20:12 GMT": DATE,
    "Mon, 27 Jan 2026 19:20:12 GMT": "a weekday that contradicts the date",
    "27 Jan 2026 19:20:12": NO_FORM,
    "27 Jan 26 19:20:12 GMT": NO_FORM,
    "27 Jan 2026 19:20:12 EST": NO_FORM,
    "27 Jan 2026 19:20:12 UT": NO_FORM,
    "2026-01-27T19:20:12 CET": NO_FORM,
    "2026-01-27T19:20:12Europe/Berlin": NO_FORM,
    "2026-01-27T19:20:12+01:00:00": NO_FORM,
    "2026-01-27T19:20:12.Z": NO_FORM,
    "2026-01-27T19:20:12:369Z": NO_FORM,
    "2026-01-27T19": NO_FORM,
    "2026-01-27x19:20:12Z": NO_FORM,
    "2026-01-27T192012Z": NO_FORM,
    "20260127T192012Z": NO_FORM,
    "2026-W05-2": NO_FORM,
    "2026-W05-2T19:20:12.369Z": NO_FORM,
    "2026-027": NO_FORM,
    "2026-01-27Z": NO_FORM,
    "2026-01-27+00:00": NO_FORM,
    "2026-01-27T19:20:12Z+00:00": NO_FORM,
    "2026-01-27T19:20:1": NO_FORM,
    "2026-01-27T19:20:": NO_FORM,
    "2026-1-27": NO_FORM,
    "2026-01": NO_FORM,
    "01/02/2026": NO_FORM,
    "27.01.2026": NO_FORM,
    "10:30": NO_FORM,
    "10:30:00Z": NO_FORM,
    "January": NO_FORM,
    "Tue Jan 27 2026 19:20:12 GMT+0000": NO_FORM,
    "now": NO_FORM,
    "today": NO_FORM,
    "": NO_FORM,
    "nan": NO_FORM,
    "Infinity": NO_FORM,
    " 2026-01-27T19:20:12Z": NO_FORM,
    "2026-01-27T19:20:12Z\n": NO_FORM,
    "٢٠٢٦-01-27T19:20:12Z": NO_FORM,
    "١٧٦٩٥٤١٦١٢": NO_FORM,
    "1_769_541_612": NO_FORM,
    "0x6979": NO_FORM,
    "2026": OUTSIDE,
    "202601": OUTSIDE,
    "20260127": OUTSIDE,
    "20260127192012": OUTSIDE,
    "-1769541612": OUTSIDE,
    "1e99999999999999999999": OUTSIDE,
    "1e999999999": OUTSIDE,
    "9" * 10_000: OUTSIDE,
    0: OUTSIDE,
    -1769541612369: OUTSIDE,
    946684799: OUTSIDE,
    4133980800: OUTSIDE,
    10**30: OUTSIDE,
    Decimal("0.5"): OUTSIDE,
    Decimal("Infinity"): "not a finite number",
    Decimal("NaN"): "not a finite number",
    math.inf: "not a finite number",
    True: "a boolean",
    None: "missing or null",
    (): "neither text nor a number",
    b"2026-01-27": "neither text nor a number",
    NOON: "neither text nor a number",
}


def short(value: object) -> str:
    return repr(value)[:50]


@pytest.mark.parametrize(("value", "instant"), READABLE.items(), ids=short)
def test_form_is_read(value: object, instant: datetime) -> None:
    """Each form that says its date gives that instant, aware and in UTC."""
    assert parse(value) == instant
    assert parse(value).tzinfo is UTC


@pytest.mark.parametrize(("value", "reason"), UNREADABLE.items(), ids=short)
def test_anything_else_is_refused_with_its_reason(value: object, reason: str) -> None:
    """What says no instant, or only part of one, is refused; the reason is without the value."""
    with pytest.raises(TimestampError) as caught:
        parse(value)
    assert str(caught.value) == f"timestamp: {reason}"


@pytest.mark.parametrize("value", [float("nan"), {"a": 1}, [1], ["2026-01-27"]], ids=short)
def test_values_without_a_hash_are_refused_too(value: object) -> None:
    """NaN, objects and lists say no instant."""
    with pytest.raises(TimestampError):
        parse(value)


INSTANTS = st.datetimes(timezones=st.just(UTC))
EPOCHS_US = st.integers(946_684_800_000_000, 4_133_980_799_999_999)
LOCAL_TIMES = st.datetimes().filter(lambda local: 1 < local.year < 9999)
OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda m: timezone(timedelta(minutes=m)))


@given(INSTANTS, st.sampled_from("T "), st.sampled_from(["", "Z", "z", "+00:00", "+0000", " UTC"]))
def test_iso_texts_of_an_instant_give_it_back(instant: datetime, sep: str, zone: str) -> None:
    """Any instant, written in ISO 8601 with or without fraction, comes back exactly."""
    text = instant.replace(tzinfo=None).isoformat(sep) + zone
    assert parse(text) == instant


@given(LOCAL_TIMES, OFFSETS)
def test_local_times_with_an_offset_give_the_instant(local: datetime, offset: timezone) -> None:
    """An offset is subtracted, whatever its size and sign."""
    stamped = local.replace(tzinfo=offset)
    assert parse(stamped.isoformat()) == stamped


@given(LOCAL_TIMES.filter(lambda local: local.year >= 1900), OFFSETS)
def test_rfc_5322_dates_give_the_instant(local: datetime, offset: timezone) -> None:
    """What the standard library writes as a mail date is read as that instant."""
    stamped = local.replace(tzinfo=offset, microsecond=0)
    assert parse(format_datetime(stamped)) == stamped


@given(EPOCHS_US, st.integers(0, 999))
def test_epochs_give_the_instant_in_every_unit(epoch_us: int, beyond_ns: int) -> None:
    """s, ms, µs and ns, as number and as text: the same instant, cut to what the unit can say."""
    instant = utc(1970, 1, 1) + timedelta(microseconds=epoch_us)
    assert parse(epoch_us) == parse(str(epoch_us)) == instant
    assert parse(epoch_us * 1_000 + beyond_ns) == instant
    assert parse(Decimal(epoch_us) / 1_000) == parse(Decimal(epoch_us).scaleb(-6)) == instant
    assert parse(f"{Decimal(epoch_us).scaleb(-6)}{beyond_ns:03}") == instant
    assert parse(epoch_us // 1_000) == instant.replace(
        microsecond=instant.microsecond // 1_000 * 1_000
    )
    assert parse(epoch_us // 1_000_000) == instant.replace(microsecond=0)


@given(EPOCHS_US)
def test_floats_of_epoch_seconds_are_exact_to_the_microsecond(epoch_us: int) -> None:
    """A float of epoch seconds with six decimals keeps each of them."""
    seconds = float(Decimal(epoch_us).scaleb(-6))
    assert parse(seconds) == utc(1970, 1, 1) + timedelta(microseconds=epoch_us)


@given(st.text("0123456789-+:.,TtZzW ", max_size=32))
@example("2026-01-27T19:20:12.3+1Z")
@example("2026-01-27T19:20:12.+1:0Z")
@example("2026-01-27 19:20:+1")
@example("2026-01-27T-1:20:12Z")
@example("2026-01-27T24:00:00Z")
@example("2026-01-27T24:00+00:00")
@example("+00:00+00:00")
def test_the_fast_path_says_what_the_rules_say(text: str) -> None:
    """The short cut for common forms never gives what the general rules wouldn't."""
    try:
        ruled: object = timestamps._parse_text(text)
    except TimestampError as error:
        ruled = str(error)
    try:
        quick: object = parse(text)
    except TimestampError as error:
        quick = str(error)
    assert quick == ruled


@given(st.one_of(st.text(), st.floats(), st.integers(), st.decimals(), st.binary(), st.none()))
def test_nothing_but_timestamp_error_is_raised(value: object) -> None:
    """Whatever stands there, it is an aware UTC datetime or a TimestampError."""
    try:
        said: object = parse(value).tzinfo
    except TimestampError as error:
        said = len(str(error)) <= 100
    assert said in (UTC, True)


@pytest.mark.parametrize("zone", ["UTC", "America/St_Johns", "Pacific/Kiritimati"])
def test_the_result_does_not_depend_on_the_time_zone_of_the_process(zone: str) -> None:
    """Under any TZ, each readable form gives the same instant."""
    program = (
        "import sys; from datasync_crawler.events.timestamps import parse\n"
        "for line in sys.stdin.read().splitlines(): print(parse(line).isoformat())"
    )
    texts = [value for value in READABLE if isinstance(value, str)]
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(texts),
        env={**os.environ, "TZ": zone},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [READABLE[text].isoformat() for text in texts]


def test_normalising_a_page_names_the_unreadable_and_changes_the_rest() -> None:
    """Good timestamps become instants in place; bad ones are named by position and left alone."""
    page = [
        Event(id="a", timestamp="2026-01-27T19:20:12.369Z"),
        Event(id="b", timestamp="now"),
        Event(id="c", timestamp=1769541612369),
        Event(id="d"),
    ]
    assert normalize_timestamps(page) == [
        (1, f"timestamp: {NO_FORM}"),
        (3, "timestamp: missing or null"),
    ]
    assert [event.timestamp for event in page] == [MILLIS, "now", MILLIS, None]
    assert normalize_timestamps([]) == []
