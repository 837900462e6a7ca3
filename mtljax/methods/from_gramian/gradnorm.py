"""GradNorm: weights that make tasks train at similar rates by balancing the norms of their weighted gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from mtljax.checks import check_flag, check_losses, check_number, check_optimizer
from mtljax.methods.arithmetic import mean
from mtljax.methods.common import weights_of
from mtljax.methods.from_gramian.common import Answer, exact, method_of_gramian
from mtljax.participation import held
from mtljax.types import Array, Method

SETTLED = 2.0**-20
# The largest slope of a weight, in units of the mean norm: a much longer gradient carries no more information, and Adam
# would remember its square for thousands of steps. Without units no square may leave float32's range.
STEEPEST, LARGEST = 64.0, 2.0**62


class GradNormState(NamedTuple):
    """State of GradNorm.

    Attributes:
        weight: float32 `[T]`, w before it is scaled to sum to the number of active tasks; its logits with `softmax`.
        first_loss: float32 `[T]`, the loss of each task at the step where it was first active.
        seen: bool `[T]`, whether a task has been active.
        optimizer: state of the optimiser that learns the weights.
    """

    weight: Array
    first_loss: Array
    seen: Array
    optimizer: Any


def gradnorm(
    alpha: float = 1.5,
    *,
    optimizer: optax.GradientTransformation | None = None,
    initial_losses: ArrayLike | None = None,
    softmax: bool = False,
    normalize: bool = True,
    weigh_tasks: bool = True,
) -> Method:
    """Gradient normalisation.

    With `n_i = |g_i|` over the shared parameters, `N = mean_j w_j n_j` and the relative inverse training rate
    `r_i = (L_i / L_i(0)) / mean_j (L_j / L_j(0))`, the weights follow the gradient of

        sum_i |w_i n_i - c_i|,   c_i = N r_i^alpha taken as a constant,

    which is `n_i sign(w_i n_i - c_i)`, and are scaled to sum to T after each step. The parameters move with the weights
    from before the step, 1 at first. A task without a gradient over the shared parameters takes no part: its weight is
    1 at that step, what it has learned stands, and means are over the others. A slope beyond 64 N counts as 64 N.

    Args:
        alpha: strength of the pull towards a common training rate, at least 0; the paper's 1.5 (its NYUv2 runs). 0 only
            makes the weighted norms alike.
        optimizer: for the weights; None (default) for `optax.adam(0.025)`, the paper's rate.
        initial_losses: `L(0)`, positive numbers `[T]`, for example `log C` for a classification of C classes, as the
            paper advises where the first loss depends on the initialisation; None for the loss of the step where a task
            is first active.
        softmax: whether `w = T softmax(s)`, and s follows the gradient (LibMTL), instead of w itself.
        normalize: whether the gradient is divided by N, so that it has no unit and the whole method scales with the
            gradients whatever the optimiser; the paper's gradient has the unit of a norm.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too, as in the paper, where
            the weights multiply the losses (the default); False in LibMTL.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`, and needs `losses=` `[T]`. Weights are float32 `[T]`,
        non-negative, and sum to the number of active tasks. Neither the weight nor the optimiser's moments of an
        inactive task move. `state.residual` is 0: nothing is solved for.

    Raises:
        ValueError: from `update`, losses are None.

    References:
        Z. Chen, V. Badrinarayanan, C.-Y. Lee, A. Rabinovich (2018), "GradNorm: gradient normalization for adaptive
        loss balancing in deep multitask networks", ICML, arXiv 1711.02257. Departures: norms over all shared
        parameters that methods see rather than the last shared layer (give that layer alone to have the paper's, as
        a method for each group of leaves does); `normalize`; a weight that a step takes below 0 stops there. A loss
        whose first value is 0 counts as one that has not changed; losses must not be negative. LibMTL, from its
        second epoch on: `softmax=True, normalize=False, weigh_tasks=False`, its optimiser, and the mean losses of
        the first epoch as `initial_losses`.

    Example:
        >>> method = gradnorm()
        >>> gramian = jnp.diag(jnp.array([4.0, 1.0]))
        >>> first, state = method.update(gramian, method.init(2), losses=jnp.ones(2))
        >>> second, state = method.update(gramian, state, losses=jnp.ones(2))
        >>> first.tolist(), [f"{weight:.3f}" for weight in second]
        ([1.0, 1.0], ['0.975', '1.025'])
    """
    check_number("gradnorm", "alpha", alpha, least=0)
    check_flag("gradnorm", "softmax", softmax)
    check_flag("gradnorm", "normalize", normalize)
    given = initial_losses
    if given is not None:
        given = check_number("gradnorm", "initial_losses", given, above=0, shape=("T",))
    learner = optax.adam(0.025) if optimizer is None else check_optimizer("gradnorm", "optimizer", optimizer)

    def first(num_tasks: int) -> GradNormState:
        start = jnp.full((num_tasks,), 0.0 if softmax else 1.0, jnp.float32)
        begun = jnp.full((num_tasks,), 1.0 if given is None else given, jnp.float32)
        return GradNormState(start, begun, jnp.full((num_tasks,), given is not None), learner.init(start))

    def weights_from(parameter: Array, active: Array) -> Array:
        top = jnp.max(jnp.where(active, parameter, -jnp.inf))
        size = jnp.exp(parameter - top) if softmax else jnp.maximum(parameter, 0.0)
        size = jnp.where(active, size, 0.0)
        total = jnp.sum(size)
        even = jnp.where(active, 1.0, 0.0)
        return jnp.where(total > 0, jnp.sum(active) * size / jnp.where(total > 0, total, 1.0), even)

    def rule(
        gramian: Array, active: Array, inner: GradNormState, *, losses: Array | None, scale: ArrayLike, **rest: Any
    ) -> Answer:
        losses = check_losses("gradnorm", losses, active.shape[0])
        norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gramian), 0.0))
        counted = norms > 0
        first = jnp.where(active & ~inner.seen, losses, inner.first_loss)

        change = jnp.where(first > 0, jnp.maximum(losses, 0.0) / jnp.where(first > 0, first, 1.0), 1.0)
        average = mean(change, counted)
        rate = jnp.where(average > 0, change / jnp.where(average > 0, average, 1.0), 1.0)
        weights = weights_from(inner.weight, counted)
        usual = mean(weights * norms, counted)
        wanted = usual * rate**alpha
        short = weights * norms - wanted
        # A difference of the size of rounding counts as 0: its sign would be random.
        slope = norms * jnp.where(jnp.abs(short) <= SETTLED * wanted, 0.0, jnp.sign(short))
        slope = slope / jnp.where(usual > 0, usual, 1.0) if normalize else slope / scale
        steepest = STEEPEST if normalize else LARGEST
        slope = weights_of(jnp.clip(slope, -steepest, steepest), counted)
        if softmax:
            slope = weights * (slope - mean(weights * slope, counted))

        step, learned = learner.update(slope, inner.optimizer, inner.weight)
        moved = jnp.asarray(optax.apply_updates(inner.weight, step))
        if not softmax:
            moved = weights_from(moved, counted)
        begun = inner._replace(first_loss=first, seen=inner.seen | active)
        new = held(begun._replace(weight=moved, optimizer=learned), begun, counted)
        return exact(jnp.where(counted, weights, 1.0)), new

    return method_of_gramian(
        "gradnorm",
        rule,
        inner=first,
        per_task={"initial_losses": given},
        weigh_tasks=weigh_tasks,
        least_loss=0.0,
    )
