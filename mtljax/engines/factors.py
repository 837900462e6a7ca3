"""Whether a gradient is finite, decided from the two factors of which it is the product.

The gradient of a dense layer's kernel is `x^T d`: what the layer read, times the cotangent of what it gave, each with a
row for each example. By Cauchy and Schwarz no entry of a product exceeds `|x| |d|`, the norms of all entries, and where
there are few examples both factors are far smaller than their product. Reading a kernel's gradient one more time would
cost a fifth of the step of a small network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend import core

_MOVES = ("reshape", "squeeze", "transpose")


def factors_of(eqns: Sequence[Any], variables: Sequence[Any]) -> list[tuple[Any, ...]]:
    """For each variable the two whose product it is, where that is one of smaller float32 arrays, else itself alone.

    Args:
        eqns: the equations of a jaxpr.
        variables: some of their outputs, or literals.
    """
    maker = {var: eqn for eqn in eqns for var in eqn.outvars}

    def found(var: Any) -> tuple[Any, ...]:
        at = var
        while not isinstance(at, core.Literal) and at in maker and maker[at].primitive.name in _MOVES:
            at = maker[at].invars[0]
        if isinstance(at, core.Literal) or at not in maker or maker[at].primitive.name != "dot_general":
            return (var,)
        pair = tuple(maker[at].invars)
        plain = all(each.aval.dtype == jnp.float32 for each in (at, *pair))
        # The activations of a shared layer are a factor of every head, and summed for all of them at once.
        small = sum(math.prod(each.aval.shape) for each in pair) <= 2 * math.prod(at.aval.shape)
        return pair if plain and small else (var,)

    return [found(var) for var in variables]
