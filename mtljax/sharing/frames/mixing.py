"""Linear mixtures of columns, for `cross_stitch`, `sluice`, `nddr` and `deep_fusion`."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.types import Array, PyTree

# Up to this number of weights, `mix` writes its sums term by term, and XLA fuses them into one pass over the features.
# On a CPU with 2 to 9 columns this was 1.3 to 200 times as fast as the einsum, and 4 to 100 times with the derivative.
# Beyond it, the program would grow with the square of the number of columns.
_FEW_TERMS = 100


def mix(weights: PyTree, columns: Sequence[PyTree], rows: Sequence[int]) -> list[PyTree]:
    """`sum_j w_ij x_j` for the given rows i; summed in float32 at least, returned in the features' dtype.

    Args:
        weights: pytree with the structure of one column; a leaf is `[R, N]`, or `[R, N, C]` for weights per channel
            (last axis).
        columns: N pytrees with the same structure, shapes and dtypes.
        rows: the rows to return, of the R rows of the weights.

    Example:
        >>> mix(jnp.array([[1.0, 0.0], [0.5, 0.5]]), [jnp.zeros(2), jnp.ones(2)], rows=(1,))
        [Array([0.5, 0.5], dtype=float32)]
    """
    structure = jax.tree.structure(columns[0])
    leaves = zip(*map(jax.tree.leaves, columns), strict=True)
    mixed = [_mix_leaf(w, xs, rows) for w, xs in zip(jax.tree.leaves(weights), leaves, strict=True)]
    return [jax.tree.unflatten(structure, [leaf[row] for leaf in mixed]) for row in range(len(rows))]


def _mix_leaf(weights: Array, xs: tuple[Array, ...], rows: Sequence[int]) -> list[Array]:
    dtype = trees.accumulator(xs[0].dtype)
    wide, weights = [x.astype(dtype) for x in xs], weights.astype(dtype)
    if weights.shape[0] * weights.shape[1] > _FEW_TERMS:
        equation = "ij,j...->i..." if weights.ndim == 2 else "ijc,j...c->i...c"
        every = jnp.einsum(equation, weights, jnp.stack(wide), precision=lax.Precision.HIGHEST)
        return [every[i].astype(xs[0].dtype) for i in rows]
    shape = (1,) * (xs[0].ndim - weights.ndim + 2) + weights.shape[2:]
    each = [[w.reshape(shape) for w in row] for row in weights]
    sums = [functools.reduce(operator.add, map(operator.mul, each[i], wide)) for i in rows]
    return [x.astype(xs[0].dtype) for x in sums]


def near_identity(size: int, own: Array | float) -> Array:
    """`[N, N]` with `own` on the diagonal and the rest of each row shared evenly; 1 if N is 1.

    Example:
        >>> near_identity(3, 0.5).tolist()
        [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]
    """
    if size == 1:
        return jnp.ones((1, 1))
    return jnp.where(jnp.eye(size, dtype=bool), own, (1.0 - own) / (size - 1))


def wide_dtype(features: PyTree) -> jnp.dtype:
    """The dtype of weights for these features: float32 at least.

    Example:
        >>> wide_dtype({"x": jnp.ones(2, jnp.bfloat16)}).name
        'float32'
    """
    return trees.accumulator(jnp.result_type(*jax.tree.leaves(features)))
