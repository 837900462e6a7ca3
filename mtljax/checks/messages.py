"""The messages of checks: how they describe the value that they found."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from mtljax.types import Method

LONGEST = 100


def found(value: Any) -> str:
    """A short description of a value for a message: the value itself, or its kind if it is long.

    Example:
        >>> found("1"), found(np.ones((3, 4))), found(found)
        ("'1'", 'an array of shape (3, 4) and dtype float64', "the function 'found'")
    """
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        # A value of several lines, such as a matrix or a key, is described by its kind.
        short = not isinstance(value, Tracer) and np.size(value) <= 4 and "\n" not in str(value)
        return str(value) if short else f"an array of shape {np.shape(value)} and dtype {value.dtype.name}"
    if isinstance(value, type):
        return f"the class '{value.__name__}'"
    if isinstance(value, Method):
        return f"the method '{value.name}'"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function '{value.__name__}'"
    text = repr(value)
    return text if len(text) <= LONGEST and "\n" not in text and " at 0x" not in text else f"a {type(value).__name__}"


def expect(condition: bool, where: str, what: str, expected: str, value: Any, error: type[Exception]) -> None:
    """Raise `error` with a message of the common form unless the condition holds.

    Example:
        >>> expect(False, "ema", "decay", "a number", None, TypeError)
        Traceback (most recent call last):
        ...
        TypeError: ema: decay must be a number, found None
    """
    if not condition:
        raise error(f"{where}: {what} must be {expected}, found {found(value)}")
