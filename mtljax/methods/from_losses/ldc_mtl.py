"""Loss discrepancy control."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtljax.checks import check_callable, check_number, check_optimizer
from mtljax.methods.arithmetic import divide
from mtljax.methods.common import PULL, check_evidence
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.methods.learning import learn, learner_state
from mtljax.participation import held
from mtljax.types import Array, Key, Method

Scaling = Callable[[Array, Array, Array], Array]


class LdcMtlState(NamedTuple):
    """State of loss discrepancy control.

    Attributes:
        logits: float32 `[T]`, the router's logits.
        optimizer: state of the optimiser that learns them, leaves `[T, ...]`.
        first: float32 `[T]`, each task's first positive loss; 0 before there is one.
    """

    logits: Array
    optimizer: Any
    first: Array


def unscaled(losses: Array, first: Array, active: Array) -> Array:
    """Losses as they are (the paper's choice for CelebA and Cityscapes)."""
    return losses


def rescaled(losses: Array, first: Array, active: Array) -> Array:
    """Losses brought to the smallest first loss: `L_k min_j(L_j0) / L_k0` (the paper's choice for NYUv2).

    Args:
        losses: `[T]`.
        first: `[T]`, the tasks' first losses, positive where active.
        active: bool `[T]`.

    Returns:
        `[T]`.
    """
    return losses * (jnp.min(jnp.where(active, first, jnp.inf)) / first)


def logarithmic(losses: Array, first: Array, active: Array) -> Array:
    """Logarithms of losses over first losses: `log(L_k / L_k0)` (the paper's choice for QM9).

    Args:
        losses: `[T]`, positive where active.
        first: `[T]`, the tasks' first losses, positive where active.
        active: bool `[T]`.

    Returns:
        `[T]`.
    """
    return jnp.log(losses) - jnp.log(first)


def ldc_mtl(
    penalty: float = 0.1,
    *,
    scaling: Scaling = rescaled,
    optimizer: optax.GradientTransformation | None = None,
) -> Method:
    """Loss discrepancy control: learn weights of the losses and keep the weighted losses close to one another.

    With scaled losses `l = scaling(L)` and router weights `s_k = sigmoid(x_k)`, network and x both descend

        sum_k s_k l_k / sg(sum_k s_k)  +  penalty  sum_k |s_k l_k - s_{k+1} l_{k+1}|,

    the second sum over neighbours in sorted order of the names of active tasks. `w_k` is its derivative by `L_k`.

    Args:
        penalty: at least 0, default 0.1; the paper has 0.01 (CelebA), 0.05 (NYUv2) and 0.1 (Cityscapes).
        scaling: `rescaled` (default), `logarithmic`, `unscaled` of this module, or a function of the same kind,
            `scaling(losses, first, active) -> [T]`, differentiable, entry k depending on loss k alone.
        optimizer: for x; None (default) for `optax.adam(1e-3)`.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]`, negative where a
        large penalty asks for it. Losses must not be negative. Task-specific gradients are weighted too.
        `state.residual` is 0.

    References:
        P. Xiao, C. Dong, S. Zou, K. Ji (2025), "LDC-MTL: balancing multi-task learning through scalable loss
        discrepancy control", arXiv 2502.08585.
        Departures: the router is one learned logit per task, from 1, with an optimiser of its own, as in the authors'
        CelebA code; their other experiments have a small network on the trunk's features, which a method that reads
        losses cannot see. For x, a loss beyond 64 times the task's first counts as that, so that no single loss
        stops x for ever. A task whose loss is not positive gets weight 0 for that step and does not count. CelebA's
        numbers: `ldc_mtl(0.01, scaling=unscaled)`; NYUv2's loss: `ldc_mtl(0.05)`.

    Example:
        >>> method = ldc_mtl()
        >>> method.update(jnp.array([1.0, 1.0]), method.init(2))[0]
        Array([0.5, 0.5], dtype=float32)
    """
    check_callable("ldc_mtl", "scaling", scaling)
    check_number("ldc_mtl", "penalty", penalty, least=0.0)
    learner = optax.adam(1e-3) if optimizer is None else check_optimizer("ldc_mtl", "optimizer", optimizer)

    def inner(num_tasks: int) -> LdcMtlState:
        logits = jnp.ones((num_tasks,), jnp.float32)
        return LdcMtlState(logits, learner_state(learner, logits), jnp.zeros((num_tasks,), jnp.float32))

    def rule(
        losses: Array, active: Array, inner: LdcMtlState, *, key: Key | None, **extra: object
    ) -> tuple[Array, LdcMtlState]:
        counted = active & (losses > 0)
        values = jnp.where(counted, losses, 1.0)
        first = jnp.where(counted & (inner.first == 0), losses, inner.first)
        known = jnp.where(first == 0, 1.0, first)
        # Active tasks before the others, in their order: neighbours of the chain stand side by side.
        order = jnp.argsort(~counted, stable=True)
        pair = counted[order][1:]

        def rescaled(values: Array) -> Array:
            scaled = scaling(values, known, counted)
            check_evidence("ldc_mtl", "what scaling returned", scaled, values.shape)
            return scaled

        # A gap of rounding has no sign: at the first step all rescaled losses are equal, some of them by division.
        _, moved = jax.jvp(rescaled, (values,), (values,))
        noise = 2.0**-20 * jnp.abs(jnp.where(counted, moved, 0.0)[order][1:])

        def objective(values: Array, logits: Array) -> Array:
            router = jnp.where(counted, jax.nn.sigmoid(logits), 0.0)
            weighted = router * jnp.where(counted, rescaled(values), 0.0)
            chain = weighted[order]
            gaps = jnp.where(pair & (jnp.abs(chain[:-1] - chain[1:]) > noise), chain[:-1] - chain[1:], 0.0)
            linear = divide(jnp.sum(weighted), lax.stop_gradient(jnp.sum(router)))
            # Written out, because the derivative of jnp.abs at 0 is 1, and equal tasks must not pull each other.
            return linear + penalty * jnp.sum(gaps * lax.stop_gradient(jnp.sign(gaps)))

        weights = jax.grad(objective)(values, inner.logits)
        slope = jax.grad(objective, 1)(jnp.minimum(values, PULL * known), inner.logits)
        moved = learn(learner, slope, inner.optimizer, inner.logits, counted)
        return jnp.where(counted, weights, 0.0), LdcMtlState(*moved, held(first, inner.first, counted))

    return method_of_losses("ldc_mtl", rule, inner=inner, least_loss=0.0)
