"""Trace norms, which make the tasks' parameters span few directions: sums of singular values of unfolded leaves."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mtljax.checks import check_flag, check_nonnegative
from mtljax.penalties.common import Penalty, check_stacked
from mtljax.penalties.singular_values import lowering, rescale, singular_values
from mtljax.types import Array, PyTree


def trace_norm(strength: Array | float = 1.0, *, joint: bool = False) -> Penalty:
    r"""Low-rank multi-task learning: the sum of singular values of the matrix whose rows are the tasks' parameters.

        value(w) = strength * sum over leaves W of sum_i sigma_i(W),   W [T, P] the leaf [T, *p], flattened
        prox(v, s) = U diag(max(sigma_i - s strength, 0)) V^T for each leaf v = U diag(sigma) V^T

    With `joint`, all leaves side by side are one matrix `[T, sum P]`. The tasks then share directions of all parameters
    together, such as a layer's kernel and bias. By itself, a bias with one number per task is a matrix of rank 1, whose
    trace norm is its Euclidean norm. Nothing is divided by T or by the number of parameters.

    The gradient is `U V^T` over the non-zero singular values; for a matrix without full rank, it is the shortest
    subgradient. There are no second derivatives. If the threshold exceeds all singular values, the prox is exactly 0.

    The value and the prox take three products `[T, T] x [T, P]` and `O(T^3)` more; the gradient takes one product more.
    Without `joint`, a leaf with fewer than T parameters per task is decomposed from its smaller side. The accuracy is
    given in `penalties/singular_values.py`.

    Args:
        strength: non-negative scalar; may be traced, so that it can be swept.
        joint: whether all leaves are one matrix.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    Raises:
        NotImplementedError: second derivatives are taken.

    References:
        Argyriou, Evgeniou and Pontil, "Convex Multi-Task Feature Learning", Machine Learning 73, 2008.
        Pong, Tseng, Ji and Ye, "Trace Norm Regularization: Reformulations, Algorithms, and Multi-Task Learning", SIAM
        Journal on Optimization 20, 2010.
        Yang and Hospedales, "Trace Norm Regularised Deep Multi-Task Learning", ICLR workshop 2017, for networks; this
        is their last-axis flattening. Departures: the paper stacks the tasks along the last axis of a parameter, here
        it is the first. The example of the authors' code (wOOL/TNRDMTL) averages over the layers' kernels.

    Example:
        >>> w = {"w": jnp.array([[3.0, 0.0], [0.0, 1.0]])}
        >>> round(float(trace_norm(0.5)(w)), 5)
        2.0
        >>> trace_norm().prox(w, 2.0)["w"].round(6) + 0.0
        Array([[1., 0.],
               [0., 0.]], dtype=float32)
    """
    check_nonnegative("trace_norm", "strength", strength)
    check_flag("trace_norm", "joint", joint)

    def value(stacked: PyTree) -> Array:
        check_stacked("trace_norm", stacked)
        leaves = jax.tree.leaves(stacked)
        if joint:
            return strength * _sum_of_trace_norms([leaves] if leaves else [])
        return strength * _sum_of_trace_norms([_unfolded(leaf, [0]) for leaf in leaves if leaf.size])

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_stacked("trace_norm", stacked)
        check_nonnegative("trace_norm", "step_size", step_size)
        shrink = lowering(step_size * strength)

        def leaf(v: Array) -> Array:
            if not v.size:
                return v
            matrix = rescale(_unfolded(v, [0]), lambda sigma: shrink)
            return matrix if matrix.shape[0] == v.shape[0] else matrix.T.reshape(v.shape)

        if not joint:
            return jax.tree.map(leaf, stacked)
        return rescale(stacked, lambda sigma: shrink) if jax.tree.leaves(stacked) else stacked

    return Penalty(value=value, prox=prox)


def tucker_trace_norm(strength: Array | float = 1.0) -> Penalty:
    r"""Low multilinear rank: the sum of the trace norms of all unfoldings of a leaf along one axis.

        value(w) = strength * sum over leaves W of sum_k |W_(k)|_*,   k = 0, ..., n

    `W_(k)` has the k-th axis of the leaf `[T, p_1, ..., p_n]` along its rows, and all other axes along its columns; k =
    0 is the task axis. All axes have weight 1, and nothing is divided by their number. A leaf `[T, p]` has two
    unfoldings, which are transposes, so its value is twice its trace norm; the value of a leaf `[T]` is its Euclidean
    norm. Like `trace_norm`, this makes the tasks share few directions; in addition, filters use few input and output
    directions.

    Each unfolding is decomposed from its smaller side, so work grows with the cube of the longest axis, which may be
    512 in a wide layer. There is no closed-form prox. Gradients are those of `trace_norm`.

    Args:
        strength: non-negative scalar; may be traced, so that it can be swept.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`, without `prox`.

    Raises:
        NotImplementedError: second derivatives are taken.

    References:
        Yang and Hospedales, "Trace Norm Regularised Deep Multi-Task Learning", ICLR workshop 2017. Departures: in the
        paper each axis has a weight, and the tasks are stacked along the last axis, which gives the same unfoldings.
        The example of the authors' code (wOOL/TNRDMTL) averages over unfoldings and over the layers' kernels.

    Example:
        >>> round(float(tucker_trace_norm()(jnp.eye(2))), 5)
        4.0
    """
    return _of_unfoldings("tucker_trace_norm", strength, lambda axes: [[axis] for axis in range(axes)])


def tensor_train_trace_norm(strength: Array | float = 1.0) -> Penalty:
    r"""Low tensor-train rank: the sum of the trace norms of a leaf unfolded at each cut between its axes.

        value(w) = strength * sum over leaves W of sum_k |W_[k]|_*,   k = 1, ..., n

    `W_[k]` has the axes `p_1, ..., p_k` of the leaf `[T, p_1, ..., p_n]` along its rows, and `p_{k+1}, ..., p_n, T`
    along its columns; for k = n it is the transpose of the matrix of `trace_norm`. All cuts have weight 1, and nothing
    is divided by their number. A leaf `[T, p]` has one cut, so its value is its trace norm; a leaf `[T]` counts as
    `[T, 1]`.

    Each unfolding is decomposed from its smaller side, which may be large if many axes are merged. For a kernel
    `[T, 3, 3, 64, 64]` the smaller sides are 3, 9, `min(576, 64 T)` and T. There is no closed-form prox. Gradients are
    those of `trace_norm`.

    Args:
        strength: non-negative scalar; may be traced, so that it can be swept.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`, without `prox`.

    Raises:
        NotImplementedError: second derivatives are taken.

    References:
        Yang and Hospedales, "Trace Norm Regularised Deep Multi-Task Learning", ICLR workshop 2017. The cuts depend on
        the order of the axes; as in the paper, the task axis counts as the last. Departures: in the paper each cut has
        a weight. The example of the authors' code (wOOL/TNRDMTL) averages over cuts and over the layers' kernels.
        Oseledets, "Tensor-Train Decomposition", SIAM Journal on Scientific Computing 33, 2011.

    Example:
        >>> round(float(tensor_train_trace_norm()(jnp.eye(2))), 5)
        2.0
    """
    return _of_unfoldings(
        "tensor_train_trace_norm",
        strength,
        lambda axes: [list(range(1, last + 1)) for last in range(1, axes)] or [[0]],
    )


def _of_unfoldings(name: str, strength: Array | float, unfoldings: Callable[[int], list[list[int]]]) -> Penalty:
    """The sum of trace norms of unfoldings of each leaf; `unfoldings(number of axes)` lists the axes along the rows."""
    check_nonnegative(name, "strength", strength)

    def value(stacked: PyTree) -> Array:
        check_stacked(name, stacked)
        leaves = [leaf for leaf in jax.tree.leaves(stacked) if leaf.size]
        return strength * _sum_of_trace_norms(
            [_unfolded(leaf, rows) for leaf in leaves for rows in unfoldings(leaf.ndim)]
        )

    return Penalty(value=value)


def _sum_of_trace_norms(matrices: list[PyTree]) -> Array:
    """Sum of the trace norms of matrices, each an array `[m, *p]` or a list of such arrays side by side."""
    total = jnp.zeros((), jnp.float32)
    for matrix in matrices:
        total = total + jnp.sum(singular_values(matrix))
    return total


def _unfolded(leaf: Array, rows: list[int]) -> Array:
    """`[m, *others]` with the axes `rows` merged into one; the transpose if it has fewer rows."""
    columns = [axis for axis in range(leaf.ndim) if axis not in rows]
    size = math.prod(leaf.shape[axis] for axis in rows)
    if size * size > leaf.size:
        rows, columns = columns, rows
        size = leaf.size // size
    return leaf.transpose(*rows, *columns).reshape(size, *(leaf.shape[axis] for axis in columns))
