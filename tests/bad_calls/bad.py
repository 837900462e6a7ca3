"""A bad call, and lists of them. `tests/bad_calls/AREA.py` holds a list `BAD`, and tests/test_bad_calls.py runs all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

NAN, INF = float("nan"), float("inf")
NO_NUMBERS = ("1", None, 1j, True, print, {})
"""What is not a number: a TypeError each."""
NO_COUNTS = ("1", None, 2.0, 2.5, NAN, True, print)
"""What is not a count: a TypeError each."""
NO_FLAGS = ("yes", None, 1, 0.0)
NO_FUNCTIONS = ("mse", None, 1.0)


class Bad(NamedTuple):
    """A call that must raise at trace time.

    Attributes:
        call: a function without arguments; nothing in it may compile a program.
        names: what the message must hold: the public function and the argument at least.
        error: ValueError or TypeError.
    """

    call: Callable[[], Any]
    names: str | tuple[str, ...]
    error: type[Exception] = ValueError


def each(
    make: Callable[[Any], Any], names: str | tuple[str, ...], values: Iterable[Any], error: type[Exception] = ValueError
) -> list[Bad]:
    """`make(value)` must raise for each of the values."""
    return [Bad(functools.partial(make, value), names, error) for value in values]


def number(make: Callable[[Any], Any], names: str | tuple[str, ...], *outside: Any, scalar: bool = True) -> list[Bad]:
    """`make(value)` must raise for what is not a number, for NaN, for those outside its range, and for arrays."""
    wrong = (NAN, *outside, *([[1.0, 1.0], np.ones((1,))] if scalar else [np.ones((2, 2, 2))]))
    return each(make, names, NO_NUMBERS, TypeError) + each(make, names, wrong)


def count(make: Callable[[Any], Any], names: str | tuple[str, ...], *outside: Any) -> list[Bad]:
    """`make(value)` must raise for what is not an integer, and for those outside its range."""
    return each(make, names, NO_COUNTS, TypeError) + each(make, names, outside)
