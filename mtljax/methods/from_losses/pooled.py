"""The pooled mean over the labels of all tasks."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.methods.common import check_evidence
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.types import Array, Key, Method, PyTree


def pooled() -> Method:
    """The pooled mean: each label of the batch has equal weight, whichever its task.

        w_k = c_k / sum_j c_j,   sum_k w_k L_k = sum_k sum_e w_ke l_ke / sum_k sum_e w_ke

    with c_k the task's sum of weights (`Aux.weight_sum`), its number of labels where weights are 1 and 0, over all
    devices. It is the micro-average, which networks for assays and for multi-label data minimize: the loss of all
    entries of a label matrix `[B, T]` that are there, divided by their number, as in chemprop. `equal` is the
    macro-average, times T: there a task with one label in the batch has the weight of one with a thousand.

    The caller passes the sums, `update(losses, state, weight_sum=[T])`; a training step and `mtljax.value_and_grad` do
    so by themselves, from `mtljax.Aux`. Without them all are alike, and the weights are 1/T.

    Weights sum to 1, and not to T as those of `equal`: a learning rate means the same as for the one loss of all
    labels. `Task.prior` multiplies the weights, and their sum changes.

    Returns:
        `Method` that reads losses; one backward pass. Weights are float32 `[T]`; 0 for a task that is not active.
        Task-specific gradients are weighted too.

    Example:
        >>> import mtljax
        >>> method = mtljax.methods.pooled()
        >>> method.update(jnp.ones(3), method.init(3), weight_sum=jnp.array([6.0, 2.0, 0.0]))[0].tolist()
        [0.75, 0.25, 0.0]
    """

    def rule(
        losses: Array,
        active: Array,
        inner: PyTree,
        *,
        key: Key | None,
        weight_sum: Array | None = None,
        **extra: object,
    ) -> tuple[Array, PyTree]:
        if weight_sum is None:
            weight_sum = jnp.ones_like(losses)
        check_evidence("pooled", "weight_sum", weight_sum, losses.shape)
        counted = jnp.where(active, weight_sum.astype(losses.dtype), 0.0)
        total = jnp.sum(counted)
        return counted / jnp.where(total > 0, total, 1.0), inner

    return method_of_losses("pooled", rule)
