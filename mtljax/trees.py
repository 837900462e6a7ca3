"""Algebra along the task axis: trees whose leaves are `[T, *p]`, one row a task.

Reductions over parameters accumulate in float32 at least, whatever the leaves are. On accelerators they contract all
trailing axes with one `lax.dot_general`, so that a sharded leaf is never gathered. Squares are formed in that
precision: gradients with norms from about 1e-18 to 1e18 are safe; `mtljax.ranges` has Gramians of any size.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mtljax.checks import expect
from mtljax.types import Array, PyTree


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Stack trees of one structure along a new leading task axis.

    Args:
        trees: T pytrees with equal structure, leaf shapes and leaf dtypes.

    Returns:
        Pytree with leaves `[T, *p]`.

    Raises:
        ValueError: no trees, or trees that differ; the message names the first leaf that does.

    Example:
        >>> import jax.numpy as jnp
        >>> stack([{"w": jnp.zeros(3)}, {"w": jnp.ones(3)}])["w"].shape
        (2, 3)
    """
    if not trees:
        raise ValueError("stack: trees is empty, expected at least one tree")
    first = jax.tree_util.tree_flatten_with_path(trees[0])
    for position, tree in enumerate(trees[1:], start=1):
        leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
        if structure != first[1]:
            raise ValueError(f"stack: tree {position} has structure {structure}, but tree 0 has {first[1]}")
        for (path, a), (_, b) in zip(first[0], leaves, strict=True):
            if jnp.shape(a) != jnp.shape(b):
                name = jax.tree_util.keystr(path)
                raise ValueError(
                    f"stack: leaf {name} of tree {position} has shape {jnp.shape(b)}, but {jnp.shape(a)} in tree 0"
                )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def num_rows(stacked: PyTree, *, where: str = "num_rows") -> int:
    """Length of the task axis that all leaves share; `where` opens the messages.

    Raises:
        TypeError: a leaf is not an array.
        ValueError: the tree has no leaves, a leaf has no axes, or leaves disagree; the message names the leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> num_rows({"w": jnp.zeros((4, 3)), "b": jnp.zeros(4)})
        4
    """
    leaves = jax.tree_util.tree_flatten_with_path(stacked)[0]
    if not leaves:
        raise ValueError(f"{where}: stacked must have leaves, to say how many tasks there are, found none")
    rows = None
    for path, leaf in leaves:
        which = f"leaf {jax.tree_util.keystr(path)}"
        expect(hasattr(leaf, "shape"), where, which, "an array with a leading task axis", leaf, TypeError)
        if not leaf.shape or (rows is not None and leaf.shape[0] != rows):
            axis = "a leading task axis" if rows is None else f"a leading task axis of {rows}"
            raise ValueError(f"{where}: {which} must have {axis}, found shape {leaf.shape}")
        rows = leaf.shape[0]
    assert rows is not None
    return rows


