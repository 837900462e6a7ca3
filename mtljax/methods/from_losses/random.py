"""Random loss weighting."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtljax.checks import check_flag
from mtljax.methods.arithmetic import number, softmax
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.types import Array, Key, Method, PyTree


def random(*, rescale: bool = False) -> Method:
    """Random loss weighting (RLW): `w = softmax(z)`, `z_k ~ N(0, 1)` anew at every step.

    Numbers are drawn by the rank of a task among the active tasks, so an inactive task does not change the other draws.

    Args:
        rescale: whether weights sum to the number of active tasks instead of to 1.

    Returns:
        `Method` that reads losses, floating point `[T]`, and above one task needs `key`; one backward pass. Weights are
        float32 `[T]`. Task-specific gradients are weighted too. `state.residual` is 0.

    Raises:
        ValueError: from `update`, `key` is None with more than one task.

    References:
        B. Lin, F. Ye, Y. Zhang, I. W. Tsang (2022), "Reasonable effectiveness of random weighting: a litmus test
        for multi-task learning", TMLR, arXiv 2111.10603.
        Departures: none. LibMTL and TorchJD: the default. The nash-mtl family: `rescale=True`.

    Example:
        >>> import jax.numpy as jnp
        >>> method = random()
        >>> weights, state = method.update(jnp.ones(3), method.init(3), key=jax.random.key(0))
        >>> print(weights.sum().round(4))
        1.0
    """
    check_flag("random", "rescale", rescale)

    def rule(losses: Array, active: Array, inner: PyTree, *, key: Key | None, **extra: object) -> tuple[Array, PyTree]:
        num_tasks = losses.shape[0]
        if num_tasks == 1:
            draws = jnp.zeros_like(losses)
        elif key is None:
            raise ValueError(f"random: key must be a random key for {num_tasks} tasks, found None")
        else:
            ranks = jnp.cumsum(active) - 1
            draws = jax.vmap(lambda rank: jax.random.normal(jax.random.fold_in(key, rank), dtype=jnp.float32))(ranks)
        weights = softmax(draws, active)
        return (weights * number(active) if rescale else weights), inner

    return method_of_losses("random", rule)
