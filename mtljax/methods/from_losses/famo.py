"""Fast adaptive multitask optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from mtljax.checks import check_number
from mtljax.methods.arithmetic import divide, softmax, total
from mtljax.methods.common import largest_bound, vector_argument
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.methods.learning import learn, learner_state
from mtljax.solvers.scaling import as_float32
from mtljax.types import Array, Key, Method, MethodState

# A change of a loss by more than a factor e^4 in one step counts as that: it comes from a broken batch, and Adam would
# remember its square for thousands of steps.
LARGEST_CHANGE = 4.0


class FamoState(NamedTuple):
    """State of FAMO: the learned logits, and the losses that `observe` compares with the losses after the step.

    Attributes:
        logits: float32 `[T]`, xi.
        optimizer: state of the optimiser that learns them, leaves `[T, ...]`.
        losses: float32 `[T]`, the losses before the step.
        active: bool `[T]`, the tasks that took part in it; all False where there is nothing to compare with.
    """

    logits: Array
    optimizer: Any
    losses: Array
    active: Array


def famo(
    *,
    learning_rate: float = 0.025,
    gamma: float = 1e-3,
    min_losses: float | Sequence[float] | Array = 0.0,
    epsilon: float = 1e-8,
) -> Method:
    """Fast adaptive multitask optimisation: all losses fall at one relative rate; one backward pass.

    With `D_k = L_k - b_k + epsilon` and `z = softmax(xi)`,

        w_k = (z_k / D_k) / sum_j (z_j / D_j),

    the gradient of `sum_k z_k log D_k` over the stopped sum, so weights sum to 1. After the parameters moved,
    `observe` compares the same batch's losses: with `delta_k = log D_k(before) - log D_k(after)`,

        xi <- Adam(xi, gradient z_k (delta_k - <z, delta>) + gamma xi_k),

    so a task that fell faster than the others loses weight. A delta beyond 4 counts as 4. A task at its bound cannot
    improve: it gets weight 0 at that step, and its xi does not change. `training.make_train_step` calls `observe`
    itself. With `mtljax.value_and_grad` and `mtljax.as_optax` the caller calls `mtljax.observe(method, losses, state)`
    after every step; without that call the next step is an error.

    Args:
        learning_rate: of Adam on xi; default 0.025, the paper's.
        gamma: decay of xi, added to its gradient before Adam's moments (PyTorch's coupled weight decay); default 1e-3,
            the paper's.
        min_losses: b, lower bounds of the losses, a number or `[T]`; default 0.
        epsilon: positive, what is left of a distance at its bound; default 1e-8.

    Returns:
        `Method` that reads losses, floating point `[T]`, and observes; one backward pass, and one forward pass more.
        Weights are float32 `[T]`. No loss may be below its bound. Task-specific gradients are weighted too.
        `state.residual` is 0.

    References:
        B. Liu, Y. Feng, P. Stone, Q. Liu (2023), "FAMO: fast adaptive multitask optimization", NeurIPS, arXiv
        2306.03792.
        Departures: the weight of a task at its bound, and the bound of delta. A task that was not active, or whose loss
        after the step is not finite, is left out of the comparison. Each task's Adam counts its own steps. LibMTL and
        TorchJD: the defaults. The authors' `famo.py` has `gamma=0.01` and its `weight_methods.py` 1e-5; both clip the
        shared gradient to norm 1, which is the caller's to add.

    Example:
        >>> method = famo()
        >>> weights, state = method.update(jnp.array([1.0, 3.0]), method.init(2))
        >>> state = method.observe(jnp.array([0.5, 3.0]), state)
        >>> print(weights, [f"{logit:.3f}" for logit in state.inner.logits])
        [0.75 0.25] ['-0.025', '0.025']
    """
    check_number("famo", "learning_rate", learning_rate, above=0.0)
    check_number("famo", "gamma", gamma, least=0.0)
    check_number("famo", "epsilon", epsilon, above=0.0)
    bounds = vector_argument("famo", "min_losses", min_losses)
    learner = optax.chain(optax.add_decayed_weights(gamma), optax.adam(learning_rate))

    def distance(losses: Array) -> Array:
        return jnp.maximum(losses - bounds, 0.0) + epsilon

    def inner(num_tasks: int) -> FamoState:
        logits = jnp.zeros((num_tasks,), jnp.float32)
        return FamoState(
            logits=logits,
            optimizer=learner_state(learner, logits),
            losses=jnp.ones((num_tasks,), jnp.float32),
            active=jnp.zeros((num_tasks,), bool),
        )

    def rule(
        losses: Array, active: Array, inner: FamoState, *, key: Key | None, **extra: object
    ) -> tuple[Array, FamoState]:
        counted = active & (losses > bounds)
        gaps = distance(losses)
        least = jnp.min(jnp.where(counted, gaps, jnp.inf))
        # In units of the smallest distance, so that no reciprocal is out of range.
        shares = jnp.where(counted, softmax(inner.logits, counted) * (least / gaps), 0.0)
        return divide(shares, jnp.sum(shares)), inner._replace(losses=losses, active=counted)

    def observe(losses_after: Array, state: MethodState) -> MethodState:
        inner: FamoState = state.inner
        after = as_float32(losses_after)
        compared = inner.active & jnp.isfinite(after)
        after = jnp.where(compared, after, inner.losses)
        fall = jnp.log(distance(inner.losses)) - jnp.log(distance(after))
        fall = jnp.clip(fall, -LARGEST_CHANGE, LARGEST_CHANGE)
        z = softmax(inner.logits, compared)
        gradient = z * (fall - total(z * fall, compared))
        logits, optimizer = learn(learner, gradient, inner.optimizer, inner.logits, compared)
        # The mask is cleared: the next step must not be compared with the same losses.
        moved = FamoState(logits, optimizer, inner.losses, jnp.zeros_like(inner.active))
        return state._replace(inner=moved)

    return method_of_losses(
        "famo", rule, inner=inner, observe=observe, least_loss=largest_bound(bounds), per_task={"min_losses": bounds}
    )
