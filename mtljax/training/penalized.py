"""The penalties of a step: one function, with its value and gradient at the parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax import trees
from mtljax.types import Array, Params


class Penalized(NamedTuple):
    """A penalty at the parameters.

    Attributes:
        function: `function(params) -> []`.
        value: its value, as it is.
        slope: its gradient, 0 where that is not finite.
        reach: like the parameters, scalars: the sum of sizes of each leaf's gradient, 0 where the penalty leaves it
            alone. Not finite where the gradient is not: one pass tells both.
        sound: bool `[]`, whether value and gradient were finite.
    """

    function: Callable[[Params], Array]
    value: Array
    slope: Params
    reach: Params
    sound: Array


def penalized(penalties: Sequence[Callable[[Params], Array]], params: Params) -> Penalized | None:
    """The sum of all penalties at the parameters; None for none.

    Example:
        >>> params = Params(jnp.zeros(2), {"a": jnp.ones(1)})
        >>> norm = lambda params: jnp.linalg.norm(params.shared)
        >>> found = penalized([norm, lambda params: params.tasks["a"][0]], params)
        >>> float(found.value), found.slope.shared.tolist(), bool(found.sound)
        (1.0, [0.0, 0.0], False)
    """
    if not penalties:
        return None

    def function(params: Params) -> Array:
        return functools.reduce(jnp.add, [penalty(params) for penalty in penalties])

    value, slope = jax.value_and_grad(function)(params)
    kept = jax.tree.map(lambda s: jnp.where(jnp.isfinite(s), s, jnp.zeros_like(s)), slope)
    reach = jax.tree.map(lambda s: jnp.sum(jnp.abs(s), dtype=trees.accumulator(s.dtype)), slope)
    return Penalized(function, value, kept, reach, trees.all_finite((value, reach)))
