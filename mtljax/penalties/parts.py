"""Penalties on parameters that are a sum, with one penalty per summand."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mtljax.checks import check_nonnegative
from mtljax.penalties.common import Penalty
from mtljax.types import Array, PyTree


def by_part(name: str, penalties: dict[str, Penalty]) -> Penalty:
    """A penalty on parameters that are a sum: its value is the sum over the parts, its prox acts part by part.

    Args:
        name: the penalty's name; messages start with it.
        penalties: by part, each with a `prox`.

    Returns:
        `Penalty` with these `parts`.

    Example:
        >>> from mtljax.penalties.l1 import l1
        >>> lasso = by_part("lasso", {"all": l1(2.0)})
        >>> lasso.parts, float(lasso({"all": jnp.eye(2)}))
        (('all',), 4.0)
    """
    names = tuple(penalties)
    operators = {part: penalty.prox for part, penalty in penalties.items() if penalty.prox is not None}
    assert len(operators) == len(penalties)

    def check(stacked: PyTree) -> None:
        if not isinstance(stacked, Mapping):
            raise TypeError(f"{name}: stacked must be a dict by part of {list(names)}, found {type(stacked).__name__}")
        if set(stacked) != set(names):
            raise ValueError(f"{name}: stacked must have the parts {list(names)}, found {sorted(stacked)}")
        first, *others = (jax.tree.map(jnp.shape, stacked[part]) for part in names)
        for other in others:
            if other != first:
                raise ValueError(f"{name}: the parts must have one structure and shape, found {first} and {other}")

    def value(stacked: PyTree) -> Array:
        check(stacked)
        total = jnp.zeros((), jnp.float32)
        for part, penalty in penalties.items():
            total = total + penalty(stacked[part])
        return total

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check(stacked)
        check_nonnegative(name, "step_size", step_size)
        return {part: operator(stacked[part], step_size) for part, operator in operators.items()}

    return Penalty(value=value, prox=prox, parts=names)
