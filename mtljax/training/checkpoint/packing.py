"""Python values as JSON and back, unchanged: plain JSON turns integer keys into strings and tuples into lists."""

from __future__ import annotations

from typing import Any

MAPPING, TUPLE = "__mapping__", "__tuple__"


def pack(where: str, value: Any) -> Any:
    """The value in a form that JSON can hold; `unpack` is the inverse.

    Raises:
        TypeError: a value other than None, bools, numbers, strings, and dicts, lists and tuples of these.

    Example:
        >>> packed = pack("state", {1: (2, "a"), "b": None})
        >>> packed
        {'__mapping__': [[1, {'__tuple__': [2, 'a']}], ['b', None]]}
        >>> unpack(packed)
        {1: (2, 'a'), 'b': None}
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is dict:
        items = [[pack(where, key), pack(f"{where}[{key!r}]", item)] for key, item in value.items()]
        plain = all(type(key) is str for key in value) and not value.keys() & {MAPPING, TUPLE}
        return {key: item for key, item in items} if plain else {MAPPING: items}
    if type(value) in (list, tuple):
        items = [pack(f"{where}[{number}]", item) for number, item in enumerate(value)]
        return items if type(value) is list else {TUPLE: items}
    raise TypeError(
        f"{where} must be what JSON can hold: None, a bool, a number, a string, or dicts, lists and tuples of these, "
        f"found a {type(value).__name__}"
    )


def unpack(value: Any) -> Any:
    """The value that `pack` was given."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if isinstance(value, dict):
        if TUPLE in value:
            return tuple(unpack(item) for item in value[TUPLE])
        if MAPPING in value:
            return {unpack(key): unpack(item) for key, item in value[MAPPING]}
        return {key: unpack(item) for key, item in value.items()}
    return value
