"""The length models of ConFIG, `config(length=...)`: the length of a conflict-free direction.

Each reads `norms` float32 `[T]`, the lengths `|g_i|`; `cosines` float32 `[T]`, those of the angles between the task
gradients and the direction; and `takes_part` bool `[T]`, the active tasks that have a gradient, the only ones to
count. Each returns the length, float32 `[]`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from mtljax.checks import check_count
from mtljax.types import Array


def _sum(values: Array, takes_part: Array) -> Array:
    return jnp.sum(jnp.where(takes_part, values, 0.0))


def projection(norms: Array, cosines: Array, takes_part: Array) -> Array:
    """`sum_i <g_i, u>`, the paper's length: the sum of the task gradients' projections on the direction.

    Example:
        >>> projection(jnp.array([1.0, 4.0]), jnp.array([0.5, 0.25]), jnp.array([True, True])).item()
        1.5
    """
    return _sum(norms * cosines, takes_part)


def track_min(norms: Array, cosines: Array, takes_part: Array) -> Array:
    """As `projection`, with every gradient scaled to the length of the shortest one.

    Example:
        >>> track_min(jnp.array([1.0, 4.0]), jnp.array([0.5, 0.25]), jnp.array([True, True])).item()
        0.75
    """
    least = jnp.min(jnp.where(takes_part, norms, jnp.inf))
    return jnp.where(jnp.any(takes_part), least, 0.0) * _sum(cosines, takes_part)


def track_max(norms: Array, cosines: Array, takes_part: Array) -> Array:
    """As `projection`, with every gradient scaled to the length of the longest one.

    Example:
        >>> track_max(jnp.array([1.0, 4.0]), jnp.array([0.5, 0.25]), jnp.array([True, True])).item()
        3.0
    """
    return jnp.max(jnp.where(takes_part, norms, 0.0)) * _sum(cosines, takes_part)


def track_harmonic(norms: Array, cosines: Array, takes_part: Array) -> Array:
    """As `projection`, with every gradient scaled to the harmonic mean of the lengths.

    Example:
        >>> print(track_harmonic(jnp.array([1.0, 3.0]), jnp.array([0.5, 0.5]), jnp.array([True, True])).round(4))
        1.5
    """
    inverses = _sum(1.0 / jnp.where(takes_part, norms, 1.0), takes_part)
    mean = jnp.sum(takes_part) / jnp.where(inverses > 0, inverses, 1.0)
    return mean * _sum(cosines, takes_part)


def track_arithmetic(norms: Array, cosines: Array, takes_part: Array) -> Array:
    """As `projection`, with every gradient scaled to the arithmetic mean of the lengths.

    Example:
        >>> track_arithmetic(jnp.array([1.0, 4.0]), jnp.array([0.5, 0.5]), jnp.array([True, True])).item()
        2.5
    """
    mean = _sum(norms, takes_part) / jnp.maximum(jnp.sum(takes_part), 1)
    return mean * _sum(cosines, takes_part)


def track_geometric(norms: Array, cosines: Array, takes_part: Array) -> Array:
    """As `projection`, with every gradient scaled to the geometric mean of the lengths.

    Example:
        >>> track_geometric(jnp.array([1.0, 4.0]), jnp.array([0.5, 0.5]), jnp.array([True, True])).item()
        2.0
    """
    # A mean of logarithms rather than a product, which would leave float32's range.
    logs = _sum(jnp.log(jnp.where(takes_part, norms, 1.0)), takes_part)
    return jnp.exp(logs / jnp.maximum(jnp.sum(takes_part), 1)) * _sum(cosines, takes_part)


def track_task(task: int) -> Callable[[Array, Array, Array], Array]:
    """As `projection`, with every gradient scaled to the length of one task's; 0 while that task takes no part.

    Args:
        task: its index in sorted order of task names.

    Returns:
        The length model.

    Example:
        >>> track_task(1)(jnp.array([1.0, 4.0]), jnp.array([0.5, 0.25]), jnp.array([True, True])).item()
        3.0
    """
    task = check_count("track_task", "task", task, least=0, traced=True)

    def length(norms: Array, cosines: Array, takes_part: Array) -> Array:
        if isinstance(task, int) and task >= norms.shape[0]:
            check_count("track_task", "task", task, least=0, most=norms.shape[0] - 1)
        return jnp.where(takes_part[task], norms[task], 0.0) * _sum(cosines, takes_part)

    return length
