"""
The API's timestamps as UTC instants, exact to the microsecond.

Owns the rules: which texts and numbers are timestamps. Must not guess, round (digits below the
microsecond are cut), or read a clock, locale or time zone of the machine.

Text with a date: ISO 8601 in its extended form, and RFC 5322. Numbers, and
text that is a number, are epochs in s, ms, µs or ns, whichever falls within the years 2000 to 2100
(both included; the four ranges don't overlap). Anything else is a TimestampError.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Context, Decimal, InvalidOperation

from datasync_crawler.events.event import Event

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_S = 946_684_800  # 2000-01-01T00:00:00Z
_END_S = 4_133_980_800  # 2101-01-01T00:00:00Z, the first second that is outside
_FIRST_MS, _END_MS = _FIRST_S * 1_000, _END_S * 1_000
_MILLISECOND = timedelta(milliseconds=1)
_SECOND = timedelta(seconds=1)

# Units per second, and microseconds per unit.
_UNITS = (
    (1, Decimal(1_000_000)),
    (1_000, Decimal(1_000)),
    (1_000_000, Decimal(1)),
    (1_000_000_000, Decimal("0.001")),
)
# 64 digits hold any instant of the four ranges, far below the microsecond; further digits are cut.
_CUT = Context(prec=64, rounding=ROUND_DOWN)

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_ZONE = r"(?P<zone>[Zz]|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)"
_ISO_8601 = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
    r"(?:[Tt ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})"
    r"(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]+))?)?"
    rf"(?: ?{_ZONE})?)?",
    re.ASCII,
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# RFC 5322 §3.3 without its obsolete forms: four-digit years, and no zone names but GMT and UTC. A
# comment may follow, as mail programs write it: "+0100 (CET)".
_RFC_5322 = re.compile(
    rf"(?:(?P<weekday>{'|'.join(_DAYS)}), ?)?"
    rf"(?P<date>[0-9]{{1,2}} (?:{'|'.join(_MONTHS)}) [0-9]{{4}} "
    r"[0-9]{2}:[0-9]{2}(?::[0-9]{2})? (?:GMT|UTC|[+-][0-9]{4}))(?: ?\([^()]*\))?",
    re.ASCII | re.IGNORECASE,
)

_NO_SUCH_TIME = "timestamp: a date, time or offset that does not exist"

# The characters at 4, 7, 10, 13, 16 and 19 of the common ISO forms. One slice tells them from what
# only datetime.fromisoformat takes (week dates, any separator, basic times, ":" before a fraction),
# which also differs between Python versions.
_ENDING_IN_Z = frozenset(("--T::.", "-- ::.", "--T::Z", "-- ::Z"))
_WITHOUT_ZONE = frozenset(("--T::", "-- ::"))


class TimestampError(ValueError):
    """Raised for a value that isn't a timestamp. Its text is the reason, without the value."""


def parse(value: object) -> datetime:
    """
    The instant of an API's timestamp, as an aware UTC datetime.

    Takes text, int, Decimal or float (a float by its shortest decimal form). Raises
    TimestampError for anything that the rules in this module's docstring don't cover.
    """
    # The common forms take a fifth to a fifteenth of the time of the general rules below.
    if type(value) is str:
        shape = value[4:20:3]
        try:
            if shape in _ENDING_IN_Z and value[-1] == "Z" and len(value) in _FAST_LENGTHS:
                return datetime.fromisoformat(value)
            if shape in _WITHOUT_ZONE and len(value) == 19:
                return datetime.fromisoformat(value + "Z")
        except ValueError:
            pass  # the general rules handle 24:00 and give the reason for the rest
        # Python and PostgreSQL's JSON write UTC as +00:00.
        return parse(value[:-6] + "Z") if value[-6:] == "+00:00" else _parse_text(value)
    if type(value) is int:
        if _FIRST_MS <= value < _END_MS:
            return EPOCH + _MILLISECOND * value
        if _FIRST_S <= value < _END_S:
            return EPOCH + _SECOND * value
    return _parse_number(value)


