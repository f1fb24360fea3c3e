"""Reads one response's rate-limit information: status, header fields and body in, one value out.

Owns every spelling that servers use. An invalid value is left out and named in
`RateLimitInfo.nonsense`, never replaced by a guess.

Sources: RFC 9110 §5.6.7 and §10.2.3 (dates, Retry-After), RFC 9651 (structured fields),
draft-ietf-httpapi-ratelimit-headers (`RateLimit`, `RateLimit-Policy`, and the fields of its early
versions), and the fields of GitHub, GitLab, Kong, Azure, Discord and others.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import http_sf

#: Seconds. A longer wait is invalid; it also separates seconds from epoch times.
LONGEST_S: Final = 10 * 365 * 86_400.0
#: Statuses whose Retry-After and body are about a rate limit.
REFUSALS: Final = frozenset({403, 429, 503})
_EPOCH_S = (1e9, 1e11)
_EPOCH_MS = (1e12, 1e14)
# A reset in the past by less than this: the window ended while the answer was on its way.
_JUST_PAST_S = 2.0
# A reset without a unit from this on may be milliseconds.
_MAYBE_MS = 1000.0
_LARGEST_BODY = 65_536

_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?", re.ASCII)
_FAMILIES = ("ratelimit", "x-ratelimit", "x-rate-limit")
_UNITS_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
_RETRY_AFTER_MS = ("retry-after-ms", "x-ms-retry-after-ms")


@dataclass(frozen=True, slots=True)
class Quota:
    """One limit as one answer states it: `remaining` of `limit` requests until the reset.

    None: not stated. `name` tells the limits of one server apart. `may_be_ms`: the reset has no
    unit and is so large that it may be milliseconds.
    """

    name: str = ""
    limit: int | None = None
    remaining: int | None = None
    reset_in_s: float | None = None
    reset_is_whole: bool = True  # in whole seconds, so up to a second off
    may_be_ms: bool = False
    window_s: float | None = None

    @property
    def is_countable(self) -> bool:
        """Whether requests can be counted against it."""
        has_end = self.reset_in_s is not None or self.window_s is not None
        return self.remaining is not None or (self.limit is not None and has_end)


@dataclass(frozen=True, slots=True)
class RateLimitInfo:
    """The limits that one response states."""

    quotas: tuple[Quota, ...] = ()  # countable ones
    retry_after_s: float | None = None
    concurrency: int | None = None  # requests in flight at most
    fields: tuple[str, ...] = ()  # names of the fields that were used
    nonsense: tuple[str, ...] = ()  # "name: value" of invalid fields

    @property
    def source(self) -> str:
        """The fields that were used, for log lines."""
        return ", ".join(sorted(set(self.fields)))

    @property
    def spent(self) -> Quota | None:
        """A quota with nothing left; of several the one that resets last."""
        spent = [quota for quota in self.quotas if quota.remaining == 0]
        return max(spent, key=lambda quota: quota.reset_in_s or 0.0, default=None)


def read_info(
    status: int, headers: Mapping[str, str], body: bytes, *, server_epoch_s: float
) -> RateLimitInfo:
    """Reads a response. `headers` have lower-case names.

    `server_epoch_s` is the server's clock, for dates and epoch times.
    """
    reader = _Reader(headers, server_epoch_s)
    retry_after_s = _retry_after(reader, body) if status in REFUSALS else None
    quotas, concurrency = _quotas(reader)
    quotas = [_with_unit(quota, retry_after_s) for quota in quotas]
    return RateLimitInfo(
        quotas=tuple(quota for quota in quotas if quota.is_countable),
        retry_after_s=retry_after_s,
        concurrency=concurrency,
        fields=tuple(reader.fields),
        nonsense=tuple(reader.nonsense),
    )


def printable(text: str) -> str:
    """The text with control characters escaped, for log lines."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class _Reader:
    """Parses the fields of one response; collects which were used and which were invalid."""

    def __init__(self, headers: Mapping[str, str], server_epoch_s: float) -> None:
        self.headers = headers
        self.server_epoch_s = server_epoch_s
        self.fields: list[str] = []
        self.nonsense: list[str] = []

    def reject(self, name: str, value: object) -> None:
        field = f"{name}: {printable(str(value)[:60])}"
        if field not in self.nonsense:
            self.nonsense.append(field)

    def number(self, name: str, value: object) -> float | None:
        """The non-negative number in `value`; anything else is rejected."""
        if value is None:
            return None
        text = str(value).strip()
        if not _NUMBER.fullmatch(text):
            self.reject(name, value)
            return None
        self.fields.append(name)
        return float(text)

    def count(self, name: str, value: object) -> int | None:
        """A whole number of requests."""
        number = self.number(name, value)
        return None if number is None else int(number)

    def window(self, name: str, value: object) -> float | None:
        """A window's length in seconds."""
        length_s = self.number(name, value)
        return length_s if length_s and length_s <= LONGEST_S else None

    def epoch_s(self, text: str) -> float | None:
        """An HTTP date or an ISO 8601 date as epoch seconds."""
        for parse in (parsedate_to_datetime, datetime.fromisoformat):
            try:
                date = parse(text.strip())
                return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
            except (ValueError, OverflowError, IndexError, TypeError):
                continue
        return None

    def seconds_left(self, name: str, value: object) -> tuple[float | None, bool, bool]:
        """A reset's seconds from now, whether it is in whole seconds, whether it may be
        milliseconds.
        """
        text = "" if value is None else str(value).strip()
        at = None if _NUMBER.fullmatch(text) or not text else self.epoch_s(text)
        if at is not None:
            self.fields.append(name)
            seconds, whole = at - self.server_epoch_s, at.is_integer()
        else:
            number = self.number(name, value)
            if number is None:
                return None, True, False
            seconds, whole = number, number.is_integer()
            if _EPOCH_MS[0] <= number < _EPOCH_MS[1]:
                seconds, whole = number / 1000 - self.server_epoch_s, False
            elif _EPOCH_S[0] <= number < _EPOCH_S[1]:
                seconds = number - self.server_epoch_s
        if not -_JUST_PAST_S <= seconds <= LONGEST_S:
            self.fields.remove(name)
            self.reject(name, value)
            return None, True, False
        may_be_ms = at is None and whole and seconds >= _MAYBE_MS and seconds == number
        return max(0.0, seconds), whole, may_be_ms

    def items(self, name: str) -> Iterator[tuple[Any, dict[str, Any]]]:
        """The items of a structured list, each with its parameters. An invalid item is rejected by
        itself; a blank before a semicolon is accepted.
        """
        field = re.sub(r"\s+;", ";", self.headers.get(name, ""))
        for part in re.findall(r'(?:"[^"]*"|[^,"])+', field):
            try:
                yield from http_sf.parse(part.encode(), tltype="list")  # type: ignore[misc]
            except (ValueError, UnicodeError):
                self.reject(name, part.strip())


