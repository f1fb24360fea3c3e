"""What is read from one response, in every form that servers use: field by field."""

import json
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.ratelimit.headers import LONGEST_S, Quota, RateLimitInfo, read_info

NOW = 1_790_000_000.0  # 2026-09-21 14:13:20 GMT


def read(status: int = 200, body: bytes = b"", **fields: str) -> RateLimitInfo:
    headers = {name.replace("_", "-"): text for name, text in fields.items()}
    return read_info(status, headers, body, server_epoch_s=NOW)


def x(**parts: str) -> dict[str, str]:
    return {f"x_ratelimit_{part}": text for part, text in parts.items()}


#: Fields as they were met in the wild; what is read: limit, remaining, reset, window of each quota.
FORMS: dict[str, tuple[dict[str, str], list[tuple[Any, Any, Any, Any]]]] = {
    "seconds left": (x(limit="10", remaining="8", reset="34"), [(10, 8, 34, None)]),
    "epoch seconds (GitHub)": (
        x(limit="10", remaining="8", reset="1790000034"), [(10, 8, 34, None)],
    ),
    "epoch milliseconds": (
        x(limit="10", remaining="8", reset="1790000034500"), [(10, 8, 34.5, None)],
    ),
    "a second past is now": (x(limit="10", remaining="8", reset="1789999999"), [(10, 8, 0, None)]),
    "float seconds": (x(limit="10", remaining="8", reset="1.5"), [(10, 8, 1.5, None)]),
    "an HTTP date": (
        x(limit="10", remaining="8", reset="Mon, 21 Sep 2026 14:14:11 GMT"), [(10, 8, 51, None)],
    ),
    "an ISO date": (
        x(limit="10", remaining="8", reset="2026-09-21T14:14:11Z"), [(10, 8, 51, None)],
    ),
    "an ISO date without a zone is UTC": (
        x(limit="10", remaining="8", reset="2026-09-21T14:14:11.5"), [(10, 8, 51.5, None)],
    ),
    "Reset-After (Discord)": (
        x(limit="5", remaining="0", reset="1790000001.25", reset_after="1.25"),
        [(5, 0, 1.25, None)],
    ),
    "with hyphens (Slack, Azure)": (
        {"x_rate_limit_limit": "10", "x_rate_limit_remaining": "8", "x_rate_limit_reset": "5"},
        [(10, 8, 5, None)],
    ),
    "ResetTime (GitLab)": (
        {"ratelimit_limit": "60", "ratelimit_remaining": "59", "ratelimit_observed": "1",
         "ratelimit_resettime": "Mon, 21 Sep 2026 14:14:00 GMT"}, [(60, 59, 40, None)],
    ),
    "no information: zeros on every answer": (x(limit="0", remaining="0", reset="0"), []),
    "nothing left until then, without a limit": (
        x(limit="0", remaining="0", reset="20"), [(None, 0, 20, None)],
    ),
    "a limit alone says nothing": (x(limit="10"), []),
    "a limit and its end": (x(limit="10", reset="5"), [(10, None, 5, None)]),
    "more left than the limit": (x(limit="10", remaining="80", reset="5"), [(10, 10, 5, None)]),
    # --- early drafts: three fields, policies behind the limit or in a field of their own
    "the limit's own policy": (
        {"ratelimit_limit": "100, 100;w=60", "ratelimit_remaining": "50", "ratelimit_reset": "5"},
        [(100, 50, 5, 60)],
    ),
    "of several policies the limit's": (
        {"ratelimit_limit": "10, 10;w=15, 100;w=1", "ratelimit_remaining": "9",
         "ratelimit_reset": "12"}, [(10, 9, 12, 15), (100, None, None, 1)],
    ),
    "a limit with its window": (
        {"ratelimit_limit": "10;w=60", "ratelimit_remaining": "9", "ratelimit_reset": "12"},
        [(10, 9, 12, 60)],
    ),
    "window= instead of w=": (
        {"ratelimit_limit": "100;window=60", "ratelimit_remaining": "9"}, [(100, 9, None, 60)],
    ),
    "a policy field, draft 6": (
        {"ratelimit_limit": "5000", "ratelimit_remaining": "4999", "ratelimit_reset": "50",
         "ratelimit_policy": "1000;w=3600, 5000;w=86400"},
        [(5000, 4999, 50, 86_400), (1000, None, None, 3600)],
    ),
    "a policy that can't be read beside one that can": (
        {"ratelimit_limit": "100", "ratelimit_remaining": "50",
         "ratelimit_policy": "100;w=60, bad;w=1.2.3"}, [(100, 50, None, 60)],
    ),
    "policies with a blank before the semicolon, and a comment": (
        {"ratelimit_limit": "100", "ratelimit_remaining": "50",
         "ratelimit_policy": '100 ;w=60;comment="sliding, mostly"'}, [(100, 50, None, 60)],
    ),
    # --- one field, draft 7
    "one field, draft 7": (
        {"ratelimit": "limit=100, remaining=50, reset=5", "ratelimit_policy": "100;w=60"},
        [(100, 50, 5, 60)],
    ),
    # --- structured, draft 8 and later
    "structured": (
        {"ratelimit": '"default";r=50;t=30', "ratelimit_policy": '"default";q=100;w=60'},
        [(100, 50, 30, 60)],
    ),
    "structured, by express-rate-limit": (
        {"ratelimit": '"6-in-6sec"; r=5; t=6',
         "ratelimit_policy": '"6-in-6sec"; q=6; w=6; pk=:MTI3:'}, [(6, 5, 6, 6)],
    ),
    "structured, without a policy": ({"ratelimit": '"default";r=3;t=7'}, [(None, 3, 7, None)]),
    "several policies are all kept": (
        {"ratelimit": '"day";r=900;t=3600, "burst";r=3;t=7',
         "ratelimit_policy": '"day";q=1000;w=86400, "burst";q=10;w=20'},
        [(1000, 900, 3600, 86_400), (10, 3, 7, 20)],
    ),
    "a policy without a state": (
        {"ratelimit": '"day";r=9', "ratelimit_policy": '"day";q=10, "burst";q=5;w=1'},
        [(10, 9, None, None), (5, None, None, 1)],
    ),
    "policies alone": ({"ratelimit_policy": '"burst";q=10;w=20'}, [(10, None, None, 20)]),
    "a reset without what is left": (
        {"ratelimit": '"default";t=30', "ratelimit_policy": '"default";q=10'},
        [(10, None, 30, None)],
    ),
    "quoted parameters": (
        {"ratelimit": '"default";r="50";t="30"', "ratelimit_policy": '"default";q="100";w="60"'},
        [(100, 50, 30, 60)],
    ),
    "what isn't requests isn't paced": (
        {"ratelimit": '"bytes";r=5;t=30, "all";r=7;t=9',
         "ratelimit_policy": '"bytes";q=65535;w=10;qu="content-bytes", "all";q=10;w=9'},
        [(10, 7, 9, 9)],
    ),
    "partitions of one policy": (
        {"ratelimit": '"p";r=5;t=30;pk=:YQ==:, "p";r=7;t=9;pk=:Yg==:',
         "ratelimit_policy": '"p";q=10;w=60'}, [(10, 5, 30, 60), (10, 7, 9, 60)],
    ),
    # --- per unit
    "per minute and per hour (Kong)": (
        x(limit_minute="10", remaining_minute="8", limit_hour="100", remaining_hour="50"),
        [(10, 8, None, 60), (100, 50, None, 3600)],
    ),
    "per minute beside the same in draft 3 (Kong)": (
        {"ratelimit_limit": "10", "ratelimit_remaining": "8", "ratelimit_reset": "40",
         **x(limit_minute="10", remaining_minute="8")}, [(10, 8, 40, 60)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_quotas_met_in_the_wild(form: str) -> None:
    """Limit, remaining, seconds to the reset and window in seconds of each quota, in order."""
    fields, expected = FORMS[form]
    quotas = read(**fields).quotas
    seen = [(q.limit, q.remaining, q.reset_in_s, q.window_s) for q in quotas]
    assert seen == [pytest.approx(quota) for quota in expected]


def test_partitions_and_policies_have_names_of_their_own() -> None:
    """So that two quotas aren't taken for one."""
    fields, _ = FORMS["partitions of one policy"]
    assert [quota.name for quota in read(**fields).quotas] == ["p 61", "p 62"]
    fields, _ = FORMS["policies alone"]
    assert [quota.name for quota in read(**fields).quotas] == ["burst"]


def test_a_policy_of_concurrent_requests_is_a_limit_in_flight() -> None:
    """It isn't a quota in time."""
    info = read(ratelimit='"c";r=3', ratelimit_policy='"c";q=4;qu="concurrent-requests"')
    assert (info.quotas, info.concurrency) == ((), 4)


@pytest.mark.parametrize(
    ("reset", "others", "expected_s", "may_be_ms"),
    [
        ("15000", {}, 15_000, True),
        ("15000", {"ratelimit_policy": "10;w=60"}, 15, False),
        ("15000", {"ratelimit_policy": "10;w=86400"}, 15_000, False),
        ("15000", {"retry_after": "15"}, 15, False),
        ("15000", {"retry_after": "15000"}, 15_000, False),
        ("999", {}, 999, False),
        ("1790002000", {}, 2000, False),
    ],
)
def test_a_reset_in_milliseconds_is_told_by_the_window_or_retry_after(
    reset: str, others: dict[str, str], expected_s: float, may_be_ms: bool
) -> None:
    """Without either, the answer alone can't tell: it is marked."""
    fields = {"ratelimit_limit": "10", "ratelimit_remaining": "0", "ratelimit_reset": reset}
    (quota,) = read(429, **fields, **others).quotas
    assert (quota.reset_in_s, quota.may_be_ms) == (expected_s, may_be_ms)


@pytest.mark.parametrize(
    "reset",
    ["-5", "soon", "", "nan", "inf", "1e9", "400000000", "9" * 20, "1780000000", "5,6"],
)
def test_nonsense_is_left_out_and_named(reset: str) -> None:
    """A reset that is negative, absurd, long past or no number is ignored, and said to be."""
    info = read(**x(remaining="8", reset=reset))
    assert info.quotas == (Quota(remaining=8),)
    assert len(info.nonsense) == 1
    assert info.nonsense[0].startswith("x-ratelimit-reset: ")
    assert "reset" not in info.source


@pytest.mark.parametrize(
    "field", ['"a";r=0;t=-5', '"a";r=0;t=soon', '"a";r=0;t=999999999', "remaining=0, reset=-5"]
)
def test_nonsense_in_a_structured_reset_is_named(field: str) -> None:
    """What is left counts; the reset is ignored, and said to be."""
    info = read(ratelimit=field)
    assert [(quota.remaining, quota.reset_in_s) for quota in info.quotas] == [(0, None)]
    assert [said.partition(":")[0] for said in info.nonsense] == ["ratelimit"]


def test_a_field_that_cannot_be_read_is_not_mistaken_for_a_number() -> None:
    """It is named, with its control characters escaped: it goes into a log line."""
    assert read(ratelimit="plenty") == RateLimitInfo(nonsense=("ratelimit: plenty",))
    info = read(**x(limit="a\r\nb\x1b[31m", remaining="1"))
    assert info.nonsense == (r"x-ratelimit-limit: a\r\nb\x1b[31m",)


def test_a_window_of_absurd_length_is_left_out() -> None:
    """A window above ten years or of zero isn't used."""
    for w in ("0", "999999999"):
        (quota,) = read(ratelimit='"d";r=3;t=7', ratelimit_policy=f'"d";q=5;w={w}').quotas
        assert quota.window_s is None


def test_the_source_names_the_fields_that_were_used() -> None:
    """For the log line that says where a limit comes from."""
    info = read(**x(limit="10", remaining="8", reset="34"))
    assert info.source == "x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset"


def test_of_spent_quotas_the_one_that_resets_last_counts() -> None:
    """A spent day isn't asked again each second because the burst's second is over."""
    info = read(ratelimit='"burst";r=0;t=1, "day";r=0;t=3000, "hour";r=5;t=9000')
    assert info.spent == Quota(name="day", remaining=0, reset_in_s=3000)


@pytest.mark.parametrize(
    ("fields", "body", "expected_s"),
    [
        ({"retry_after": "51"}, b"", 51),
        ({"retry_after": "1.5"}, b"", 1.5),
        ({"retry_after": "Mon, 21 Sep 2026 14:14:11 GMT"}, b"", 51),
        ({"retry_after": "Monday, 21-Sep-26 14:14:11 GMT"}, b"", 51),
        ({"retry_after": "Mon Sep 21 14:14:11 2026"}, b"", 51),
        ({"retry_after": "2026-09-21T14:14:11Z"}, b"", 51),
        ({"retry_after": "Mon, 21 Sep 2026 14:13:19 GMT"}, b"", 0),
        ({"retry_after": "1790000034"}, b"", 34),
        ({"retry_after": "86400"}, b"", 86_400),
        ({"retry_after_ms": "1250", "retry_after": "2"}, b"", 1.25),
        ({"x_ms_retry_after_ms": "1250"}, b"", 1.25),
        ({}, b'{"rateLimit":{"retryAfter":51}}', 51),
        ({}, b'{"retryAfter":51}', 51),
        ({}, b'{"message":"You are being rate limited.","retry_after":0.65,"global":false}', 0.65),
        ({}, b'{"retry_after":"7"}', 7),
        ({"retry_after": "-1"}, b'{"rateLimit":{"retryAfter":51}}', 51),
    ],
)
def test_forms_of_retry_after(fields: dict[str, str], body: bytes, expected_s: float) -> None:
    """Seconds, milliseconds, dates, and the body's word where the field has none."""
    info = read(429, body, **fields)
    assert info.retry_after_s == pytest.approx(expected_s)
    assert info.source


@pytest.mark.parametrize(
    "text",
    ["-1", "later", "999999999", "Mon, 21 Foo 2026 14:14:11 GMT", "Mon, 21 Sep 2026 14:00:00 GMT",
     "Fri, 31 Dec 9999 23:59:59 GMT"],
)  # fmt: skip
def test_nonsense_in_retry_after_falls_back_to_the_body(text: str) -> None:
    """The body's retryAfter counts when the field makes no sense, and the field is named."""
    body = json.dumps({"rateLimit": {"retryAfter": 51}}).encode()
    info = read(429, body, retry_after=text)
    assert info.retry_after_s == 51
    assert info.nonsense == (f"retry-after: {text}",)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b'{"rateLimit":5}', b'{"rateLimit":{}}', b"[" * 60_000,
     b" " * 70_000, b'{"rateLimit":{"retryAfter":"soon"}}', b'{"retryAfter":true}', b"\xff\xfe"],
)  # fmt: skip
def test_a_body_without_a_word_on_it_says_nothing(body: bytes) -> None:
    """Load balancers answer with HTML, and worse."""
    assert read(429, body).retry_after_s is None


def test_a_retry_after_date_is_held_against_the_answers_own_date() -> None:
    """Both are cut to whole seconds: a clock that knows better would end the wait too soon."""
    fields = {"date": formatdate(NOW, usegmt=True), "retry-after": formatdate(NOW + 2, usegmt=True)}
    for late_s in (0.0, 0.9, 3600.0):
        assert read_info(429, fields, b"", server_epoch_s=NOW + late_s).retry_after_s == 2


def test_retry_after_counts_for_refusals_only() -> None:
    """Elsewhere (a 301, a 413) it doesn't speak of our rate."""
    assert read(200, retry_after="5").retry_after_s is None
    assert [read(status, retry_after="5").retry_after_s for status in (403, 429, 503)] == [5] * 3


@given(
    st.sampled_from([200, 429, 503]),
    st.dictionaries(
        st.sampled_from(
            ["ratelimit", "ratelimit-policy", "ratelimit-limit", "x-ratelimit-limit",
             "x-ratelimit-remaining", "x-ratelimit-reset", "x-ratelimit-limit-minute",
             "retry-after", "retry-after-ms", "date"]
        ),
        st.text() | st.from_regex(r'"?[a-z]*"?;?r?=?[0-9.]{0,25};t=[0-9]{1,25}', fullmatch=True),
    ),
    st.binary(),
)  # fmt: skip
def test_any_text_is_read_without_an_error(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    """Whatever a server sends, what comes out is within its bounds, and printable."""
    info = read_info(status, headers, body, server_epoch_s=NOW)
    for quota in info.quotas:
        assert quota.is_countable
        assert quota.name.isprintable()
        for count in (quota.limit, quota.remaining):
            assert count is None or count >= 0
        assert quota.reset_in_s is None or 0 <= quota.reset_in_s <= LONGEST_S
        assert quota.window_s is None or 0 < quota.window_s <= LONGEST_S
    assert info.retry_after_s is None or 0 <= info.retry_after_s <= LONGEST_S
    assert all(said.isprintable() for said in info.nonsense)
