"""The penalties of a step: one function, with its value and gradient at the parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax import trees
from mtljax.banks import Entries
from mtljax.types import Array, Params


class Penalized(NamedTuple):
    """A penalty at the parameters.

    Attributes:
        function: `function(params) -> []`.
        value: its value, which may not be finite.
        slope: its gradient, with 0 for entries that are not finite.
        reach: one scalar per leaf of the parameters, or `[n]` per leaf of a bank, the sum of absolute values of its
            gradient: 0 if the penalty does not depend on the leaf, not finite if the gradient is not finite.
        sound: bool `[]`, whether value and gradient are finite.
    """

    function: Callable[[Params], Array]
    value: Array
    slope: Params
    reach: Params
    sound: Array


def penalized(
    penalties: Sequence[Callable[[Params], Array]], params: Params, entries: Entries | None = None
) -> Penalized | None:
    """The sum of all penalties at the parameters; None without penalties. `entries` tell which are banks.

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
    banks = {} if entries is None else entries.banks

    def size(s: Array, axes: int) -> Array:
        return jnp.sum(jnp.abs(s), axis=tuple(range(axes, s.ndim)), dtype=trees.accumulator(s.dtype))

    own = {
        name: jax.tree.map(lambda s, axes=int(name in banks): size(s, axes), each) for name, each in slope.tasks.items()
    }
    reach = Params(jax.tree.map(lambda s: size(s, 0), slope.shared), own)
    return Penalized(function, value, kept, reach, trees.all_finite((value, reach)))