def _with_unit(quota: Quota, retry_after_s: float | None) -> Quota:
    """Decides by the window or Retry-After whether a reset is in milliseconds."""
    if not quota.may_be_ms or quota.reset_in_s is None:
        return quota
    as_ms_s = quota.reset_in_s / 1000
    if quota.window_s is not None:
        is_ms = quota.reset_in_s > quota.window_s + 1
    elif retry_after_s is not None:
        is_ms = abs(as_ms_s - retry_after_s) < abs(quota.reset_in_s - retry_after_s)
    else:
        return quota
    if is_ms:
        return replace(quota, reset_in_s=as_ms_s, reset_is_whole=False, may_be_ms=False)
    return replace(quota, may_be_ms=False)


# --- quotas -------------------------------------------------------------------------------------


def _quotas(reader: _Reader) -> tuple[list[Quota], int | None]:
    """The quotas in the fields, and the limit of concurrent requests."""
    if "ratelimit" in reader.headers:
        if re.search(r"\bremaining\s*=", reader.headers["ratelimit"]):
            return _combined(reader), None
        return _structured(reader)
    quotas, concurrency = [], None
    name = next((name for name in _FAMILIES if _has_family(reader.headers, name)), None)
    if name is not None:
        quotas = _family(reader, name)
    elif "ratelimit-policy" in reader.headers:
        return _structured(reader)
    per_unit = [q for name in _FAMILIES for q in _per_unit(reader, name)]
    for quota in per_unit:
        same = next((q for q in quotas if (q.limit, q.remaining) == (quota.limit, quota.remaining)
                     and q.window_s is None), None)  # fmt: skip
        if same is not None:
            quotas[quotas.index(same)] = replace(same, window_s=quota.window_s)
        else:
            quotas.append(quota)
    return quotas, concurrency


