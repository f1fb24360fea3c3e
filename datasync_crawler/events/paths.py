"""
What a body says beside its events: values found by their paths, without building the rest.

Owns the reading of single values out of JSON that is otherwise left as bytes, so that a `meta` of
20 million lists costs no memory. Must not know what a value means (wire.py).
"""

import json
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Final

import msgspec

#: Bytes of JSON that is parsed as a whole. Parsed, it takes up to 30 times that.
MOST_PARSED: Final = 1_000_000
#: Bytes of a single value that is read. No total, cursor or link that can be used is longer.
MOST_BYTES: Final = 65_536


class Unreadable:
    """A value that is there and can't be read: too long, or no JSON."""


UNREADABLE: Final = Unreadable()


def dig(node: object, path: tuple[str, ...]) -> object:
    """
    The value at a path: text, a number, True, False or None; a short list or object as it is.

    `node` is a dict of nodes, JSON that is still bytes (msgspec.Raw), or a value. None where the
    path leads nowhere, UNREADABLE for what is there and can't be read.
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
    JSON as a node for `dig`: parsed where it is short, else as the bytes that it is.

    A short one may hold NaN and invalid UTF-8. Raises ValueError for what is no JSON.
    """
    try:
        if len(served) > MOST_PARSED:
            return _BYTES.decode(served)
        text = served.decode("utf-8", "replace")
        return json.loads(text, parse_float=Decimal, parse_int=_integer)
    except (InvalidOperation, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError("no JSON") from error


def exact(number: str) -> Decimal | float:
    """A JSON number with a fraction or exponent, as it was written."""
    try:
        return Decimal(number)
    except InvalidOperation:  # an exponent of 20 digits: 0.0 or infinity serve as well
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
