"""What is taken out of lines before people see them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.api import secrets
from datasync_crawler.api.secrets import without, without_password

KEY = "kanarienvogel-17"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("", ""),
        ("nothing", "nothing"),
        (f"Invalid key {KEY}, see docs", "Invalid key [K], see docs"),
        (f"{KEY}{KEY} and {KEY}", "[K][K] and [K]"),
        (f"Invalid key {KEY[:9]}, CODE), no list", "Invalid key [K], CODE), no list"),
        (f"key={KEY[:6]}", "key=[K]"),
        ("kanari is a beginning, kana is none", "[K] is a beginning, kana is none"),
    ],
)
def test_a_key_is_taken_out_wherever_it_stands(text: str, left: str) -> None:
    """All of them, cut ones too, and nothing of what surrounds them."""
    assert without(KEY, text, "[K]") == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("demo", "***"),
        ("password 'demo' refused", "password '***' refused"),
        ("a demonstration of demos", "a demonstration of demos"),
        ("host=demo.example", "host=***.example"),
    ],
)
def test_a_short_secret_is_no_part_of_a_word(text: str, left: str) -> None:
    """A word that holds it shows nothing, and a line full of *** says nothing."""
    assert without("demo", text, "***") == left
    assert without("", text, "***") == text


@given(st.text("ab", max_size=8), st.text("ab", max_size=8))
def test_no_secret_is_left(before: str, after: str) -> None:
    """Whatever surrounds it, its own beginning above all."""
    secret = "aabaabab"
    assert secret not in without(secret, before + secret + after, "-")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("ftp://me:s3cret@host/x.jsonl", "ftp://me:***@host/x.jsonl"),
        ("'ftp://me:a@b@host/x' and s3://k:s@b/x", "'ftp://me:***@host/x' and s3://k:***@b/x"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        ("ftp://me@host/x", "ftp://me@host/x"),
        ("events.jsonl", "events.jsonl"),
    ],
)
def test_an_address_is_shown_without_its_password(text: str, left: str) -> None:
    """Users, hosts, ports and paths stay."""
    assert without_password(text) == left


def test_a_secret_at_the_very_end_is_taken_out() -> None:
    """Whole or cut."""
    assert secrets._without_beginning("abcdefgh", "key abcdefgh", "*") == "key *"
    assert secrets.without("abcdefgh", "key abcdef", "*") == "key *"


@pytest.mark.parametrize(
    "quoted",
    [
        "k%2Fey%26%22%20abc+1234",
        "k/ey%26%22%20abc%2B1234",
        "k%2Fey%26%22+abc%2B1234",
        'k/ey&\\" abc+1234',
        "k/ey&amp;&quot; abc+1234",
        "ay9leSYiIGFiYysxMjM0",
        "ay9leSYiIGFi",
        "k%2Fey%26%22",
    ],
)
def test_a_quoted_secret_is_replaced(quoted: str) -> None:
    """In an address, in JSON, in HTML or in base64, whole or cut short."""
    secret = 'k/ey&" abc+1234'
    said = without(secret, f"before {quoted}; behind", "***")
    assert said.startswith("before ***")
    assert said.endswith("; behind")
    assert "abc" not in said
    assert "GFi" not in said
