"""SDMGrad: the shortest combination of task gradients, drawn towards their mean."""

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
        share: float32 `[T]`, w, on the simplex up to a factor; each step's descent starts from it.
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

    With `g_0 = sum_k p_k g_k` the direction to stay near and l the pull towards it, the update is

        d = (g_w + l g_0) / (1 + l),    w = argmin over the simplex of 1/2 |g_w + l g_0|^2,

    where a few steps of projected gradient descent with momentum approach w, from the w of the last training step:
    `v <- momentum v + G (w + l p)`, `w <- P(w - rate v)`. `pull = 0` is MGDA, a large one the mean.

    `G` may be `J_1 J_2'` of two independent batches, neither symmetric nor positive semi-definite, which makes the
    slope unbiased, as in the paper: `methods.sampled` makes a method of that. Engines give the Gramian of one
    batch, a biased estimate: its expectation is too large by the gradients' covariance.

    Args:
        pull: l (the paper's lambda), at least 0; 0.3 in the authors' supervised runs, 0.6 in reinforcement learning.
        steps: number of descent steps, at least 1; None solves for w exactly instead, which asks for a true Gramian
            (symmetric, of one batch), has no use for `rate`, `momentum` and `normalize`, and always scales with the
            gradients.
        rate: step size, positive. The default is the authors' and goes with `normalize`; it is too long a step to
            converge, so rounding grows from step to step, and the weights repeat to two digits or so across devices,
            orders of tasks and scales. Below 2 over the largest eigenvalue (1, with few tasks) it is stable.
        momentum: in [0, 1), from zero at each training step.
        normalize: whether the Gramian is divided by the squared mean of the task gradients' norms, the root of the
            sizes of its diagonal (the authors' code); otherwise the rule has a scale of its own.
        preference: p, numbers `[T]`, non-negative and not all zero; those of active tasks are scaled to sum to 1. None
            for the mean.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; False (default) in the
            authors' code, LibMTL and TorchJD.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`, `(w + l p) / (1 + l)`, on
        the simplex over active tasks. The share of an inactive task is held. `state.residual` is 0 with steps, which
        promise no solution; without, it bounds the relative error of the direction.

    Raises:
        ValueError: an argument outside its range; from `init`, where the preference is not `[T]`; from `update`, where
            the Gramian or `active` does not match the number of tasks.
        TypeError: steps is neither an integer nor None; from `update`, where the Gramian is not floating point or
            `active` is not boolean.

    References:
        P. Xiao, H. Ban, K. Ji (2023), "Direction-oriented multi-objective learning: simple and provable stochastic
        algorithms", NeurIPS, arXiv 2305.18409. Departures: the parameters move along the gradient of the batch at
        hand, not of a third one; no epsilon in `normalize`. The authors' code: the defaults and the update times T.
        TorchJD: the defaults. LibMTL: `rate=5`, its first two batches for the weights and the third for the update,
        and the heads' gradients of all three added up.

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

        # Made of the Gramian too, so that both vary over the devices of a mesh as it does.
        still = 0.0 * matrix[0]
        share, _ = lax.fori_loop(0, steps, descend, (among_active(inner.share, active) + still, still))
        weights = (share + pull * target) / (1.0 + pull)
        return exact(weights), SDMGradState(back_among_all(share, inner.share, active))

    return method_of_gramian("sdmgrad", rule, inner=first, per_task={"preference": shares}, weigh_tasks=weigh_tasks)
