"""
Removes secrets from text before it is logged or printed.

Pure functions of text. Must not know which settings are secret.
"""

import json
import re
from base64 import b64encode, urlsafe_b64encode
from html import escape
from typing import Final
from urllib.parse import quote, quote_plus

#: Characters. A shorter secret is removed only as a whole word: the password "demo" isn't taken
#: out of "demonstration".
_SHORTEST_UNMISTAKABLE: Final = 8
#: Characters. Text may be cut in the middle of a secret: this much of its beginning is enough.
_BEGINNING: Final = 6
_PASSWORD_IN_URL: Final = re.compile(r"(://[^/?#\s:@]*+:)[^/?#\s]*@")


def without(secret: str, text: str, instead: str) -> str:
    """The text with *instead* in place of the secret, wherever it occurs, whole or cut short, as it
    is or as an answer may quote it: in an address, in JSON, in HTML, in base64.
    """
    if not secret:
        return text
    plain = secret.encode()
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret), json.dumps(secret)[1:-1],
              escape(secret), b64encode(plain).decode().rstrip("="),
              urlsafe_b64encode(plain).decode().rstrip("=")}  # fmt: skip
    forms = sorted({secret, *quoted}, key=len, reverse=True)
    if len(secret) < _SHORTEST_UNMISTAKABLE:
        whole = "|".join(map(re.escape, forms))
        return re.sub(rf"(?<!\w)(?:{whole})(?!\w)", lambda _: instead, text)
    parts = re.split("|".join(map(re.escape, forms)), text)
    for form in forms:
        parts = [_without_beginning(form, part, instead) for part in parts]
    return instead.join(parts)


def _without_beginning(secret: str, text: str, instead: str) -> str:
    parts = []
    position = 0
    while (found := text.find(secret[:_BEGINNING], position)) >= 0:
        end = found
        for sign in secret:
            if text[end : end + 1] != sign:
                break
            end += 1
        parts += [text[position:found], instead]
        position = end
    return "".join([*parts, text[position:]])


def without_password(text: str) -> str:
    """The text with *** in place of the password of each address in it (RFC 3986 §3.2.1)."""
    return _PASSWORD_IN_URL.sub(r"\1***@", text)
