"""Parts of methods that read the Gramian: the frame around a rule, random orders of tasks, units of a Gramian."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax.methods.arithmetic import number
from mtljax.methods.checked import checked
from mtljax.methods.common import check_lengths, initial_state, mask_of, weights_of
from mtljax.solvers.scaling import Solution, as_float32, as_floating
from mtljax.types import Array, Key, Method, MethodState, PyTree

Answer = tuple[Solution, PyTree]
"""What a rule returns: weights `[T]` with their residual `[]`, and the new inner state."""


def method_of_gramian(
    name: str,
    rule: Callable[..., Answer],
    *,
    inner: Callable[[int], PyTree] = lambda num_tasks: (),
    per_task: Mapping[str, Any] | None = None,
    weigh_tasks: bool = False,
    least_loss: Any = None,
    refines: bool = False,
) -> Method:
    """Makes a method of a rule. The frame handles missing masks, dtypes and `MethodState`.

    Args:
        name: the method's name.
        rule: `rule(gramian, active, inner, *, losses, key, scale, **extra) -> (Solution, inner)`. The Gramian is
            float32, or float64 where it comes so and the method refines; rows and columns of inactive tasks are 0.
            `active` is bool `[T]`; losses are None or float32 `[T]` with 1 where not active. An inactive task's weight
            is replaced by 0; inner is taken as it is.
        inner: `inner(num_tasks)`, the first inner state; may raise where T does not match the arguments.
        per_task: arguments with an entry for each task, by name; `init` raises where there are not T entries.
        weigh_tasks: as in `Method`.
        least_loss: as in `Method`.
        refines: as in `Method`.

    Returns:
        `Method` that reads the Gramian.

    Example:
        >>> def inverse_squares(gramian, active, inner, **rest):
        ...     return exact(1.0 / jnp.diagonal(gramian)), inner
        >>> method = method_of_gramian("inverse_squares", inverse_squares)
        >>> method.update(jnp.diag(jnp.array([2.0, 4.0])), method.init(2))[0].tolist()
        [0.5, 0.25]
    """

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        check_lengths(name, per_task, num_tasks)
        return initial_state(num_tasks, inner(num_tasks))

    def update(
        evidence: Array,
        state: MethodState,
        *,
        losses: Array | None = None,
        active: Array | None = None,
        key: Key | None = None,
        scale: ArrayLike = 1.0,
        **extra: Any,
    ) -> tuple[Array, MethodState]:
        present = mask_of(state, active)
        gramian = as_floating(evidence) if refines else as_float32(evidence)
        if active is not None:
            gramian = jnp.where(active[:, None] & active[None, :], gramian, 0.0)
        if losses is not None:
            losses = jnp.where(present, as_float32(losses), 1.0)
        (weights, residual), moved = rule(gramian, present, state.inner, losses=losses, key=key, scale=scale, **extra)
        weights = weights_of(weights.astype(jnp.float32), active)
        return weights, MethodState(weights, residual.astype(jnp.float32), moved)

    return checked(
        Method("gramian", init, update, weigh_tasks=weigh_tasks, name=name, least_loss=least_loss, refines=refines)
    )


def exact(weights: Array) -> Solution:
    """A solution whose weights are exact by definition: residual 0."""
    return Solution(weights, jnp.zeros((), jnp.float32))


def random_order(name: str, key: Key | None, active: Array) -> Array:
    """For every task, an order in which it meets the others, uniform and independent of the other tasks' orders.

    Numbers are drawn by the ranks of tasks among the active ones, so a task that is not active leaves the order of the
    others as it would be without it. Up to two tasks there is one other task at most, and no order to draw.

    Args:
        name: the method's name, for the message.
        key: PRNG key; may be None up to two tasks.
        active: bool `[T]`.

    Returns:
        int32 `[T, T]`, row i the order for task i; `[T, 1]` up to two tasks.

    Raises:
        ValueError: `key` is None with more than two tasks.

    Example:
        >>> random_order("pcgrad", jax.random.key(0), jnp.ones(3, bool)).shape
        (3, 3)
    """
    num_tasks = active.shape[0]
    if num_tasks <= 2:
        return jnp.flip(jnp.arange(num_tasks))[:, None]
    if key is None:
        raise ValueError(f"{name}: key must be a random key for {num_tasks} tasks, found None")
    rank = jnp.cumsum(active) - 1

    def draw(row: Array, column: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, row), column))

    draws = jax.vmap(jax.vmap(draw, (None, 0)), (0, None))(rank, rank)
    return jnp.argsort(jnp.where(active[None, :], draws, 2.0), axis=1).astype(jnp.int32)


def unscaled(matrix: Array, scale: ArrayLike) -> Array:
    """The Gramian of the gradients, from the Gramian of the gradients times `scale`; never inf.

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
    """A Gramian, or a product `J_1 J_2'`, divided by the squared mean norm of the task gradients.

    Args:
        matrix: float32 `[T, T]`, 0 where a task is inactive.
        active: bool `[T]`.

    Example:
        >>> in_mean_norms(jnp.diag(jnp.array([1.0, 9.0])), jnp.ones(2, bool)).tolist()
        [[0.25, 0.0], [0.0, 2.25]]
    """
    mean = jnp.sum(jnp.sqrt(jnp.abs(jnp.diagonal(matrix)))) / number(active)
    mean = jnp.where(mean > 0, mean, 1.0)
    # One side after the other: the square of the norm may leave float32's range.
    return matrix / mean / mean
