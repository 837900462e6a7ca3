"""What the methods that read task gradients share: the frame around a rule, and algebra along the task axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.methods.checked import checked
from mtljax.methods.common import initial_state
from mtljax.solvers.scaling import as_float32, power_of_two
from mtljax.types import Array, Key, Method, MethodState, PyTree

UNROLL_LIMIT = 32
"""Up to how many tasks a sum or a sort over them is written out, row by row."""


def method_of_gradients(
    name: str,
    rule: Callable[..., tuple[PyTree, Array, PyTree]],
    *,
    inner: Callable[[int, PyTree], PyTree] = lambda num_tasks, shared: (),
    weigh_tasks: bool = False,
    least_loss: Any = None,
) -> Method:
    """A method out of a rule that need not know of missing masks, of narrow dtypes or of `MethodState`.

    Args:
        name: the method's name.
        rule: `rule(rows, active, inner, *, losses, key) -> (update, weights, inner)`. Rows are float32 at least and 0
            where not active, active is bool `[T]`, losses are None or float32 `[T]` with 1 where not active. The update
            is cast to the gradients' dtype; an inactive task's weight is replaced by 0; inner is taken as it is.
        inner: `inner(num_tasks, shared)`, the first inner state; may raise where T or shared do not go with the
            arguments.
        weigh_tasks: as in `Method`.
        least_loss: as in `Method`.

    Returns:
        `Method` that reads task gradients.

    Raises:
        ValueError, TypeError: from `update`, where rows, losses or `active` do not go with the number of tasks.

    Example:
        >>> def add(rows, active, inner, **rest):
        ...     return jnp.sum(rows, axis=0), jnp.ones(2), inner
        >>> method = method_of_gradients("add", add)
        >>> method.update(jnp.ones((2, 3)), method.init(2))[0]
        Array([2., 2., 2.], dtype=float32)
    """

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        state = initial_state(num_tasks)
        return state._replace(inner=inner(num_tasks, shared))

    def update(
        evidence: PyTree,
        state: MethodState,
        *,
        losses: Array | None = None,
        active: Array | None = None,
        key: Key | None = None,
        **extra: Any,
    ) -> tuple[PyTree, MethodState]:
        present = jnp.ones_like(state.weights, dtype=bool) if active is None else active
        if losses is not None:
            losses = jnp.where(present, as_float32(losses), 1.0)
        rows = widened(evidence)
        if active is not None:
            rows = keep_rows(rows, jax.tree.map(jnp.zeros_like, rows), active)
        found, weights, moved = rule(rows, present, state.inner, losses=losses, key=key)
        found = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), found, evidence)
        return found, state._replace(weights=jnp.where(present, weights, 0.0), inner=moved)

    return checked(Method("task_grads", init, update, weigh_tasks=weigh_tasks, name=name, least_loss=least_loss))


def widened(tree: PyTree) -> PyTree:
    """Every leaf in float32 at least."""
    return jax.tree.map(lambda leaf: leaf.astype(trees.accumulator(leaf.dtype)), tree)


def zero_rows(name: str, num_tasks: int, shared: PyTree) -> PyTree:
    """Zeros for every task: leaves `[T, *p]`, float32 at least.

    Args:
        name: the method's name, for the message.
        num_tasks: T.
        shared: pytree of arrays or of `jax.ShapeDtypeStruct`.

    Raises:
        ValueError: shared is None.

    Example:
        >>> zero_rows("moco", 2, {"w": jax.ShapeDtypeStruct((3,), jnp.bfloat16)})["w"].shape
        (2, 3)
    """
    if shared is None:
        raise ValueError(f"{name}: init needs shared=, the shared parameters or their shapes")
    return jax.tree.map(lambda leaf: jnp.zeros((num_tasks, *leaf.shape), trees.accumulator(leaf.dtype)), shared)


def along(vector: Array, leaf: Array) -> Array:
    """`[T]` as `[T, 1, ...]`, to be broadcast against a leaf `[T, *p]`."""
    return vector.reshape(vector.shape + (1,) * (jnp.ndim(leaf) - 1))


def keep_rows(new: PyTree, old: PyTree, active: Array) -> PyTree:
    """Rows of `new` where active, rows of `old` elsewhere; all leaves are `[T, ...]`, what is dropped may be NaN.

    Example:
        >>> keep_rows(jnp.ones((2, 2)), jnp.zeros((2, 2)), jnp.array([True, False])).tolist()
        [[1.0, 1.0], [0.0, 0.0]]
    """
    return jax.tree.map(lambda a, b: jnp.where(along(active, a), a, b), new, old)


def sum_over_tasks(function: Callable[..., PyTree], *stacked: Array) -> PyTree:
    """`sum_k function(*(array[k] for array in stacked))`, task by task and elementwise in between.

    XLA:CPU sums over a leading axis entry by entry, 40 times slower than it adds whole rows; so rows are added, written
    out for up to `UNROLL_LIMIT` tasks and in a loop beyond.

    Args:
        function: of one row of each array, to a pytree of arrays.
        stacked: arrays `[T, ...]`, T at least 1.

    Example:
        >>> sum_over_tasks(jnp.square, jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [10.0, 20.0]
    """
    total = function(*(array[0] for array in stacked))
    if stacked[0].shape[0] <= UNROLL_LIMIT:
        for k in range(1, stacked[0].shape[0]):
            total = jax.tree.map(jnp.add, total, function(*(array[k] for array in stacked)))
        return total

    def add(total: PyTree, rows: tuple[Array, ...]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, function(*rows)), None

    return lax.scan(add, total, tuple(array[1:] for array in stacked))[0]


def row_sums(function: Callable[..., Array], *stacked: PyTree) -> Array:
    """`function` entry by entry, summed over each row: float32 `[T]`.

    Example:
        >>> row_sums(jnp.abs, {"a": jnp.array([[1.0, -2.0]]), "b": jnp.array([3.0])}).tolist()
        [6.0]
    """
    total = jnp.zeros((), jnp.float32)
    for leaves in zip(*map(jax.tree.leaves, stacked), strict=True):
        values = function(*leaves)
        total = total + jnp.sum(values, axis=tuple(range(1, values.ndim))).astype(jnp.float32)
    return total


def row_norms(stacked: PyTree, num_tasks: int) -> Array:
    """Euclidean norm of every row, float32 `[T]`, whatever its scale; NaN in one row stays in it.

    Example:
        >>> print(row_norms({"a": jnp.array([[3.0, 4.0], [3e30, 4e30]])}, 2))
        [5.e+00 5.e+30]
    """
    stacked = widened(stacked)
    plain = jnp.sqrt(jnp.broadcast_to(row_sums(jnp.square, stacked), (num_tasks,)))

    def again() -> Array:
        """In units of each row's largest entry, a power of two: the same bits, where squares are in float32's range."""
        largest = jnp.zeros((num_tasks,), jnp.float32)
        for leaf in jax.tree.leaves(stacked):
            entries = jnp.max(jnp.abs(leaf.reshape(num_tasks, -1)), axis=1, initial=0.0)
            largest = jnp.maximum(largest, entries.astype(jnp.float32))
        unit = power_of_two(jnp.where(jnp.isfinite(largest), largest, 1.0))
        rows = jax.tree.map(lambda leaf: leaf / along(unit, leaf).astype(leaf.dtype), stacked)
        return unit * jnp.sqrt(jnp.broadcast_to(row_sums(jnp.square, rows), (num_tasks,)))

    return lax.cond(jnp.all((plain > 2.0**-50) & (plain < 2.0**60)), lambda: plain, again)


def divide(values: Array, by: Array) -> Array:
    """`values / by`, and 0 where `by` is 0."""
    return jnp.where(by == 0, 0.0, values / jnp.where(by == 0, 1.0, by))
