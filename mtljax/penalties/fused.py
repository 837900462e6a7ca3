"""Ordered tasks, such as points in time: neighbouring tasks have equal parameters except at a few jumps."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from mtljax.checks import check_nonnegative
from mtljax.penalties.common import Penalty, check_stacked, sum_over_leaves
from mtljax.penalties.groups import (
    check_has_axes,
    check_per,
    group_axes,
    magnitude,
    map_leaves,
    norm,
    shrink,
    soft_threshold,
)
from mtljax.types import Array, PyTree


def fused(
    strength: Array | float = 1.0,
    *,
    sparse: Array | float = 0.0,
    joint: Array | float = 0.0,
    per: int | Sequence[int] | None = None,
) -> Penalty:
    r"""The convex fused sparse group lasso over consecutive tasks.

        value(w) = strength * sum_{t < T} |w_{t+1} - w_t|_1 + sparse * sum_tp |w_tp| + joint * sum_g |w_g|_2
        prox(v, s) = prox of the last term at (prox of the second at (prox of the first at v))

    Row t of a leaf is task t in sorted order of names, which must be the order of time: name tasks "month06" and
    "month12", since "month6" would come after "month12". Groups g are those of `l21`: all tasks at one position, or
    coarser with `per`. Nothing is divided by T. `fused(0.0, sparse=a, joint=b)` is the sparse group lasso across tasks.

    `prox` is exact. The prox of a sum is not a composition of proxes in general, but here it is. A soft threshold keeps
    the order of tasks and their ties (Friedman et al. 2007), and the terms before the last are positively homogeneous,
    so that shrinking a group keeps it at their optimum.

    The first prox is total-variation denoising along the tasks, at all positions at once. It starts with all tasks in
    one run. A run is split if the objective falls when some of its tasks rise above the run's mean and the others fall
    below; a dynamic programme finds the best split. This repeats until no split helps. It takes some `2 + log2 T`
    rounds for most data and at most T rounds, each with `O(T)` work per parameter in T steps. `prox` may be
    differentiated in forward and reverse mode, with the runs held constant, which is right almost everywhere.

    The gradient is 0 for every difference, parameter and group that is 0.

    Args:
        strength: non-negative scalar on the differences. All three strengths may be traced, so that they can be swept.
        sparse: non-negative scalar on single parameters.
        joint: non-negative scalar on groups.
        per: axes of a parameter that index the groups of `joint`, as in `l21`.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    References:
        Zhou, Liu, Narayan and Ye, "Modeling disease progression via fused sparse group lasso", KDD 2012.
        Friedman, Hastie, Hoefling and Tibshirani, "Pathwise Coordinate Optimization", Annals of Applied Statistics 1,
        2007.
        Hochbaum, "An Efficient Algorithm for Image Segmentation, Markov Random Fields and Related Problems", Journal of
        the ACM 48, 2001, for splitting at the mean.

    Example:
        >>> w = {"w": jnp.array([[1.0], [2.0], [9.0]])}
        >>> float(fused()(w))
        8.0
        >>> fused().prox(w, 1.0)["w"][:, 0]
        Array([2., 2., 8.], dtype=float32)
        >>> fused(sparse=2.0).prox(w, 1.0)["w"][:, 0]
        Array([0., 0., 6.], dtype=float32)
    """
    for argument, number in (("strength", strength), ("sparse", sparse), ("joint", joint)):
        check_nonnegative("fused", argument, number)
    axes = check_per("fused", per)

    def positions(w: Array) -> Array:
        jumps, entries = jnp.sum(magnitude(w[1:] - w[:-1])), jnp.sum(magnitude(w))
        return strength * jumps + sparse * entries + joint * jnp.sum(norm((w,), (group_axes(w, axes),)))

    def value(stacked: PyTree) -> Array:
        check_stacked("fused", stacked)
        check_has_axes("fused", stacked, axes)
        return sum_over_leaves(stacked, positions)

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_stacked("fused", stacked)
        check_has_axes("fused", stacked, axes)
        check_nonnegative("fused", "step_size", step_size)

        def leaf(v: Array) -> Array:
            x = soft_threshold(total_variation_prox(v, step_size * strength), step_size * sparse)
            group = group_axes(v, axes)
            return jnp.expand_dims(shrink(norm((x,), (group,)), step_size * joint), group) * x

        return map_leaves(leaf, stacked)

    return Penalty(value=value, prox=prox)


def total_variation_prox(y: Array, strength: Array | float) -> Array:
    r"""Total-variation denoising along the first axis: `argmin_x |x - y|^2 / 2 + strength sum_t |x_{t+1} - x_t|`.

    Args:
        y: float32 or float64 `[T, *p]`, T at least 1; each position is a separate problem.
        strength: non-negative scalar.

    Returns:
        `[T, *p]`. Tasks of one run are equal to the bit.

    Example:
        >>> total_variation_prox(jnp.array([0.0, 4.0, 0.0]), 1.0)
        Array([1., 2., 1.], dtype=float32)
    """
    strength = jnp.asarray(strength, y.dtype)
    starts, rises = _runs(lax.stop_gradient(y), lax.stop_gradient(strength))
    adjusted = _adjusted(y, strength, starts, rises)
    rough = _run_means(adjusted, starts)
    # The mean once more, relative to the rounded first mean: tasks that were equal then keep their value exactly.
    return rough + _run_means(adjusted - rough, starts)


def _runs(y: Array, strength: Array) -> tuple[Array, Array]:
    """The runs of equal tasks in the solution.

    Returns:
        bool `[T, *p]`, whether a run starts at t, which is True at 0; bool `[T, *p]`, whether that run is above the one
        before it (meaningless where no run starts).
    """

    def split(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        starts, rises, _ = state
        adjusted = _adjusted(y, strength, starts, rises)
        # A small rise of some tasks of a run changes the objective by the sum of their costs, and by that of the jumps.
        cost = _run_means(adjusted, starts) - adjusted
        raised = _best_raise(cost, strength, starts)
        before = _shifted(raised, raised[:1])
        new = ~starts & (raised != before)
        return starts | new, jnp.where(new, raised, rises), jnp.any(new)

    whole = jnp.concatenate([jnp.ones_like(y[:1], bool), jnp.zeros_like(y[1:], bool)])
    starts, rises, _ = lax.while_loop(lambda state: state[2], split, (whole, whole, jnp.any(whole)))
    return starts, rises


def _shifted(x: Array, first: Array) -> Array:
    """`[first, x_0, ..., x_{T-2}]`."""
    return jnp.concatenate([first, x[:-1]])


def _ends(starts: Array) -> Array:
    return jnp.concatenate([starts[1:], jnp.ones_like(starts[:1])])


def _adjusted(y: Array, strength: Array, starts: Array, rises: Array) -> Array:
    """Data whose mean over each run is the run's value: the cost of jumps moves a run towards its neighbours."""
    nothing = jnp.zeros_like(y[:1])
    # At t, the shift of the run that starts here because of the jump from the run before, which shifts oppositely.
    jump = jnp.where(starts[1:], jnp.where(rises[1:], -strength, strength), 0.0)
    return y + jnp.concatenate([nothing, jump]) - jnp.concatenate([jump, nothing])


