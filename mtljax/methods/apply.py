"""Give a method the evidence that it reads."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtljax import ranges, trees
from mtljax.checks import check_losses, check_method_of_evidence, check_refine, expect
from mtljax.methods.common import check_active
from mtljax.types import Array, Key, Method, MethodState, PyTree

_ROWS = "an array [T, n] or a pytree of arrays [T, *p]"


def weigh(
    method: Method,
    evidence: Array,
    state: MethodState,
    *,
    losses: Array | None = None,
    active: Array | None = None,
    key: Key | None = None,
    **extra: Any,
) -> tuple[Array, MethodState]:
    """Run a method that returns weights; a task that is not active gets weight 0.

    Args:
        method: reads "losses" or "gramian".
        evidence: losses `[T]` or Gramian `[T, T]`.
        state: the method's state.
        losses: `[T]`, for methods that look at the losses beside the Gramian.
        active: bool `[T]`, or None for all.
        key: PRNG key, for stochastic methods.
        **extra: whatever else the method may read; what it does not know it ignores.

    Returns:
        Weights `[T]` and the new state.

    Raises:
        ValueError: evidence of the wrong T, or a mask of the wrong shape.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> method = mtljax.methods.mgda()
        >>> weigh(method, jnp.diag(jnp.array([1.0, 1.0])), method.init(2))[0]
        Array([0.5, 0.5], dtype=float32)
    """
    check_method_of_evidence("weigh", "method", method)
    return method.update(evidence, state, losses=losses, active=active, key=key, **extra)


def reconcile(
    method: Method,
    state: MethodState,
    jacobian: PyTree,
    *,
    losses: Array | None = None,
    active: Array | None = None,
    key: Key | None = None,
    refine: bool = False,
    **extra: Any,
) -> tuple[PyTree, MethodState, Array | None]:
    """Turn stacked task gradients into one update, whatever the method reads.

    Args:
        method: any method.
        state: its state, made by `method.init(T, ...)`.
        jacobian: pytree with leaves `[T, *p]`.
        losses: `[T]`; required by methods that read losses.
        active: bool `[T]`, or None for all. Rows of inactive tasks must be finite.
        key: PRNG key, for stochastic methods.
        refine: whether the Gramian is made in float64, as by `mtljax.engines.full(refine=True)`, which lists methods.
        **extra: whatever else the method may read; what it does not know it ignores.

    Returns:
        The update with leaves `[*p]`, the new state, and the Gramian `[T, T]` where one was built (else None). A method
        that reads it is given one in float32's range, with the factor that took it there as `scale` (`mtljax.ranges`).

    Raises:
        ValueError: evidence of the wrong T, a mask of the wrong shape, or losses missing where they are read.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> method = mtljax.methods.equal()
        >>> reconcile(method, method.init(2), jnp.ones((2, 3)), losses=jnp.ones(2))[0]
        Array([2., 2., 2.], dtype=float32)
    """
    check_method_of_evidence("reconcile", "method", method)
    check_refine("reconcile", refine, method)
    check_jacobian("reconcile", jacobian)
    expect(isinstance(state, MethodState), method.name, "state", "a mtljax.MethodState", state, TypeError)
    num_tasks = state.weights.shape[0]
    check_active(method.name, active, num_tasks)
    if trees.num_elements(jacobian) and trees.num_rows(jacobian) != num_tasks:
        raise ValueError(
            f"{method.name}: jacobian must have {num_tasks} rows, one per task of the state, found "
            f"{trees.num_rows(jacobian)}"
        )
    if method.reads == "task_grads":
        if method.pick is not None:
            row = method.pick(state, active=active)
            jacobian = jax.tree.map(lambda leaf: leaf[row], jacobian)
        update, state = method.update(jacobian, state, losses=losses, active=active, key=key, **extra)
        return update, state, None
    gram = None
    if method.reads == "gramian":
        found = (ranges.refined_gramian if refine else ranges.gramian)(jacobian, num_tasks=num_tasks)
        # Values that are not finite are returned, not left out: the caller has decided which tasks take part.
        finite = found.finite[:, None] & found.finite[None, :]
        gram = jnp.where(finite, found.gramian, jnp.nan)
        told = {"losses": losses, "active": active, "key": key, "scale": found.scale, **extra}
        weights, state = weigh(method, gram, state, **told)
        gram = gram / found.scale / found.scale
    else:
        losses = check_losses(method.name, losses, num_tasks)
        weights, state = weigh(method, losses, state, losses=losses, active=active, key=key, **extra)
    return trees.weighted_sum(weights, jacobian), state, gram


def aggregate(
    method: Method,
    jacobian: PyTree,
    *,
    losses: Array | None = None,
    active: Array | None = None,
    key: Key | None = None,
    refine: bool = False,
    **extra: Any,
) -> PyTree:
    """Run a method once on a Jacobian, without a state; for a REPL and for tests.

    A method that learns over steps, or that observes losses after a step, gives the answer of its first step.

    Args:
        method: any method; it starts from its first state.
        jacobian: array `[T, n]` or pytree with leaves `[T, *p]`.
        losses: `[T]`; required by methods that read losses.
        active: bool `[T]`, or None for all.
        key: PRNG key, for stochastic methods.
        refine: whether the Gramian is made in float64, as by `mtljax.engines.full(refine=True)`, which lists methods.
        **extra: whatever else the method may read; what it does not know it ignores.

    Returns:
        The update, like the Jacobian without its task axis.

    Raises:
        ValueError: as `reconcile`.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> jacobian = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> [f"{x:.2f}" for x in mtljax.aggregate(mtljax.methods.upgrad(), jacobian)]
        ['0.29', '1.90', '1.90']
    """
    check_method_of_evidence("aggregate", "method", method)
    expect(bool(jax.tree.leaves(jacobian)), "aggregate", "jacobian", _ROWS, jacobian, ValueError)
    check_jacobian("aggregate", jacobian)
    num_tasks = trees.num_rows(jacobian)
    shared = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), jacobian)
    state = method.init(num_tasks, shared)
    return reconcile(method, state, jacobian, losses=losses, active=active, key=key, refine=refine, **extra)[0]


def check_jacobian(where: str, jacobian: PyTree) -> None:
    """Raises unless all leaves, if there are any, are floating arrays with one length of their first axis.

    Example:
        >>> import jax.numpy as jnp
        >>> check_jacobian("aggregate", jnp.ones((2, 3), int))
        Traceback (most recent call last):
        ...
        TypeError: aggregate: jacobian must be of a floating dtype, found int32
    """
    leaves = jax.tree_util.tree_flatten_with_path(jacobian)[0]
    for path, leaf in leaves:
        what = "jacobian" + jax.tree_util.keystr(path)
        expect(isinstance(leaf, jax.Array | np.ndarray), where, what, _ROWS, leaf, TypeError)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"{where}: {what} must be of a floating dtype, found {leaf.dtype.name}")
        expect(leaf.ndim > 0, where, what, _ROWS, leaf, ValueError)
        if leaf.shape[0] != leaves[0][1].shape[0] or not leaf.shape[0]:
            raise ValueError(
                f"{where}: {what} must have one row per task, {leaves[0][1].shape[0]} as the first leaf has and at "
                f"least 1, found {leaf.shape[0]}"
            )
