"""
The `Link` header of a response (RFC 8288): where the next page is.

A pure function of the header's text. Must not resolve or fetch the link.
"""

import re
from typing import Final

_SPACE: Final = r"[ \t]*+"
# Link = "<" URI-Reference ">" *( ";" param ), one after another with commas between (§3).
_TARGET: Final = re.compile(rf"[ \t,]*+<([^<>]*+)>{_SPACE}")
_PARAMETER: Final = re.compile(
    rf";{_SPACE}(?:([!#$%&'*+.^_`|~0-9A-Za-z-]++){_SPACE}"
    rf'(?:={_SPACE}(?:"((?:[^"\\]|\\.)*+)"|([^\s;,"]*+)))?+)?+{_SPACE}'
)


def next_link(header: str) -> str | None:
    """
    The target of the first link with rel="next", as served: absolute or relative.

    Several `Link` lines are passed as one, joined by commas. Links about another page (`anchor`,
    §3.2) are skipped. None where there is no such link; parsing ends at a malformed link.
    """
    position = 0
    while link := _TARGET.match(header, position):
        position = link.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, position):
            position = parameter.end()
            name, quoted, token = parameter.groups()
            # Of equal names the first counts (§3.3).
            text = token or re.sub(r"\\(.)", r"\1", quoted or "")
            parameters.setdefault((name or "").lower(), text)
        if header[position : position + 1] not in {"", ","}:
            return None
        if "next" in parameters.get("rel", "").lower().split() and "anchor" not in parameters:
            return link[1].strip() or None
    return None
