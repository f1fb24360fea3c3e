"""What is read from one response, in every spelling that servers use."""

import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.core.ratelimit.headers import LONGEST_S, Advice, http_date, read_advice

NOW = 1_790_000_000.0  # 2026-09-21 14:13:20 GMT


def read(status: int = 200, body: bytes = b"", **fields: str) -> Advice:
    headers = {name.replace("_", "-"): text for name, text in fields.items()}
    return read_advice(status, headers, body, server_epoch_s=NOW)


@pytest.mark.parametrize(
    ("reset", "expected_s", "whole"),
    [
        ("34", 34, True),
        ("0", 0, True),
        ("1.5", 1.5, False),
        ("1790000034", 34, True),
        ("1790000034500", 34.5, False),
        ("1789999999", 0, True),
    ],
)
def test_reset_as_seconds_epoch_seconds_or_milliseconds(
    reset: str, expected_s: float, whole: bool
) -> None:
    """The three meanings of a reset are told apart by their size; one just past is now."""
    advice = read(x_ratelimit_limit="10", x_ratelimit_remaining="8", x_ratelimit_reset=reset)
    assert (advice.limit, advice.remaining) == (10, 8)
    assert advice.reset_in_s == pytest.approx(expected_s)
    assert advice.reset_is_whole is whole
    assert advice.learnt_from == "x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset"
    assert advice.nonsense == ()
    assert advice.tells_budget


@pytest.mark.parametrize(
    "reset",
    [
        "-5",
        "soon",
        "",
        "nan",
        "inf",
        "1e9",
        "400000000",
        "99999999999999999999",
        "1780000000",
        "5,6",
    ],
)
def test_nonsense_is_left_out_and_named(reset: str) -> None:
    """A reset that is negative, absurd, long past or no number is ignored, and said to be."""
    advice = read(x_ratelimit_remaining="8", x_ratelimit_reset=reset)
    assert advice.reset_in_s is None
    assert advice.remaining == 8
    assert len(advice.nonsense) == 1
    assert advice.nonsense[0].startswith("x-ratelimit-reset: ")
    assert "reset" not in advice.learnt_from


def test_more_left_than_the_limit_is_cut_to_the_limit() -> None:
    """A remaining above the limit can't be spent."""
    advice = read(x_ratelimit_limit="10", x_ratelimit_remaining="80", x_ratelimit_reset="5")
    assert (advice.limit, advice.remaining) == (10, 10)
    assert advice.nonsense == ("x-ratelimit remaining: 80 of 10",)


def test_ietf_fields_with_several_policies_take_the_tightest() -> None:
    """Of several policies the one with the least left is the one that stops us."""
    advice = read(
        ratelimit='"day";r=900;t=3600, "burst";r=3;t=7',
        ratelimit_policy='"day";q=1000;w=86400, "burst";q=10;w=20',
    )
    assert (advice.limit, advice.remaining, advice.reset_in_s, advice.window_s) == (10, 3, 7, 20)


def test_ietf_fields_with_two_spent_policies_take_the_longer_wait() -> None:
    """A spent day isn't asked again each second because the burst's second is over."""
    field = '"burst";r=0;t=1, "odd";r=0;t=x, "day";r=0;t=3000, "hour";r=0;t=60'
    advice = read(ratelimit=field, ratelimit_policy='"burst";q=5;w=1, "day";q=1000;w=86400')
    assert (advice.limit, advice.remaining, advice.reset_in_s) == (1000, 0, 3000)


def test_ietf_field_without_a_policy_field() -> None:
    """The policy field is optional."""
    advice = read(ratelimit='"default";r=3;t=7')
    assert (advice.limit, advice.remaining, advice.reset_in_s) == (None, 3, 7)


def test_ietf_field_of_the_drafts_in_between() -> None:
    """`limit=…, remaining=…, reset=…` in one field."""
    advice = read(ratelimit="limit=100, remaining=50, reset=5")
    assert (advice.limit, advice.remaining, advice.reset_in_s) == (100, 50, 5)


def test_ietf_fields_of_the_early_drafts() -> None:
    """Three fields, the limit followed by its policies."""
    advice = read(ratelimit_limit="100, 100;w=60", ratelimit_remaining="50", ratelimit_reset="5")
    assert (advice.limit, advice.remaining, advice.window_s) == (100, 50, 60)


def test_ietf_policy_beside_three_fields() -> None:
    """The window's length may stand in a field of its own."""
    advice = read(
        ratelimit_limit="100", ratelimit_remaining="50", ratelimit_policy="100;w=60, bad;w=1.2.3"
    )
    assert advice.window_s == 60


def test_ietf_nonsense_is_named() -> None:
    """A RateLimit field that can't be read is not mistaken for a number."""
    advice = read(ratelimit="plenty")
    assert advice == Advice(nonsense=("ratelimit: plenty",))
    assert not advice.tells_budget


