"""MoDo: weights that descend on the length of the combined gradient, seen through two batches."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax.checks import check_flag, check_number
from mtljax.methods.checked import checked
from mtljax.methods.common import initial_state
from mtljax.solvers.scaling import as_float32, multiply
from mtljax.solvers.simplex_projection import among_active, back_among_all, project_simplex
from mtljax.types import Array, Key, Method, MethodState


class MoDoState(NamedTuple):
    """What MoDo carries.

    Attributes:
        share: float32 `[T]`, lambda, on the simplex up to a factor.
    """

    share: Array


def modo(*, gamma: float = 0.1, rho: float = 0.0, normalize: bool = False, weigh_tasks: bool = False) -> Method:
    """Multi-objective gradient descent with double sampling.

    One projected step a training step towards the shortest convex combination,

        lambda <- P(lambda - gamma (J_1 J_2' lambda + rho lambda)),        weights = the new lambda,

    with P the projection onto the simplex, and `J_1`, `J_2` the task gradients of two independent batches. `J_1 J_2'`
    is an unbiased estimate of the Gramian of the expected gradients, but neither symmetric nor positive semi-definite,
    which this method does not mind: give it as the Gramian where you compute it yourself. What engines give is the
    Gramian `J J'` of one batch, whose expectation is too large by the gradients' covariance; so the estimate is biased
    towards tasks with little noise, less so for larger batches.

    Args:
        gamma: step size for lambda, at least 0, in units of one over a squared gradient; the authors' 0.1. 0 gives the
            mean.
        rho: weight of a penalty `|lambda|^2 / 2`, at least 0; the paper's algorithm has none (the default).
        normalize: whether the Gramian is divided by the squared mean of the task gradients' norms, the root of the
            sizes of its diagonal. Then the update scales with the gradients, as it does not in the paper.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; False (default) in the
            authors' code and LibMTL.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`. Weights are float32 `[T]`, on the simplex over active
        tasks. The share of an inactive task is held. `state.residual` is 0: nothing is solved for.

    Raises:
        ValueError: gamma or rho is negative or not finite; from `update`, where the Gramian or `active` does not go
            with the number of tasks.
        TypeError: from `update`, where the Gramian is not floating point or `active` is not boolean.

    L. Chen, H. Fernando, Y. Ying, T. Chen (2023), "Three-way trade-off in multi-objective learning: optimization,
    generalization and conflict-avoidance", NeurIPS, arXiv 2305.20057. Departure: the parameters move along the gradient
    of the batch at hand, not of a third one. The authors' code: `rho=0.1`; LibMTL: `gamma=1e-3, rho=0.1`; TorchJD:
    `rho=0.1`.

    Example:
        >>> method = modo(gamma=0.25)
        >>> weights, state = method.update(jnp.diag(jnp.array([2.0, 1.0])), method.init(2))
        >>> weights.tolist()
        [0.4375, 0.5625]
    """
    check_number("modo", "gamma", gamma, least=0)
    check_number("modo", "rho", rho, least=0)
    check_flag("modo", "normalize", normalize)

    def init(num_tasks: int, shared=None) -> MethodState:
        state = initial_state(num_tasks)
        return state._replace(inner=MoDoState(jnp.copy(state.weights)))

    def update(
        gramian: Array,
        state: MethodState,
        *,
        losses: Array | None = None,
        active: Array | None = None,
        key: Key | None = None,
        scale: ArrayLike = 1.0,
        **extra,
    ) -> tuple[Array, MethodState]:
        takes_part = jnp.ones_like(state.weights, dtype=bool) if active is None else active
        matrix = jnp.where(takes_part[:, None] & takes_part[None, :], as_float32(gramian), 0.0)
        matrix = in_mean_norms(matrix, takes_part) if normalize else unscaled(matrix, scale)
        old = state.inner.share
        share = among_active(old, takes_part)
        slope = multiply(matrix, share) + rho * share
        weights = project_simplex(share - gamma * slope, active=takes_part)
        inner = MoDoState(back_among_all(weights, old, takes_part))
        return weights, MethodState(weights, jnp.zeros_like(weights[0]), inner)

    return checked(Method(reads="gramian", init=init, update=update, weigh_tasks=weigh_tasks, name="modo"))


def unscaled(matrix: Array, scale: ArrayLike) -> Array:
    """The Gramian of the gradients themselves, out of that of their multiples by `scale`; never inf.

    Gradients longer than 2^45 count as so much shorter: a descent step on the simplex ends at a vertex for either.

    Args:
        matrix: float32 `[T, T]`, of gradients of moderate length.
        scale: float32 `[]`, above 0.

    Example:
        >>> unscaled(jnp.eye(1), 0.5).tolist(), unscaled(jnp.eye(1), 2.0**-64).tolist() == [[2.0**90]]
        ([[4.0]], True)
    """
    # Not divided twice, which XLA turns into one division by a square that may be 0.
    unit = jnp.minimum(1.0 / jnp.asarray(scale, matrix.dtype), 2.0**45)
    return matrix * unit * unit


def in_mean_norms(matrix: Array, active: Array) -> Array:
    """A Gramian, or what stands for one, over the squared mean norm of the task gradients.

    Args:
        matrix: float32 `[T, T]`, 0 where a task is inactive.
        active: bool `[T]`.

    Example:
        >>> in_mean_norms(jnp.diag(jnp.array([1.0, 9.0])), jnp.ones(2, bool)).tolist()
        [[0.25, 0.0], [0.0, 2.25]]
    """
    mean = jnp.sum(jnp.sqrt(jnp.abs(jnp.diagonal(matrix)))) / jnp.maximum(jnp.sum(active), 1)
    mean = jnp.where(mean > 0, mean, 1.0)
    # One side after the other: the square of the norm may leave float32's range.
    return matrix / mean / mean