# 20: no fraction. 22 to 27: a fraction of one to six digits.
_FAST_LENGTHS = frozenset((20, 22, 23, 24, 25, 26, 27))


def normalize_timestamps(events: Sequence[Event]) -> list[tuple[int, str]]:
    """
    Replaces each event's timestamp by its instant, in place.

    Returns (position in the list, reason) for each event without a valid timestamp, which keeps its
    value.
    """
    unreadable = []
    position = 0
    for position, event in enumerate(events):
        try:
            event.timestamp = parse(event.timestamp)
        except TimestampError as error:
            unreadable.append((position, str(error)))
    return unreadable


def _parse_number(value: object) -> datetime:
    if value is None:
        raise TimestampError("timestamp: missing or null")
    if isinstance(value, bool):
        raise TimestampError("timestamp: a boolean")
    if isinstance(value, float):
        value = Decimal(repr(value))
    if isinstance(value, int):
        value = Decimal(value)
    if not isinstance(value, Decimal):
        raise TimestampError("timestamp: neither text nor a number")
    if not value.is_finite():
        raise TimestampError("timestamp: not a finite number")
    for units_a_second, unit_us in _UNITS:
        if _FIRST_S * units_a_second <= value < _END_S * units_a_second:
            return EPOCH + timedelta(microseconds=int(_CUT.multiply(value, unit_us)))
    raise TimestampError("timestamp: a number outside 2000–2100 in s, ms, µs and ns")


def _parse_text(text: str) -> datetime:
    if _NUMBER.fullmatch(text):
        try:
            number = Decimal(text)
        except InvalidOperation:  # an exponent beyond what Decimal holds
            raise TimestampError(
                "timestamp: a number outside 2000–2100 in s, ms, µs and ns"
            ) from None
        return _parse_number(number)
    if match := _ISO_8601.fullmatch(text):
        parts = match.groupdict()
        try:
            day = datetime(int(parts["year"]), int(parts["month"]), int(parts["day"]), tzinfo=UTC)
            return day + _time_of_day(parts) - _offset(parts["zone"])
        except (ValueError, OverflowError):
            raise TimestampError(_NO_SUCH_TIME) from None
    if match := _RFC_5322.fullmatch(text):
        return _parse_mail_date(match["date"], match["weekday"])
    raise TimestampError("timestamp: text that is neither ISO 8601, RFC 5322 nor an epoch")


def _parse_mail_date(text: str, weekday: str | None) -> datetime:
    """RFC 5322, by python-dateutil. The pattern leaves nothing to guess but a zone's name.

    The name is replaced first, because python-dateutil looks it up in the machine's time zone.
    """
    from dateutil import parser  # noqa: PLC0415 - 20 ms that hardly any crawl needs

    try:
        local = parser.parse(re.sub("[A-Za-z]+$", "+0000", text))
        instant = local.astimezone(UTC)
    except (ValueError, OverflowError):
        raise TimestampError(_NO_SUCH_TIME) from None
    if weekday and weekday.lower() != _DAYS[local.weekday()]:
        raise TimestampError("timestamp: a weekday that contradicts the date")
    return instant


def _time_of_day(parts: dict[str, str | None]) -> timedelta:
    """The time since midnight, 24:00 included. Raises ValueError outside the day, as for :60."""
    hour, minute, second = (int(parts[name] or 0) for name in ("hour", "minute", "second"))
    microsecond = int((parts["fraction"] or "0")[:6].ljust(6, "0"))
    fraction = (parts["fraction"] or "").strip("0")
    midnight_after = hour == 24 and not (minute or second or fraction)
    if minute > 59 or second > 59 or (hour > 23 and not midnight_after):
        raise ValueError
    return timedelta(hours=hour, minutes=minute, seconds=second, microseconds=microsecond)


def _offset(zone: str | None) -> timedelta:
    """The offset east of UTC; no zone means UTC. Raises ValueError for more than ±23:59."""
    if zone is None or zone[0] not in "+-":
        return timedelta(0)
    hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
    if hours > 23 or minutes > 59:
        raise ValueError
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if zone[0] == "-" else offset