def _run_means(x: Array, starts: Array) -> Array:
    """`[T, *p]`, the mean of x over the run that contains t."""
    one = jnp.ones_like(x[0])

    def so_far(run: tuple[Array, Array], row: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        start, now = row
        total, size = jnp.where(start, now, run[0] + now), jnp.where(start, one, run[1] + one)
        return (total, size), total / size

    def from_end(mean: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        mean = jnp.where(row[0], row[1], mean)
        return mean, mean

    means = lax.scan(so_far, (x[0], one), (starts, x))[1]
    return lax.scan(from_end, x[0], (_ends(starts), means), reverse=True)[1]


def _best_raise(cost: Array, strength: Array, starts: Array) -> Array:
    """The tasks z of each run, bool `[T, *p]`, that minimise `sum_t cost_t z_t + strength sum_t |z_{t+1} - z_t|`.

    A dynamic programme over two values needs only the difference of their costs,
    `d_t = cost_t + clip(d_{t-1}, -strength, strength)`.
    """

    def forward(before: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        start, now = row
        difference = now + jnp.where(start, 0.0, jnp.clip(before, -strength, strength))
        return difference, difference

    def backward(after: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        end, difference = row
        # On ties a task follows its neighbour, so that no run is split without a gain.
        raised = jnp.where(end, difference < 0, jnp.where(after, difference <= strength, difference < -strength))
        return raised, raised

    differences = lax.scan(forward, cost[0], (starts, cost))[1]
    return lax.scan(backward, starts[0], (_ends(starts), differences), reverse=True)[1]
