"""What a response says about the rate limit: header and body texts in, one `Advice` out.

Owns every spelling of limit, remaining, reset and retry-after that servers use. It remembers
nothing and decides nothing: `controller.py` does. A value that makes no sense is left out and
named in `Advice.nonsense`, never replaced by a guess.

Sources: RFC 9110 §5.6.7 and §10.2.3 (dates, Retry-After), draft-ietf-httpapi-ratelimit-headers
(`RateLimit`, `RateLimit-Policy`, and the three fields of its early versions), and the
`X-RateLimit-*` fields as they are met in practice.
"""

import calendar
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

# Longer than this is a mistake, not a limit. It also separates seconds from epoch times.
LONGEST_S = 10 * 365 * 86_400.0
_EPOCH_S = (1e9, 1e11)
_EPOCH_MS = (1e12, 1e14)
# A reset just past is a window that ended while its answer travelled.
_JUST_PAST_S = 2.0
_LARGEST_BODY = 65_536

_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?", re.ASCII)
_TOKEN_PAIR = re.compile(r";\s*([a-z_-]+)\s*=\s*\"?([^;,\"\s]+)\"?", re.ASCII)
_ITEM = re.compile(r'(?:"[^"]*"|[^,"])+', re.ASCII)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DATES = (
    re.compile(rf"[A-Z][a-z]{{2}}, (?P<day>\d\d) (?P<mon>\w{{3}}) (?P<year>\d{{4}}) {_TIME} GMT"),
    re.compile(rf"[A-Z][a-z]{{5,8}}, (?P<day>\d\d)-(?P<mon>\w{{3}})-(?P<year>\d\d) {_TIME} GMT"),
    re.compile(rf"[A-Z][a-z]{{2}} (?P<mon>\w{{3}}) (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})"),
)


@dataclass(frozen=True, slots=True)
class Advice:
    """What one response said. None: it didn't say, or said nonsense."""

    limit: int | None = None
    remaining: int | None = None
    reset_in_s: float | None = None
    reset_is_whole: bool = True  # said in whole seconds: the truth is up to a second away
    window_s: float | None = None
    retry_after_s: float | None = None
    learnt_from: str = ""  # the names of the fields that were used, for log lines
    nonsense: tuple[str, ...] = ()  # "name: value" of what was ignored

    @property
    def tells_budget(self) -> bool:
        """Whether there is something to count requests by."""
        return self.remaining is not None or (
            self.limit is not None and (self.reset_in_s is not None or self.window_s is not None)
        )


class _Reader:
    """Collects, for one response, which fields were used and which were nonsense."""

    def __init__(self, headers: Mapping[str, str], server_epoch_s: float) -> None:
        self.headers = headers
        self.server_epoch_s = server_epoch_s
        self.used: list[str] = []
        self.nonsense: list[str] = []

    def number(self, name: str, text: str | None) -> float | None:
        """The non-negative number in `text`; anything else is noted as nonsense."""
        if text is None:
            return None
        if not _NUMBER.fullmatch(text.strip()):
            self.reject(name, text)
            return None
        self.used.append(name)
        return float(text)

    def count(self, name: str, text: str | None) -> int | None:
        """A whole number of requests."""
        value = self.number(name, text)
        return None if value is None else int(value)

    def reject(self, name: str, text: str) -> None:
        self.nonsense.append(f"{name}: {text[:60]}")

    def seconds_left(self, name: str, text: str | None) -> tuple[float | None, bool]:
        """Seconds from now of a reset given as seconds left, epoch seconds or epoch ms, and
        whether it was said in whole seconds.
        """
        value = self.number(name, text)
        if value is None or text is None:
            return None, True
        whole = value.is_integer()
        if _EPOCH_MS[0] <= value < _EPOCH_MS[1]:
            value, whole = value / 1000 - self.server_epoch_s, False
        elif _EPOCH_S[0] <= value < _EPOCH_S[1]:
            value -= self.server_epoch_s
        if not -_JUST_PAST_S <= value <= LONGEST_S:
            self.used.remove(name)
            self.reject(name, text)
            return None, True
        return max(0.0, value), whole


def read_advice(
    status: int, headers: Mapping[str, str], body: bytes, *, server_epoch_s: float
) -> Advice:
    """Everything that one response says about the limit.

    `headers` have lower-case names; `body` is looked at for 429 and 503 only;
    `server_epoch_s` is the server's clock at this moment. Raises nothing.
    """
    reader = _Reader(headers, server_epoch_s)
    name, limit, remaining, reset, window_s = _budget_texts(headers)
    reset_name = f"{name}-reset" if f"{name}-reset" in headers else name
    limit_count = reader.count(f"{name}-limit" if f"{name}-limit" in headers else name, limit)
    left = reader.count(f"{name}-remaining" if f"{name}-remaining" in headers else name, remaining)
    reset_in_s, whole = reader.seconds_left(reset_name, reset)
    length_s = reader.number(f"{name}-policy", window_s)
    if limit_count is not None and left is not None and left > limit_count:
        reader.reject(f"{name} remaining", f"{left} of {limit_count}")
        left = limit_count
    retry_after_s = _retry_after(reader, body) if status in {429, 503} else None
    return Advice(
        limit=limit_count,
        remaining=left,
        reset_in_s=reset_in_s,
        reset_is_whole=whole,
        window_s=length_s if length_s and length_s <= LONGEST_S else None,
        retry_after_s=retry_after_s,
        learnt_from=", ".join(dict.fromkeys(reader.used)),
        nonsense=tuple(reader.nonsense),
    )


