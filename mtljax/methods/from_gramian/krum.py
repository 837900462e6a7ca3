"""Krum: the task gradient whose nearest neighbours are closest."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from mtljax.checks import check_count, check_flag
from mtljax.methods.from_gramian.common import Answer, exact, method_of_gramian
from mtljax.solvers.scaling import power_of_two
from mtljax.types import Array, Method, PyTree


def krum(n_byzantine: int = 1, *, n_selected: int = 1, squared: bool = True, weigh_tasks: bool = False) -> Method:
    """Byzantine-tolerant gradient descent: outlying gradients are left out.

    A task's score is the sum of its squared distances to the `T - n_byzantine - 2` task gradients nearest to it, and
    the update is the mean of the `n_selected` gradients of least score (1: Krum, more: Multi-Krum). Distances come
    from the Gramian, `|g_i - g_j|^2 = G_ii + G_jj - 2 G_ij`.

    Args:
        n_byzantine: how many task gradients may be arbitrarily wrong, at least 0. The paper's guarantee needs
            `T >= 2 n_byzantine + 3`.
        n_selected: how many gradients are averaged, at least 1.
        squared: whether distances are squared before they are added, as in the paper; False adds the distances.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; default False.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`, `1 / n_selected` for those
        selected and 0 for the others. T is the number of active tasks; where it is below `n_byzantine + 3` the
        single nearest gradient is counted, and where it is below `n_selected` all are averaged. Ties go to the task
        that comes first. `state.residual` is 0: nothing is solved for.

    References:
        P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer (2017), "Machine learning with adversaries:
        Byzantine tolerant gradient descent", NeurIPS. Departures: too few tasks are not an error, as above, because the
        number of active tasks is known only at run time. TorchJD adds distances that are not squared: `squared=False`.

    Example:
        >>> rows = jnp.array([[1.0, 0.0], [1.1, 0.0], [0.9, 0.1], [-50.0, 7.0]])
        >>> method = krum(n_byzantine=1)
        >>> method.update(rows @ rows.T, method.init(4))[0].tolist()
        [1.0, 0.0, 0.0, 0.0]
    """
    n_byzantine = check_count("krum", "n_byzantine", n_byzantine, least=0, traced=True)
    n_selected = check_count("krum", "n_selected", n_selected, traced=True)
    check_flag("krum", "squared", squared)

    def rule(gramian: Array, active: Array, inner: PyTree, **rest: Any) -> Answer:
        count = jnp.sum(active)
        squares = jnp.diagonal(gramian)
        unit = power_of_two(jnp.sqrt(jnp.max(squares)))
        products = gramian / unit / unit
        own = squares / unit / unit
        # Rounding may leave the distance of equal gradients below 0.
        distances = jnp.maximum(own[:, None] + own[None, :] - 2.0 * products, 0.0)
        distances = distances if squared else jnp.sqrt(distances)
        order = jnp.arange(active.shape[0])
        others = active[:, None] & active[None, :] & (order[:, None] != order[None, :])
        nearest = jnp.sort(jnp.where(others, distances, jnp.inf), axis=1)
        counted = order < jnp.clip(count - n_byzantine - 2, 1, jnp.maximum(count - 1, 1))
        scores = jnp.sum(jnp.where(counted[None, :] & jnp.isfinite(nearest), nearest, 0.0), axis=1)
        ranks = jnp.argsort(jnp.argsort(jnp.where(active, scores, jnp.inf)))
        chosen = jnp.minimum(n_selected, count)
        share = 1.0 / jnp.maximum(chosen, 1).astype(jnp.float32)
        return exact(jnp.where(ranks < chosen, share, 0.0)), inner

    return method_of_gramian("krum", rule, weigh_tasks=weigh_tasks)
