"""Rare branches in a vmapped sweep.

Under `jax.vmap` a `lax.cond` on a mapped condition becomes a select, for which both branches are run at every step. A
branch that is there for rare cases would then cost every sweep what it is there to save.
"""

from __future__ import annotations

from jax.custom_batching import custom_vmap

from mtljax.types import Array


@custom_vmap
def throughout(condition: Array) -> Array:
    """Whether a condition holds, under `jax.vmap` for all members at once: then a `lax.cond` on it stays one.

    Where it does not, the other branch is run for all members, so it must be right for those too for which the
    condition holds.

    Args:
        condition: bool `[]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mtljax.sweeps import throughout
        >>> jax.vmap(lambda x: (x > 0, throughout(x > 0)))(jnp.array([1.0, -1.0]))
        (Array([ True, False], dtype=bool), Array([False, False], dtype=bool))
    """
    return condition


@throughout.def_vmap
def _all(axis_size: int, in_batched: list[bool], condition: Array) -> tuple[Array, bool]:
    return (condition.all(axis=0) if in_batched[0] else condition), False
