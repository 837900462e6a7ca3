"""Checks of the arguments of losses and metrics: outputs of a network, and their targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mtljax.checks.messages import expect, found
from mtljax.types import Array

Test = Callable[[Any], Any]


def check_outputs(where: str, outputs: Any, *, what: str = "outputs") -> Array:
    """Floating outputs as an array, in float32 at least.

    Example:
        >>> check_outputs("accuracy", np.array([1, 2], np.int32))
        Traceback (most recent call last):
        ...
        TypeError: accuracy: outputs must be an array of a floating type, found an array of shape (2,) and dtype int32
    """
    array = _array(where, what, outputs)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{where}: {what} must be an array of a floating type, found {_kind(array)}")
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def check_pair(where: str, outputs: Any, targets: Any) -> tuple[Array, Array]:
    """Outputs and real targets in one floating type, after checking that both are `[B, ...]` of one shape.

    Example:
        >>> check_pair("huber", np.zeros((3, 1)), np.zeros(3))
        Traceback (most recent call last):
        ...
        ValueError: huber: outputs and targets must both be [B, ...] of one shape, found outputs [3, 1] and targets [3]
    """
    outputs, array = check_outputs(where, outputs), _array(where, "targets", targets)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise TypeError(f"{where}: targets must be real numbers, found {_kind(array)}")
    if array.ndim < 1 or outputs.shape != array.shape or 0 in array.shape[1:]:
        raise ValueError(
            f"{where}: outputs and targets must both be [B, ...] of one shape, found outputs {list(outputs.shape)} "
            f"and targets {list(array.shape)}"
        )
    return outputs, array.astype(outputs.dtype)


def check_labels(where: str, outputs: Any, targets: Any, *, least: int = 0) -> tuple[Array, Array, Array]:
    """Logits `[B, ..., C]`, labels `[B, ...]` with 0 where out of range, and a bool mask of labels in range.

    Args:
        where: the public function's name.
        outputs: floating `[B, ..., C]`.
        targets: integer `[B, ...]`.
        least: the smallest valid label.

    Raises:
        TypeError: logits that are not floating, labels that are not integers.
        ValueError: shapes that do not match, or concrete labels outside `least` to C - 1.

    Example:
        >>> check_labels("accuracy", np.zeros((2, 3)), np.array([0, 255]))
        Traceback (most recent call last):
        ...
        ValueError: accuracy: targets must be labels from 0 to 2, found 255
    """
    outputs, labels = check_outputs(where, outputs), _array(where, "targets", targets)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{where}: targets must be integer labels, found {_kind(labels)}")
    if labels.ndim < 1 or outputs.shape[:-1] != labels.shape or 0 in outputs.shape[1:]:
        raise ValueError(
            f"{where}: outputs must be [B, ..., C] and targets [B, ...], found outputs {list(outputs.shape)} and "
            f"targets {list(labels.shape)}"
        )
    classes = outputs.shape[-1]
    known = check_values(
        where, targets, lambda y: (y >= least) & (y < classes), f"labels from {least} to {classes - 1}"
    )
    return outputs, jnp.where(known & (labels >= 0), labels, 0), known


def check_values(where: str, targets: Any, test: Test, expected: str) -> Array:
    """A bool mask of the targets that pass a test; all concrete targets must pass it.

    The caller handles traced targets that do not pass: a loss is NaN there, and the task is inactive in the step.

    Example:
        >>> check_values("binary_cross_entropy", np.array([0.5, 2.0]), lambda y: y <= 1, "at most 1")
        Traceback (most recent call last):
        ...
        ValueError: binary_cross_entropy: targets must be at most 1, found 2.0
    """
    if not isinstance(targets, Tracer):
        values = np.asarray(targets)
        wrong = ~test(values)
        if wrong.any():
            raise ValueError(f"{where}: targets must be {expected}, found {values[wrong].flat[0]}")
    return test(jnp.asarray(targets))


def check_least_loss(name: str, losses: Array, active: Array | None, least: Any) -> None:
    """Raise ValueError if a task takes part whose loss is below the smallest loss that the method accepts.

    Only concrete losses are checked. If losses are traced, the step leaves out such a task.

    Args:
        name: the method's name, which opens the message.
        losses: `[T]`.
        active: bool `[T]`, or None for all.
        least: a number or `[T]`, or None for a method that accepts all losses.

    Example:
        >>> check_least_loss("geometric", jnp.array([1.0, -2.0]), None, 0.0)
        Traceback (most recent call last):
        ...
        ValueError: geometric: losses must be at least 0.0, of which it takes logarithms or ratios, found [1.0, -2.0]
    """
    if least is None or any(isinstance(array, Tracer) for array in (losses, active, least)):
        return
    below = np.asarray(losses) < np.asarray(least)
    if (below if active is None else below & np.asarray(active)).any():
        bound, values = np.asarray(least, np.float32).tolist(), np.asarray(losses, np.float32).tolist()
        raise ValueError(
            f"{name}: losses must be at least {bound}, of which it takes logarithms or ratios, found {values}"
        )


def _array(where: str, what: str, value: Any) -> Any:
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        array = None
    expect(array is not None, where, what, "an array", value, TypeError)
    return array


def _kind(array: Any) -> str:
    return (
        found(array) if isinstance(array, Tracer) else f"an array of shape {array.shape} and dtype {array.dtype.name}"
    )
