"""A preference over tasks as an argument of a method: read and checked where the method is made."""

from __future__ import annotations

from typing import Any

from mtljax import checks


def read_preference(name: str, preference: Any) -> Any:
    """A preference over tasks as float32 `[T]`, checked; None stays None.

    Example:
        >>> read_preference("upgrad", [1, 3]).tolist()
        [1.0, 3.0]
    """
    return None if preference is None else checks.check_preference(name, preference)


def check_preference(name: str, shares: Any, num_tasks: int) -> None:
    """Raises where a preference is not of T numbers; None passes.

    Example:
        >>> check_preference("upgrad", read_preference("upgrad", [1, 3]), 3)
        Traceback (most recent call last):
        ...
        ValueError: upgrad: preference must be of shape [3], found an array of shape (2,)
    """
    if shares is not None:
        checks.check_number(name, "preference", shares, shape=(num_tasks,))