_Texts = tuple[str, str | None, str | None, str | None, str | None]


def _budget_texts(headers: Mapping[str, str]) -> _Texts:
    """Field family, then the texts of limit, remaining, reset and window length."""
    if "ratelimit" in headers:
        return _ietf_texts(headers["ratelimit"], headers.get("ratelimit-policy", ""))
    for name in ("ratelimit", "x-ratelimit", "x-rate-limit"):
        texts = [headers.get(f"{name}-{part}") for part in ("limit", "remaining", "reset")]
        if any(text is not None for text in texts):
            limit, remaining, reset = texts
            # Early drafts: "10, 10;w=60", the limit first, then its policies.
            window = dict(_TOKEN_PAIR.findall(limit or "")).get("w")
            limit = limit.split(",")[0].split(";")[0] if limit else limit
            policy = _policies(headers.get(f"{name}-policy", ""))
            window = window or next((p["w"] for p in policy.values() if "w" in p), None)
            return name, limit, remaining, reset, window
    return "ratelimit", None, None, None, None


def _ietf_texts(field: str, policy_field: str) -> _Texts:
    """`"default";r=50;t=30` with `"default";q=100;w=60`, or `limit=100, remaining=50, reset=5`.

    Of several policies the one with the least left is the one that stops us, and of those with
    nothing left the one that does so the longest.
    """
    if "remaining=" in field.replace(" ", ""):
        pairs = dict(_TOKEN_PAIR.findall(";" + field.replace(",", ";").lower()))
        return "ratelimit", pairs.get("limit"), pairs.get("remaining"), pairs.get("reset"), None
    states = [(name, pairs) for name, pairs in _policies(field).items() if "r" in pairs]
    if not states:
        return "ratelimit", None, field, None, None  # not a number: named as nonsense
    name, pairs = min(states, key=lambda state: (float(state[1]["r"]), -_seconds(state[1])))
    policy = _policies(policy_field).get(name, {})
    return "ratelimit", policy.get("q"), pairs["r"], pairs.get("t"), policy.get("w")


def _seconds(pairs: Mapping[str, str]) -> float:
    text = pairs.get("t", "")
    return float(text) if _NUMBER.fullmatch(text) else 0.0


def _policies(field: str) -> dict[str, dict[str, str]]:
    """The items of a structured list, by name, each with its numeric parameters, and with its
    reset as it is: nonsense there is to be named.
    """
    items: dict[str, dict[str, str]] = {}
    for item in _ITEM.findall(field):
        pairs = dict(_TOKEN_PAIR.findall(item))
        pairs = {key: text for key, text in pairs.items() if key == "t" or _NUMBER.fullmatch(text)}
        items[item.split(";")[0].strip().strip('"')] = pairs
    return items


def _retry_after(reader: _Reader, body: bytes) -> float | None:
    """Retry-After as seconds or date, else the body's `rateLimit.retryAfter`."""
    text = reader.headers.get("retry-after")
    if text is not None:
        # Both are cut to whole seconds: held against a better clock, it would be over too soon.
        date = http_date(reader.headers.get("date", "").strip(), near_epoch_s=reader.server_epoch_s)
        since_epoch_s = reader.server_epoch_s if date is None else date
        at = http_date(text.strip(), near_epoch_s=since_epoch_s)
        if at is None:
            value, _ = reader.seconds_left("retry-after", text)
            if value is not None:
                return value
        elif -_JUST_PAST_S <= at - since_epoch_s <= LONGEST_S:
            reader.used.append("retry-after")
            return max(0.0, at - since_epoch_s)
        else:
            reader.reject("retry-after", text)
    return _body_retry_after(reader, body)


def _body_retry_after(reader: _Reader, body: bytes) -> float | None:
    if not 0 < len(body) <= _LARGEST_BODY:
        return None
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None  # an HTML page of a load balancer: it says nothing about the limit
    said = answer.get("rateLimit") if isinstance(answer, dict) else None
    value = said.get("retryAfter") if isinstance(said, dict) else None
    if value is None:
        return None
    return reader.seconds_left("body rateLimit.retryAfter", str(value))[0]


def http_date(text: str, *, near_epoch_s: float) -> float | None:
    """Epoch seconds of an HTTP date in any of its three forms (RFC 9110 §5.6.7), else None.

    A two-digit year is the one that isn't more than 50 years after `near_epoch_s`.
    """
    match = next((m for m in (form.fullmatch(text) for form in _DATES) if m), None)
    if match is None or match["mon"] not in _MONTHS:
        return None
    year, month, day = int(match["year"]), _MONTHS.index(match["mon"]) + 1, int(match["day"])
    if len(match["year"]) == 2:
        this_year = 1970 + int(near_epoch_s // (365.2425 * 86_400))
        year += this_year // 100 * 100
        if year > this_year + 50:
            year -= 100
    hour, minute, second = (int(match[part]) for part in ("hour", "minute", "second"))
    if not (0 < day <= 31 and hour < 24 and minute < 60 and second <= 60 and year >= 1):
        return None
    return float(calendar.timegm((year, month, day, hour, minute, second)))
