"""
Single values of a body, found by their paths without decoding the rest.

The rest stays bytes, so that a `meta` of 20 million lists costs no memory. Must not know what a
value means (decoding.py).
"""

import json
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Final

import msgspec

#: Largest JSON that is parsed as a whole, in bytes. Parsed, it takes up to 30 times that.
MOST_PARSED: Final = 1_000_000
#: Largest single value that is read, in bytes. No usable total, cursor or link is longer.
MOST_BYTES: Final = 65_536


class Unreadable:
    """A value that is present but too long or not JSON."""


UNREADABLE: Final = Unreadable()


def dig(node: object, path: tuple[str, ...]) -> object:
    """
    The value at a path: text, a number, True, False or None; a short list or object as it is.

    `node` is a dict of nodes, JSON that is still bytes (msgspec.Raw), or a value. None for a
    path without a value, UNREADABLE for a value that can't be read.
    """
    if not path:
        return None
    for key in path:
        if isinstance(node, msgspec.Raw):
            node = _member(node, key)
        elif isinstance(node, dict):
            node = node.get(key)
        else:
            return None
    return _value(node) if isinstance(node, msgspec.Raw) else node


def document(served: bytes) -> object:
    """
    JSON as a node for `dig`: parsed if it is short, else as its bytes.

    Short JSON may hold NaN and invalid UTF-8. Raises ValueError for what isn't JSON.
    """
    try:
        if len(served) > MOST_PARSED:
            return _BYTES.decode(served)
        text = served.decode("utf-8", "replace")
        return json.loads(text, parse_float=Decimal, parse_int=_integer)
    except (InvalidOperation, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError("no JSON") from error


def exact(number: str) -> Decimal | float:
    """A JSON number with a fraction or exponent, without rounding."""
    try:
        return Decimal(number)
    except InvalidOperation:  # an exponent of 20 digits: 0.0 or infinity
        return float(number)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 1_000 else float(digits)


def _member(node: msgspec.Raw, key: str) -> object:
    try:
        return _member_decoder(key).decode(node).value
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None  # no object


def _value(node: msgspec.Raw) -> object:
    served = bytes(node) if len(memoryview(node)) <= MOST_BYTES else b""
    try:
        return _VALUE.decode(served)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return UNREADABLE


@cache  # the keys come from the settings: a dozen
def _member_decoder(key: str) -> msgspec.json.Decoder[Any]:
    """Finds one key of an object and skips the others."""
    fields = [("value", msgspec.Raw, None)]
    return msgspec.json.Decoder(msgspec.defstruct("Member", fields, rename={"value": key}))


_BYTES: Final = msgspec.json.Decoder(msgspec.Raw)
_VALUE: Final = msgspec.json.Decoder(float_hook=exact)