def _has_family(headers: Mapping[str, str], name: str) -> bool:
    parts = ("limit", "remaining", "reset", "reset-after", "resettime")
    return any(f"{name}-{part}" in headers for part in parts)


def _structured(reader: _Reader) -> tuple[list[Quota], int | None]:
    """`"default";r=50;t=30` with `"default";q=100;w=60`: states and policies, by their names.

    A policy that doesn't count requests is left out, with its state; one that counts concurrent
    requests limits those in flight.
    """
    policies = {str(name): pairs for name, pairs in reader.items("ratelimit-policy")}
    quotas, concurrency, stated = [], None, set()
    for item, pairs in reader.items("ratelimit"):
        name = str(item)
        if "r" not in pairs and "t" not in pairs:
            reader.reject("ratelimit", item)
            continue
        stated.add(name)
        policy = policies.get(name, {})
        if policy.get("qu", "requests") != "requests":
            continue
        reset_in_s, whole, _ = reader.seconds_left("ratelimit", pairs.get("t"))
        partition = pairs.get("pk", b"")
        quotas.append(
            _checked(
                reader, "ratelimit",
                Quota(
                    name=printable(f"{name} {partition.hex()}".strip()[:60])
                    if isinstance(partition, bytes) else printable(name[:60]),
                    limit=reader.count("ratelimit-policy", policy.get("q")),
                    remaining=reader.count("ratelimit", pairs.get("r")),
                    reset_in_s=reset_in_s,
                    reset_is_whole=whole,
                    window_s=reader.window("ratelimit-policy", policy.get("w")),
                ),
            )
        )  # fmt: skip
    for name, policy in policies.items():
        if policy.get("qu") == "concurrent-requests":
            concurrency = reader.count("ratelimit-policy", policy.get("q"))
        elif name not in stated and policy.get("qu", "requests") == "requests":
            quotas += _bare_policies(reader, "ratelimit-policy", [(name, policy)])
    return quotas, concurrency


def _combined(reader: _Reader) -> list[Quota]:
    """`limit=100, remaining=50, reset=5` in one field, of the middle drafts."""
    pairs = dict(re.findall(r'([a-z]+)\s*=\s*"?([^;,"\s]+)', reader.headers["ratelimit"].lower()))
    reset_in_s, whole, _ = reader.seconds_left("ratelimit", pairs.get("reset"))
    quota = Quota(
        limit=reader.count("ratelimit", pairs.get("limit")),
        remaining=reader.count("ratelimit", pairs.get("remaining")),
        reset_in_s=reset_in_s,
        reset_is_whole=whole,
    )
    return _with_policies(reader, "ratelimit", quota, list(reader.items("ratelimit-policy")))


def _family(reader: _Reader, name: str) -> list[Quota]:
    """`…-Limit`, `…-Remaining` and `…-Reset`. Early drafts put policies behind the limit
    (`10, 10;w=15, 100;w=1`) or into a field of their own.
    """
    headers, limit_name = reader.headers, f"{name}-limit"
    limit_text = headers.get(limit_name)
    policies: list[tuple[Any, dict[str, Any]]] = []
    if limit_text is not None and re.search(r"[;,]", limit_text):
        items = list(reader.items(limit_name))
        policies = [item for item in items if item[1]]
        limit_text = str(items[0][0]) if items else None
    policies += reader.items(f"{name}-policy")
    reset_name = next((f"{name}-{part}" for part in ("reset-after", "reset", "resettime")
                       if f"{name}-{part}" in headers), f"{name}-reset")  # fmt: skip
    limit = reader.count(limit_name, limit_text)
    remaining = reader.count(f"{name}-remaining", headers.get(f"{name}-remaining"))
    reset_in_s, whole, may_be_ms = reader.seconds_left(reset_name, headers.get(reset_name))
    quota = Quota(
        limit=limit,
        remaining=remaining,
        reset_in_s=reset_in_s,
        reset_is_whole=whole,
        may_be_ms=may_be_ms and not reset_name.endswith("after"),
    )
    return _with_policies(reader, name, quota, policies)


