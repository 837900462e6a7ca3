"""The loss of one row: a function of one linear output and one target."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax.types import Array


class Loss(NamedTuple):
    """A convex loss of linear outputs, entry by entry.

    Attributes:
        value: `value(outputs, targets)`, arrays of one shape to an array of that shape; convex and twice differentiable
            in the outputs.
        quadratic: whether `value` is quadratic in the outputs with curvature 1; one quadratic model is then exact.

    Example:
        >>> poisson = Loss(value=lambda outputs, targets: jnp.exp(outputs) - targets * outputs)
        >>> poisson.value(jnp.zeros(2), jnp.array([0.0, 3.0])).tolist()
        [1.0, 1.0]
    """

    value: Callable[[Array, Array], Array]
    quadratic: bool = False


def _squared(outputs: Array, targets: Array) -> Array:
    return 0.5 * jnp.square(targets - outputs)


def _logistic(outputs: Array, targets: Array) -> Array:
    sign = jnp.where(targets == 1, 1.0, jnp.where((targets == 0) | (targets == -1), -1.0, jnp.nan))
    return jax.nn.softplus(-sign.astype(outputs.dtype) * outputs)


squared = Loss(value=_squared, quadratic=True)
"""`1/2 (y - f)^2`: least squares."""

logistic = Loss(value=_logistic)
"""`log(1 + exp(-y f))` for labels y of -1 and 1; label 0 counts as -1: logistic regression. NaN for other labels."""


def derivatives(loss: Loss, outputs: Array, targets: Array) -> tuple[Array, Array]:
    """The first and second derivatives of each entry's loss by its output.

    Example:
        >>> [x.tolist() for x in derivatives(squared, jnp.array([3.0]), jnp.array([1.0]))]
        [[2.0], [1.0]]
    """

    def slope(f: Array) -> Array:
        value, pullback = jax.vjp(lambda f: loss.value(f, targets), f)
        return pullback(jnp.ones_like(value))[0]

    return jax.jvp(slope, (outputs,), (jnp.ones_like(outputs),))
