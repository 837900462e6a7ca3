"""PCGrad: each task gradient projected off those it conflicts with, one after the other in random order."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtljax.checks import check_flag
from mtljax.methods.checked import checked
from mtljax.methods.common import initial_state
from mtljax.solvers.sequential import sequential
from mtljax.types import Array, Key, Method, MethodState


def random_order(key: Key, active: Array) -> Array:
    """For every task, an order of all tasks, uniform and independent of the other tasks' orders.

    Numbers are drawn by the ranks of tasks among the active ones, so a task that is not active leaves the order of the
    others as it would be without it.

    Args:
        key: PRNG key.
        active: bool `[T]`.

    Returns:
        int32 `[T, T]`, row i the order for task i.

    Example:
        >>> random_order(jax.random.key(0), jnp.ones(3, bool)).shape
        (3, 3)
    """
    rank = jnp.cumsum(active) - 1

    def draw(row, column):
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, row), column))

    draws = jax.vmap(jax.vmap(draw, (None, 0)), (0, None))(rank, rank)
    return jnp.argsort(jnp.where(active[None, :], draws, 2.0), axis=1).astype(jnp.int32)


def pcgrad(*, mean: bool = False, weigh_tasks: bool = False) -> Method:
    """Projecting conflicting gradients (gradient surgery).

    For each task i, starting from `a = g_i` and going through the other tasks j in random order: where `<a, g_j> < 0`,
    `a <- a - <a, g_j> / |g_j|^2 g_j`. The update is the sum over i of the results.

    Args:
        mean: whether the update is the mean over active tasks of the projected gradients instead of their sum.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; False (default) in the
            authors' code, LibMTL and TorchJD.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`, and above two tasks needs `key`. Weights are float32
        `[T]`. Each row's order is drawn on its own. `state.residual` is 0: nothing is solved for.

    Raises:
        ValueError: from `update`, where the Gramian or `active` does not go with the number of tasks, or `key` is None
            with more than two tasks.
        TypeError: from `update`, where the Gramian is not floating point or `active` is not boolean.

    T. Yu, S. Kumar, A. Gupta, S. Levine, K. Hausman, C. Finn (2020), "Gradient surgery for multi-task learning",
    NeurIPS, arXiv 2001.06782. No departures; the authors' code draws one order for all tasks, the paper one for each.

    Example:
        >>> method = pcgrad()
        >>> weights, state = method.update(jnp.array([[1.0, -0.5], [-0.5, 1.0]]), method.init(2))
        >>> weights.tolist()
        [1.5, 1.5]
    """
    check_flag("pcgrad", "mean", mean)

    def update(
        gramian: Array,
        state: MethodState,
        *,
        losses: Array | None = None,
        active: Array | None = None,
        key: Key | None = None,
        **extra,
    ) -> tuple[Array, MethodState]:
        num_tasks = state.weights.shape[0]
        takes_part = jnp.ones_like(state.weights, dtype=bool) if active is None else active
        if num_tasks <= 2:
            # There is one other task at most, so there is no order to draw.
            order = jnp.flip(jnp.arange(num_tasks))[:, None]
        elif key is None:
            raise ValueError(f"pcgrad: key is None, but with {num_tasks} tasks the order of projections is random")
        else:
            order = random_order(key, takes_part)
        weights = jnp.sum(sequential(gramian, order, active=active), axis=0)
        if mean:
            weights = weights / jnp.maximum(jnp.sum(takes_part), 1)
        return weights, MethodState(weights, jnp.zeros_like(weights[0]), state.inner)

    return checked(
        Method(
            reads="gramian",
            init=lambda num_tasks, shared=None: initial_state(num_tasks),
            update=update,
            weigh_tasks=weigh_tasks,
            name="pcgrad",
        )
    )
