"""Group optimisation for multi-task alignment."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from mtljax.checks import check_count, check_number
from mtljax.methods.arithmetic import divide, mean, softmax, total
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.participation import held
from mtljax.types import Array, Key, Method

# Indicators are clustered in float32, where sums over tasks of larger ones are out of range.
LARGEST = 2.0**100


class Go4AlignState(NamedTuple):
    """State of GO4Align.

    Attributes:
        log_share: float32 `[T]`, logarithms of the shares p up to a constant: their mean over the tasks of a step is 0.
    """

    log_share: Array


def group_means(values: Array, active: Array, num_groups: int) -> Array:
    """The best clustering of numbers into at most `num_groups` groups, and each number's group mean.

    The sum of squares is minimized exactly: groups of sorted numbers are intervals, so dynamic programming finds the
    best ones. Memory: `[T, T]` numbers.

    Args:
        values: float32 `[T]`.
        active: bool `[T]`; the others are in no group.
        num_groups: at least 1.

    Returns:
        float32 `[T]`, 0 where not active.

    Example:
        >>> group_means(jnp.array([1.0, 9.0, 3.0, 2.0]), jnp.ones(4, bool), 2)
        Array([2., 9., 2., 2.], dtype=float32)
    """
    num_tasks = values.shape[0]
    order = jnp.argsort(jnp.where(active, values, jnp.inf), stable=True)
    present = active[order].astype(values.dtype)
    # Around the mean and in units of the spread, so that sums of squares lose little.
    centered = jnp.where(active, values - mean(values, active), 0.0)
    line = divide(centered, jnp.max(jnp.abs(centered)))[order]

    def sums(row: Array) -> Array:
        return jnp.concatenate([jnp.zeros_like(row[:1]), jnp.cumsum(row)])

    counts, firsts, seconds = sums(present), sums(line), sums(line**2)

    def between(row: Array) -> Array:
        """Sum over the interval [i, j) of the order, at `[i, j]`."""
        return row[None, :] - row[:, None]

    spread = between(seconds) - divide(between(firsts) ** 2, between(counts))
    ends = jnp.arange(num_tasks + 1)
    cost = jnp.where(ends[:, None] <= ends[None, :], jnp.maximum(spread, 0.0), jnp.inf)
    best = [cost[0]]
    for _ in range(min(num_groups, num_tasks) - 1):
        best.append(jnp.min(best[-1][:, None] + cost, axis=0))

    sorted_values = jnp.where(present > 0, values[order], 0.0)
    means, end, places = jnp.zeros_like(values), ends[-1], ends[:-1]
    for index in reversed(range(len(best))):
        start = ends[0] if index == 0 else jnp.argmin(best[index - 1] + cost[:, end])
        group = (places >= start) & (places < end) & (present > 0)
        means = jnp.where(group, mean(sorted_values, group), means)
        end = start
    return jnp.zeros_like(values).at[order].set(means)


def go4align(num_groups: int = 2, *, step_size: float = 1e-4) -> Method:
    """GO4Align: align tasks by scale and progress, then give each group of similar tasks one weight.

    Shares p, from 1/T, follow the losses, `p_k <- p_k exp(-step_size L_k) / sum`; the indicator of a task is
    `a_k = p_k sum_j L_j / L_k`; indicators are clustered by k-means, and

        w_k = mean of a over the group of task k.

    Args:
        num_groups: number of groups, at least 1, default 2; 1 gives all tasks one weight. As many as tasks: none share.
        step_size: at least 0, default 1e-4, the authors'. In units of 1 / loss.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]`. Losses must not
        be negative. Task-specific gradients are weighted too. `state.residual` is 0.

    References:
        J. Shen, Q. Wang, Z. Xiao, N. van Noord, M. Worring (2024), "GO4Align: group optimization for multi-task
        alignment", NeurIPS, arXiv 2404.06486.
        Departures: the clustering is the exact optimum instead of Lloyd's iteration from a random start, so nothing
        is drawn; the authors' code also offers spectral and semidefinite clusterings. A task whose loss is not
        positive gets weight 0 for that step and does not count. `step_size L_k` counts as 1 at most, so that no
        single loss decides the shares for ever. A task that joins late starts at the others' geometric mean.

    Example:
        >>> method = go4align(2)
        >>> weights, state = method.update(jnp.array([1.0, 1.0, 2.0]), method.init(3))
        >>> [f"{weight:.3f}" for weight in weights]
        ['1.333', '1.333', '0.667']
    """
    num_groups = check_count("go4align", "num_groups", num_groups)
    check_number("go4align", "step_size", step_size, least=0.0)

    def inner(num_tasks: int) -> Go4AlignState:
        return Go4AlignState(jnp.zeros((num_tasks,), jnp.float32))

    def rule(
        losses: Array, active: Array, inner: Go4AlignState, *, key: Key | None, **extra: object
    ) -> tuple[Array, Go4AlignState]:
        counted = active & (losses > 0)
        moved = inner.log_share - jnp.minimum(step_size * losses, 1.0)
        moved = moved - mean(moved, counted)
        sizes = losses / jnp.max(jnp.where(counted, losses, 0.0), initial=jnp.finfo(jnp.float32).tiny)
        scale = jnp.minimum(total(sizes, counted) / jnp.where(counted, sizes, 1.0), LARGEST)
        weights = group_means(scale * softmax(moved, counted), counted, num_groups)
        return weights, held(Go4AlignState(moved), inner, counted)

    return method_of_losses("go4align", rule, inner=inner, least_loss=0.0)
