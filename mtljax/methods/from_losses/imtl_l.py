"""The loss half of impartial multi-task learning."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from mtljax.checks import check_optimizer
from mtljax.methods.common import PULL
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.methods.learning import learn, learner_state
from mtljax.types import Array, Key, Method


class ImtlLState(NamedTuple):
    """State of IMTL-L.

    Attributes:
        log_scale: float32 `[T]`, `s_k`, the logarithm of the weight.
        optimizer: state of the optimiser that learns it, leaves `[T, ...]`.
    """

    log_scale: Array
    optimizer: Any


def imtl_l(*, optimizer: optax.GradientTransformation | None = None) -> Method:
    """Impartial multi-task learning, loss balance: learn scales that make all scaled losses equal.

    With `s_k` learned beside the network, from 0, the objective is

        sum_k  exp(s_k) L_k - s_k,

    so `w_k = exp(s_k)`, and s follows `exp(s_k) L_k - 1`; at its optimum every scaled loss is 1. It is twice
    uncertainty weighting with Gaussian likelihoods at `log_variance = -s`. In the gradient of s, a scaled loss beyond
    64 counts as 64, so that no single loss moves s out of range for ever. A loss of exactly 0 leaves s unchanged,
    because no scale makes it 1.

    Args:
        optimizer: for s; None (default) for `optax.adam(1e-3)`.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]`. Losses must not
        be negative: s would diverge. Task-specific gradients are weighted too. `state.residual` is 0.

    References:
        L. Liu, Y. Li, Z. Kuang, J.-H. Xue, Y. Chen, W. Yang, Q. Liao, W. Zhang (2021), "Towards impartial
        multi-task learning", ICLR.
        Departures: the paper trains s in the network's own optimiser; here it has one of its own for each task, so
        weight decay never reaches it and nothing of an inactive task moves. The gradient half is `imtl_g`; LibMTL's
        IMTL runs both in one. TorchJD's IMTL-L is this objective with s in the caller's optimiser.

    Example:
        >>> import jax.numpy as jnp
        >>> method = imtl_l(optimizer=optax.sgd(0.1))
        >>> weights, state = method.update(jnp.array([1.0, 4.0]), method.init(2))
        >>> print(weights, state.inner.log_scale)
        [1. 1.] [ 0.  -0.3]
    """
    learner = optax.adam(1e-3) if optimizer is None else check_optimizer("imtl_l", "optimizer", optimizer)

    def inner(num_tasks: int) -> ImtlLState:
        start = jnp.zeros((num_tasks,), jnp.float32)
        return ImtlLState(start, learner_state(learner, start))

    def rule(
        losses: Array, active: Array, inner: ImtlLState, *, key: Key | None, **extra: object
    ) -> tuple[Array, ImtlLState]:
        weights = jnp.exp(inner.log_scale)
        pull = jnp.clip(weights * losses, -PULL, PULL) - 1.0
        moved = learn(learner, pull, inner.optimizer, inner.log_scale, active & (losses != 0))
        return weights, ImtlLState(*moved)

    return method_of_losses("imtl_l", rule, inner=inner, least_loss=0.0)
