"""SDMGrad: the shortest convex combination of task gradients, pulled towards their mean."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from mtljax.checks import check_count, check_flag, check_number, check_preference
from mtljax.methods.from_gramian.common import Answer, exact, in_mean_norms, method_of_gramian, unscaled
from mtljax.solvers.scaling import multiply
from mtljax.solvers.simplex_projection import among_active, back_among_all, project_simplex
from mtljax.solvers.towards import min_norm_towards
from mtljax.types import Array, Method


class SDMGradState(NamedTuple):
    """State of SDMGrad.

    Attributes:
        share: float32 `[T]`, w, non-negative, on the simplex up to a factor. The next training step's descent starts
            from it.
    """

    share: Array


def sdmgrad(
    *,
    pull: float = 0.3,
    steps: int | None = 20,
    rate: float = 10.0,
    momentum: float = 0.5,
    normalize: bool = True,
    preference: ArrayLike | None = None,
    weigh_tasks: bool = False,
) -> Method:
    """Stochastic direction-oriented multi-objective gradient descent.

    With `g_w = sum_k w_k g_k`, a target direction `g_0 = sum_k p_k g_k` and a pull l towards it, the update is

        d = (g_w + l g_0) / (1 + l),    w = argmin over the simplex of 1/2 |g_w + l g_0|^2.

    In each training step, a few steps of projected gradient descent with momentum approach w, from the w of the last
    training step: `v <- momentum v + G (w + l p)`, `w <- P(w - rate v)`, with P the projection on the simplex.
    `pull = 0` gives MGDA. For a large pull the update approaches `g_0`.

    G may be `J_1 J_2'` of two independent batches, which is neither symmetric nor positive semi-definite. The slope
    `G (w + l p)` is then unbiased, as in the paper; `methods.sampled` makes this method. Engines give the Gramian of
    one batch. Its slope is biased: the expectation of G exceeds the true one by the gradients' covariance.

    Args:
        pull: l (the paper's lambda), at least 0; 0.3 in the authors' supervised runs, 0.6 in reinforcement learning.
        steps: number of descent steps, at least 1. None solves for w exactly: G must then be a true Gramian (symmetric,
            of one batch), `rate`, `momentum` and `normalize` are not used, and the update scales with the gradients.
        rate: step size, positive. The default is the authors' and presumes `normalize`. With it the descent does not
            converge: rounding grows from step to step, and the weights agree to about two digits across devices, orders
            of tasks and scales. The descent is stable for a rate below 2 over the largest eigenvalue of the G used (1
            suffices for few tasks).
        momentum: in [0, 1). The velocity v starts at zero in each training step.
        normalize: whether G is divided by the square of the mean norm of the task gradients, as in the authors' code.
            The norms are the roots of the sizes of G's diagonal. Without it the weights depend on the gradients' scale.
        preference: p, numbers `[T]`, non-negative and not all zero. The numbers of active tasks are scaled to sum to 1.
            None for the mean.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; default False, as in the
            authors' code, LibMTL and TorchJD.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`, `(w + l p) / (1 + l)`, on
        the simplex over active tasks. The share of an inactive task does not change. `state.residual` is 0 with steps,
        since the descent promises no solution. With `steps=None` it bounds the relative error of the direction.

    References:
        P. Xiao, H. Ban, K. Ji (2023), "Direction-oriented multi-objective learning: simple and provable stochastic
        algorithms", NeurIPS, arXiv 2305.18409.
        Departures: The parameters move along the gradient of the current batch, not of a third batch. `normalize` has
        no epsilon. The authors' code has the defaults and multiplies the update by T. TorchJD has the defaults. LibMTL
        has `rate=5`, computes the weights from its first two batches and the update from the third, and adds up the
        heads' gradients of all three.

    Example:
        >>> method = sdmgrad(pull=0.5, steps=None)
        >>> weights, state = method.update(jnp.diag(jnp.array([2.0, 1.0])), method.init(2))
        >>> [f"{weight:.3f}" for weight in weights]
        ['0.333', '0.667']
    """
    check_number("sdmgrad", "pull", pull, least=0)
    if steps is not None:
        steps = check_count("sdmgrad", "steps", steps)
    check_number("sdmgrad", "rate", rate, above=0)
    check_number("sdmgrad", "momentum", momentum, least=0, below=1)
    check_flag("sdmgrad", "normalize", normalize)
    shares = check_preference("sdmgrad", preference)

    def first(num_tasks: int) -> SDMGradState:
        return SDMGradState(jnp.full((num_tasks,), 1.0 / num_tasks, jnp.float32))

    def rule(gramian: Array, active: Array, inner: SDMGradState, *, scale: ArrayLike, **rest: Any) -> Answer:
        target = among_active(jnp.ones_like(inner.share) if shares is None else jnp.asarray(shares), active)
        if steps is None:
            return min_norm_towards(gramian, target, jnp.asarray(pull / (1.0 + pull)), active=active), inner
        matrix = in_mean_norms(gramian, active) if normalize else unscaled(gramian, scale)

        def descend(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            share, velocity = carry
            velocity = momentum * velocity + multiply(matrix, share + pull * target)
            return project_simplex(share - rate * velocity, active=active), velocity

        # Both are computed from the Gramian too, so that they vary over the devices of a mesh as the Gramian does.
        still = 0.0 * matrix[0]
        share, _ = lax.fori_loop(0, steps, descend, (among_active(inner.share, active) + still, still))
        weights = (share + pull * target) / (1.0 + pull)
        return exact(weights), SDMGradState(back_among_all(share, inner.share, active))

    return method_of_gramian("sdmgrad", rule, inner=first, per_task={"preference": shares}, weigh_tasks=weigh_tasks)