def _check_square(where: str, gramian: Array) -> None:
    expect(isinstance(gramian, jax.Array | np.ndarray), where, "gramian", "an array [T, T]", gramian, TypeError)
    if gramian.ndim != 2 or gramian.shape[0] != gramian.shape[1]:
        raise ValueError(f"{where}: gramian must be of shape [T, T], found shape {gramian.shape}")
    if not jnp.issubdtype(gramian.dtype, jnp.floating):
        raise TypeError(f"{where}: gramian must be of a floating dtype, found {gramian.dtype}")


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which values of `dtype` are summed: float32, or float64 for float64.

    Example:
        >>> import jax.numpy as jnp
        >>> accumulator(jnp.dtype(jnp.bfloat16)).name
        'float32'
    """
    return jnp.promote_types(dtype, jnp.float32)


def _inner(a: Array, b: Array) -> Array:
    """`[S, *p]`, `[T, *p]` -> `[S, T]`: dot products over all trailing axes."""
    dtype = accumulator(jnp.promote_types(a.dtype, b.dtype))

    def contract(a: Array, b: Array) -> Array:
        axes = tuple(range(1, a.ndim))
        # HIGHEST, because the default on accelerators rounds operands to bf16 or tf32, which no solver survives.
        return lax.dot_general(a, b, ((axes, axes), ((), ())), precision=lax.Precision.HIGHEST)

    def contract_flat(a: Array, b: Array) -> Array:
        return contract(a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1))

    a, b = a.astype(dtype), b.astype(dtype)
    if a.ndim == 2:
        return contract(a, b)
    # XLA:CPU copies an operand with two contracted axes into another layout, two to three times the cost of the whole
    # product. Elsewhere axes are not merged: that would gather a leaf that is sharded along one of them.
    return lax.platform_dependent(a, b, cpu=contract_flat, default=contract)


def cross_gramian(a: PyTree, b: PyTree, *, rows: tuple[int, int] | None = None) -> Array:
    """Dot products of every row of `a` with every row of `b`: `G_ij = <a_i, b_j>`.

    Args:
        a: pytree with leaves `[S, *p]`.
        b: pytree of the same structure with leaves `[T, *p]`.
        rows: `(S, T)`, needed only where the trees have no leaves (the result is then zero).

    Returns:
        `[S, T]`, float32 or wider.

    Raises:
        ValueError: the trees have no leaves and `rows` is not given.

    Example:
        >>> import jax.numpy as jnp
        >>> float(cross_gramian({"w": jnp.ones((1, 3))}, {"w": jnp.ones((2, 3))})[0, 1])
        3.0
    """
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    if not pairs:
        if rows is None:
            raise ValueError("cross_gramian: a and b must have leaves, or rows=(S, T) be given, found neither")
        return jnp.zeros(rows, jnp.float32)
    total = _inner(*pairs[0])
    for x, y in pairs[1:]:
        total = total + _inner(x, y)
    return total


def gramian(stacked: PyTree, *, num_tasks: int | None = None) -> Array:
    """The Gramian `G = J J^T` of stacked rows.

    Args:
        stacked: pytree with leaves `[T, *p]` of any floating dtype.
        num_tasks: T, needed only where the tree has no leaves (the Gramian is then zero).

    Returns:
        `[T, T]`, float32 (float64 for float64 leaves).

    Raises:
        ValueError: no leaves and no `num_tasks`, or leaves whose leading axes disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> gramian(jnp.array([[3.0, 4.0], [4.0, -3.0]]))
        Array([[25.,  0.],
               [ 0., 25.]], dtype=float32)
    """
    if jax.tree.leaves(stacked):
        num_tasks = num_rows(stacked, where="gramian")
        for leaf in jax.tree.leaves(stacked):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise TypeError(f"gramian: stacked must be of a floating dtype, found {leaf.dtype}")
    if num_tasks is None:
        raise ValueError("gramian: stacked must have leaves, or num_tasks be given, found neither")
    return cross_gramian(stacked, stacked, rows=(num_tasks, num_tasks))


def weighted_sum(weights: Array, stacked: PyTree) -> PyTree:
    """`sum_k w_k J_k`: contract the task axis. Sums in float32 at least, returns each leaf's own dtype.

    Args:
        weights: `[T]`.
        stacked: pytree with leaves `[T, *p]`.

    Returns:
        Pytree with leaves `[*p]`.

    Raises:
        ValueError: a leaf whose leading axis is not T.

    Example:
        >>> import jax.numpy as jnp
        >>> weighted_sum(jnp.array([1.0, 2.0]), {"w": jnp.array([[1.0, 0.0], [0.0, 1.0]])})["w"]
        Array([1., 2.], dtype=float32)
    """
    expect(isinstance(weights, jax.Array | np.ndarray), "weighted_sum", "weights", "an array [T]", weights, TypeError)
    if jax.tree.leaves(stacked) and weights.shape != (num_rows(stacked, where="weighted_sum"),):
        rows = num_rows(stacked)
        raise ValueError(f"weighted_sum: weights must be of shape ({rows},), one for each row, found {weights.shape}")

    def leaf(rows: Array) -> Array:
        dtype = accumulator(rows.dtype)
        total = lax.dot_general(
            weights.astype(dtype), rows.astype(dtype), (((0,), (0,)), ((), ())), precision=lax.Precision.HIGHEST
        )
        return total.astype(rows.dtype)

    return jax.tree.map(leaf, stacked)


def norms(gramian: Array) -> Array:
    """Euclidean norm of each task's gradient, `[T]`, from the Gramian's diagonal.

    Example:
        >>> import jax.numpy as jnp
        >>> norms(jnp.array([[25.0, 0.0], [0.0, 4.0]]))
        Array([5., 2.], dtype=float32)
    """
    _check_square("norms", gramian)
    # Rounding may leave a negative zero-gradient entry when the Gramian comes from a JVP.
    return jnp.sqrt(jnp.maximum(jnp.diagonal(gramian), 0.0))


def cosines(gramian: Array) -> Array:
    """Cosine of the angle between every two task gradients; 0 where either gradient is zero.

    Args:
        gramian: `[T, T]`.

    Returns:
        `[T, T]` in [-1, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> cosines(jnp.array([[4.0, -2.0], [-2.0, 1.0]]))
        Array([[ 1., -1.],
               [-1.,  1.]], dtype=float32)
    """
    _check_square("cosines", gramian)
    length = norms(gramian)
    inverse = jnp.where(length > 0, 1.0 / jnp.where(length > 0, length, 1.0), 0.0)
    # One factor at a time: the product of two small norms underflows where the cosine does not.
    return jnp.clip(gramian * inverse[:, None] * inverse[None, :], -1.0, 1.0)


def scale(factor: Array, tree: PyTree) -> PyTree:
    """Every leaf times a scalar, in the leaf's own dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> scale(jnp.array(2.0), {"w": jnp.ones(2, jnp.bfloat16)})["w"]
        Array([2, 2], dtype=bfloat16)
    """
    return jax.tree.map(lambda leaf: (factor.astype(accumulator(leaf.dtype)) * leaf).astype(leaf.dtype), tree)


def along(vector: Array, leaf: Array) -> Array:
    """`[T]` as `[T, 1, ...]`, to be broadcast against a leaf `[T, *p]`; a scalar `[]` against any leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> along(jnp.ones(2), jnp.ones((2, 3, 4))).shape
        (2, 1, 1)
    """
    return vector.reshape(vector.shape + (1,) * (jnp.ndim(leaf) - vector.ndim))


def where(keep: Array, tree: PyTree) -> PyTree:
    """The tree where `keep` (bool `[]`) holds, zeros elsewhere; what is dropped may be NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> where(jnp.array(False), {"w": jnp.array([jnp.nan])})["w"]
        Array([0.], dtype=float32)
    """
    return jax.tree.map(lambda leaf: jnp.where(keep, leaf, jnp.zeros_like(leaf)), tree)


def all_finite(tree: PyTree) -> Array:
    """Whether no entry is NaN or infinite, bool `[]`.

    Example:
        >>> import jax.numpy as jnp
        >>> bool(all_finite({"w": jnp.array([1.0, jnp.nan])}))
        False
    """
    return functools.reduce(
        jnp.logical_and, (jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)), jnp.array(True)
    )


def num_elements(tree: PyTree) -> int:
    """Number of scalars in a tree of arrays or of shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> num_elements({"w": jnp.zeros((4, 3)), "b": jnp.zeros(4)})
        16
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