def _with_policies(
    reader: _Reader, name: str, quota: Quota, policies: list[tuple[Any, dict[str, Any]]]
) -> list[Quota]:
    """The quota with the window of the policy that has its limit, and the other policies."""
    bare = _bare_policies(reader, f"{name}-policy", policies)
    own = [policy for policy in bare if policy.limit == quota.limit]
    if own:
        quota = replace(quota, window_s=own[0].window_s)
    elif len(bare) == 1 and quota.limit is None:
        quota, bare = replace(quota, limit=bare[0].limit, window_s=bare[0].window_s), []
    others = [policy for policy in bare if policy not in own]
    return [quota for quota in (_checked(reader, name, quota), *others) if quota != Quota()]


def _bare_policies(
    reader: _Reader, name: str, policies: list[tuple[Any, dict[str, Any]]]
) -> list[Quota]:
    """Policies without a state: a limit (`q`, or the item itself) and its window."""
    quotas = []
    for item, pairs in policies:
        window_s = reader.window(name, pairs.get("w", pairs.get("window")))
        limit = reader.count(name, pairs.get("q", item))
        if limit and window_s is not None:
            label = str(item) if "q" in pairs else f"{limit} per {window_s:g} s"
            quotas.append(Quota(name=printable(label[:60]), limit=limit, window_s=window_s))
    return quotas


def _per_unit(reader: _Reader, name: str) -> Iterator[Quota]:
    """`X-RateLimit-Limit-Minute` and `X-RateLimit-Remaining-Minute`, and the other units."""
    for unit, window_s in _UNITS_S.items():
        limit_name, remaining_name = f"{name}-limit-{unit}", f"{name}-remaining-{unit}"
        limit = reader.count(limit_name, reader.headers.get(limit_name))
        remaining = reader.count(remaining_name, reader.headers.get(remaining_name))
        if limit or remaining is not None:
            quota = Quota(name=unit, limit=limit, remaining=remaining, window_s=window_s)
            yield _checked(reader, name, quota)


def _checked(reader: _Reader, name: str, quota: Quota) -> Quota:
    """Caps `remaining` at the limit. A limit of 0 is no limit: some servers fill every field with
    0 where they have none.
    """
    if quota.limit == 0:
        if not quota.reset_in_s:
            return Quota(name=quota.name)
        return replace(quota, limit=None)
    if quota.limit is not None and (quota.remaining or 0) > quota.limit:
        reader.reject(f"{name} remaining", f"{quota.remaining} of {quota.limit}")
        return replace(quota, remaining=quota.limit)
    return quota


# --- Retry-After --------------------------------------------------------------------------------


def _retry_after(reader: _Reader, body: bytes) -> float | None:
    """Seconds to wait: from a field in milliseconds, else Retry-After (number or date), else the
    body.
    """
    for name in _RETRY_AFTER_MS:
        value_ms = reader.number(name, reader.headers.get(name))
        if value_ms is not None and value_ms / 1000 <= LONGEST_S:
            return value_ms / 1000
    text = reader.headers.get("retry-after")
    if text is not None:
        seconds = _retry_after_field(reader, text)
        if seconds is not None:
            return seconds
    return _body_retry_after(reader, body)


def _retry_after_field(reader: _Reader, text: str) -> float | None:
    # Date and Retry-After are both cut to whole seconds; against a finer clock the wait would end
    # too early.
    at = None if _NUMBER.fullmatch(text.strip()) else reader.epoch_s(text)
    if at is None:
        return reader.seconds_left("retry-after", text)[0]
    answered_at = reader.epoch_s(reader.headers.get("date", ""))
    left_s = at - (reader.server_epoch_s if answered_at is None else answered_at)
    if not -_JUST_PAST_S <= left_s <= LONGEST_S:
        reader.reject("retry-after", text)
        return None
    reader.fields.append("retry-after")
    return max(0.0, left_s)


def _body_retry_after(reader: _Reader, body: bytes) -> float | None:
    """`rateLimit.retryAfter`, or `retryAfter` or `retry_after` at the top level."""
    if not 0 < len(body) <= _LARGEST_BODY:
        return None
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None  # for instance an HTML page of a load balancer
    if not isinstance(answer, dict):
        return None
    nested = answer.get("rateLimit")
    places = {
        "body rateLimit.retryAfter": nested.get("retryAfter") if isinstance(nested, dict) else None,
        "body retryAfter": answer.get("retryAfter"),
        "body retry_after": answer.get("retry_after"),
    }
    for name, value in places.items():
        if value is not None:
            seconds = reader.seconds_left(name, value)[0]
            if seconds is not None:
                return seconds
    return None