@pytest.mark.parametrize(
    "field", ['"a";r=0;t=-5', '"a";r=0;t=soon', '"a";r=0;t=999999999', "remaining=0, reset=-5"]
)
def test_ietf_nonsense_in_the_reset_is_named(field: str) -> None:
    """As in the other fields: what is left counts, the reset is ignored, and said to be."""
    advice = read(ratelimit=field)
    assert (advice.remaining, advice.reset_in_s) == (0, None)
    assert len(advice.nonsense) == 1
    assert advice.nonsense[0].startswith("ratelimit: ")


def test_a_window_of_absurd_length_is_left_out() -> None:
    """A policy's window above ten years or of zero isn't used."""
    for w in ("0", "999999999"):
        assert read(ratelimit='"d";r=3;t=7', ratelimit_policy=f'"d";q=5;w={w}').window_s is None


def test_a_limit_and_its_end_are_enough_to_count_by() -> None:
    """Without a remaining, we can count ourselves; a limit alone says nothing."""
    assert read(x_rate_limit_limit="10", x_rate_limit_reset="5").tells_budget
    assert not read(x_rate_limit_limit="10").tells_budget


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        ("51", 51),
        ("1.5", 1.5),
        ("Mon, 21 Sep 2026 14:14:11 GMT", 51),
        ("Monday, 21-Sep-26 14:14:11 GMT", 51),
        ("Mon Sep 21 14:14:11 2026", 51),
        ("Mon, 21 Sep 2026 14:13:19 GMT", 0),
        ("86400", 86_400),
    ],
)
def test_retry_after_as_seconds_and_as_all_three_dates(text: str, expected_s: float) -> None:
    """RFC 9110's forms; a date just past is now, and the controller makes a wait of it."""
    advice = read(429, retry_after=text)
    assert advice.retry_after_s == expected_s
    assert advice.learnt_from == "retry-after"


@pytest.mark.parametrize(
    "text",
    ["-1", "later", "999999999", "Mon, 21 Foo 2026 14:14:11 GMT", "Mon, 21 Sep 2026 14:00:00 GMT",
     "Fri, 31 Dec 9999 23:59:59 GMT"],
)  # fmt: skip
def test_nonsense_in_retry_after_falls_back_to_the_body(text: str) -> None:
    """The body's retryAfter counts when the field makes no sense."""
    body = json.dumps({"rateLimit": {"retryAfter": 51}}).encode()
    advice = read(429, body, retry_after=text)
    assert advice.retry_after_s == 51
    assert advice.nonsense == (f"retry-after: {text}",)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b'{"rateLimit":5}', b'{"rateLimit":{}}', b"[" * 60_000,
     b" " * 70_000, b'{"rateLimit":{"retryAfter":"soon"}}', b"\xff\xfe\xfa"],
)  # fmt: skip
def test_a_body_without_a_word_on_it_says_nothing(body: bytes) -> None:
    """Load balancers answer with HTML, and worse."""
    assert read(429, body).retry_after_s is None


def test_a_retry_after_date_is_held_against_the_answers_own_date() -> None:
    """Both are cut to whole seconds: a clock that knows better would end the wait too soon."""
    fields = {"date": formatdate(NOW, usegmt=True), "retry-after": formatdate(NOW + 2, usegmt=True)}
    for late_s in (0.0, 0.9, 3600.0):
        assert read_advice(429, fields, b"", server_epoch_s=NOW + late_s).retry_after_s == 2


def test_retry_after_counts_for_429_and_503_only() -> None:
    """Elsewhere (a 301, a 413) it doesn't speak of our rate."""
    assert read(200, retry_after="5").retry_after_s is None
    assert read(503, retry_after="5").retry_after_s == 5


def test_http_dates() -> None:
    """The standard's own example in its three forms, years of two digits, and what is no date."""
    for text in (
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ):
        assert http_date(text, near_epoch_s=NOW) == 784_111_777
    assert http_date("Monday, 21-Sep-76 14:14:11 GMT", near_epoch_s=NOW) == 3_367_923_251
    for text in ("Sun, 32 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 25:49:37 GMT", "", "now"):
        assert http_date(text, near_epoch_s=NOW) is None


@given(
    st.sampled_from([200, 429, 503]),
    st.dictionaries(
        st.sampled_from(
            ["ratelimit", "ratelimit-policy", "ratelimit-limit", "x-ratelimit-limit",
             "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after", "date"]
        ),
        st.text() | st.from_regex(r'"?[a-z]*"?;?r?=?[0-9.]{0,25};t=[0-9]{1,25}', fullmatch=True),
    ),
    st.binary(),
)  # fmt: skip
def test_any_text_is_read_without_an_error(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    """Whatever a server sends, what comes out is within its bounds."""
    advice = read_advice(status, headers, body, server_epoch_s=NOW)
    for value in (advice.limit, advice.remaining):
        assert value is None or value >= 0
    for seconds in (advice.reset_in_s, advice.retry_after_s):
        assert seconds is None or 0 <= seconds <= LONGEST_S
    assert advice.window_s is None or 0 < advice.window_s <= LONGEST_S
