"""The Link header (RFC 8288): what is a next page, and what isn't."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasync_crawler.api.links import next_link


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ("", None),
        ("<https://h/x?page=2>; rel=next", "https://h/x?page=2"),
        ('<https://h/x?page=2>; rel="next"', "https://h/x?page=2"),
        ('</x?page=1>; rel="prev", </x?page=3>; rel="next", </x?page=9>; rel="last"', "/x?page=3"),
        ('</x?a=1,2;3>;rel="next"', "/x?a=1,2;3"),
        ('</x> ; REL = "Start NEXT"', "/x"),
        ('</x>; title="a, <b>; rel=\\"next\\""; rel=prev', None),
        ('</x>; title="a, b"; rel=next', "/x"),
        ("</x>; rel=prev; rel=next", None),
        ('</other>; rel=next; anchor="/elsewhere", </x>; rel=next', "/x"),
        ("</x>; rel=nextish", None),
        ("</x>", None),
        ("<>; rel=next", None),
        (", ,</x>;rel=next,", "/x"),
        ("</x> rel=next", None),
        ("</x>; rel=prev junk, </y>; rel=next", None),
        ("https://h/x; rel=next", None),
        ('</x>; rel="next', None),
    ],
)
def test_the_next_page_is_the_first_link_that_says_so(header: str, target: str | None) -> None:
    """Names in any case, several relations in one, quoted commas; malformed links are no links."""
    assert next_link(header) == target


@given(st.text(alphabet='<>;,="\\ relnxt/', max_size=60))
def test_any_header_is_read(header: str) -> None:
    """Whatever a server sends, it is an address that stands in it, or none."""
    target = next_link(header)
    assert target is None or f"<{target}>" in header.replace(" ", "") or f"{target}" in header


def test_a_long_header_is_read_in_one_pass() -> None:
    """No form of it makes the reading start over: 64 kB each, without an end or a link."""
    for piece in ("<", '</x>;a="', '</x>;a="\\', "</x>;", ", "):
        assert next_link(piece * (65_536 // len(piece))) is None
