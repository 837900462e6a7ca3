"""Common parts of spectral penalties: singular values of stacked task parameters, and functions that change only them.

A pytree with leaves `[T, *p]` is one matrix here, `W = U diag(sigma) V^T` of shape `[T, P]`, with the leaves flattened
side by side; it is never formed. A symmetric function f of the singular values has the derivative
`U diag(df/dsigma) V^T`, also where singular values repeat, although U and V have no derivative there. So derivatives of
U and V are never taken.

The decomposition uses `[T, T]` Gramians, which cost one matrix product each and do not gather sharded leaves. One
Gramian alone would lose all singular values below `sqrt(eps)` of the largest. So its eigenvectors only rotate the rows
of W until they are nearly orthogonal. A second Gramian, of the rotated rows scaled to length 1, is then accurate for
long and short rows.

Accuracy was measured in float32 on a CPU against a float64 SVD, for T from 2 to 128 and P up to 20,000, in units of eps
times the largest singular value. The errors of the singular values are at most 15; by QR and an SVD of the triangle
they are 9, by one Gramian 7400. A zero singular value comes out as at most 3 (5 and 7400). The decomposition takes
three matrix products `[T, T] x [T, P]`, half the time of QR for T = 64 and P = 100,000; QR would also gather sharded
leaves. With fewer columns than rows the Gramians are larger than W. Such a small matrix is formed and decomposed
directly, which is seven times as fast for T = 139 and P = 27.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.penalties.common import mix_rows
from mtljax.penalties.groups import shrink
from mtljax.solvers.scaling import multiply
from mtljax.types import Array, PyTree


class Decomposition(NamedTuple):
    """One side of `W = U diag(sigma) V^T`, constants under differentiation.

    Attributes:
        left: `[T, T]`, U, orthogonal.
        values: `[T]`, sigma, descending. Values up to `4 sqrt(T) eps` times the largest are set to 0; this is ten times
            the largest rounding error that was measured for a zero singular value.
    """

    left: Array
    values: Array


def decompose(stacked: PyTree) -> Decomposition:
    """Left singular vectors and singular values of the matrix whose columns are spread over the leaves of a tree.

    Args:
        stacked: pytree with at least one leaf, `[T, *p]`. Norms from about 1e-18 to 1e18 are safe.

    Returns:
        `Decomposition`, float32, or float64 if a leaf is. With fewer than T columns the values end in zeros.

    Example:
        >>> decompose({"w": jnp.array([[3.0], [4.0]]), "b": jnp.zeros(2)}).values.round(5)
        Array([5., 0.], dtype=float32)
    """
    stacked = lax.stop_gradient(stacked)
    rows = trees.num_rows(stacked)
    if sum(leaf.size for leaf in jax.tree.leaves(stacked)) < rows * rows:
        return _few_columns(stacked, rows)
    gramian = trees.gramian(stacked)
    square = jnp.trace(gramian)
    unit = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    rough = jnp.linalg.eigh(gramian / unit / unit)[1]
    gramian = trees.gramian(_combine(rough.T / unit, stacked))
    lengths = jnp.sqrt(jnp.diagonal(gramian))
    inverse = _inverse(lengths)
    squares, mixing = jnp.linalg.eigh(gramian * inverse[:, None] * inverse[None, :])
    # A square root of the second Gramian, whose rows keep their lengths.
    root = lengths[:, None] * mixing * jnp.sqrt(jnp.maximum(squares, 0.0))[None, :]
    fine, values, _ = jnp.linalg.svd(root)
    return Decomposition(multiply(rough, fine), unit * _without_noise(values))


def _few_columns(stacked: PyTree, rows: int) -> Decomposition:
    leaves = [leaf.astype(trees.accumulator(leaf.dtype)).reshape(rows, -1) for leaf in jax.tree.leaves(stacked)]
    matrix = jnp.concatenate(leaves, axis=1)
    largest = jnp.max(jnp.abs(matrix), initial=0.0)
    unit = jnp.where(largest > 0, largest, 1.0)
    left, values, _ = jnp.linalg.svd(matrix / unit, full_matrices=True)
    return Decomposition(left, unit * jnp.pad(_without_noise(values), (0, rows - values.shape[0])))


def _without_noise(values: Array) -> Array:
    noise = 4.0 * values.shape[0] ** 0.5 * jnp.finfo(values.dtype).eps * values[:1]
    return jnp.where(values <= noise, 0.0, values)


def singular_values(stacked: PyTree) -> Array:
    """Singular values of the matrix whose columns are spread over leaves, for use in symmetric functions.

    Their derivative is `d sigma_i = u_i^T dW v_i`, and 0 where `sigma_i` is 0. So a symmetric function of the singular
    values gets its exact gradient wherever it has one, and the trace norm gets its shortest subgradient. Single
    repeated singular values have no derivative; the result then depends on the choice of U.

    Args:
        stacked: pytree with at least one leaf, `[T, *p]`; see `decompose`.

    Returns:
        `[T]`, descending, float32, or float64 if a leaf is.

    Raises:
        NotImplementedError: second derivatives are taken.

    Example:
        >>> singular_values(jnp.diag(jnp.array([-3.0, 1.0]))).round(5)
        Array([3., 1.], dtype=float32)
        >>> jax.grad(lambda w: jnp.sum(singular_values(w)))(jnp.eye(2)).round(5) + 0.0
        Array([[1., 0.],
               [0., 1.]], dtype=float32)
    """
    return _values(stacked, decompose(stacked))


def rescale(stacked: PyTree, factors: Callable[[Array], Callable[[Array], Array]]) -> PyTree:
    """`U diag(c_i) V^T` with `c_i = sigma_i h(sigma_i)`: new singular values, the old singular vectors.

    The result is differentiable if h is smooth at every `sigma_i`, also where singular values repeat: the derivative
    takes divided differences of h, and no derivatives of singular vectors.

    Args:
        stacked: pytree with at least one leaf, `[T, *p]`; see `decompose`.
        factors: `factors(sigma [T]) -> h`, where h is applied entry by entry and is finite at 0. `factors` computes
            what depends on all singular values, such as a threshold, and h closes over it.

    Returns:
        Pytree like `stacked`, in each leaf's dtype.

    Raises:
        NotImplementedError: second derivatives are taken.

    Example:
        >>> rescale(jnp.diag(jnp.array([-4.0, 2.0])), lambda sigma: lambda x: x / sigma[0]).round(5) + 0.0
        Array([[-4.,  0.],
               [ 0.,  1.]], dtype=float32)
    """
    decomposition = decompose(stacked)
    values = _values(stacked, decomposition)
    factor, slope = jax.jvp(factors(values), (values,), (jnp.ones_like(values),))
    return _rescaled(stacked, factor, lax.stop_gradient(slope), decomposition)


def lowering(threshold: Array | float) -> Callable[[Array], Array]:
    """The h of `rescale` that lowers singular values by a threshold, at most to 0: `h(x) = max(1 - threshold / x, 0)`.

    Example:
        >>> lowering(1.0)(jnp.array([2.0, 1.0, 0.0])).tolist()
        [0.5, 0.0, 0.0]
    """
    # With threshold 0, h is 1 also for a singular value of 0, so that the derivative is that of the identity.
    return lambda x: jnp.where(jnp.equal(threshold, 0), 1.0, shrink(x, threshold))


@jax.custom_jvp
def _values(stacked: PyTree, decomposition: Decomposition) -> Array:
    return decomposition.values


@_values.defjvp
def _values_jvp(primals: tuple[PyTree, Decomposition], tangents: tuple[PyTree, Decomposition]) -> tuple[Array, Array]:
    stacked, decomposition = primals
    left, values = _differentiated_once(stacked, decomposition)
    # u^T dW v = u^T dW W^T u / sigma
    change = jnp.sum(left * multiply(trees.cross_gramian(tangents[0], stacked), left), 0)
    return _values(stacked, decomposition), _inverse(values) * change


@jax.custom_jvp
def _rescaled(stacked: PyTree, factor: Array, slope: Array, decomposition: Decomposition) -> PyTree:
    left = decomposition.left
    matrix = multiply(left * factor[None, :], left.T)
    return jax.tree.map(lambda new, leaf: new.astype(leaf.dtype), _combine(matrix, stacked), stacked)


@_rescaled.defjvp
def _rescaled_jvp(
    primals: tuple[PyTree, Array, Array, Decomposition], tangents: tuple[PyTree, Array, Array, Decomposition]
) -> tuple[PyTree, PyTree]:
    """`d(M W) = M dW + dM W` with `M = U diag(factor) U^T`, a function of `W W^T`; `dM` is by Daleckii and Krein."""
    stacked, factor, slope, decomposition = primals
    left, values = _differentiated_once(stacked, decomposition)
    one_sided = trees.cross_gramian(tangents[0], stacked)
    change = multiply(left.T, multiply(one_sided + one_sided.T, left))
    turned = multiply(left, multiply(_divided_differences(values, factor, slope) * change, left.T))
    turned = turned + multiply(left * tangents[1][None, :], left.T)
    matrix = multiply(left * factor[None, :], left.T)
    moved = jax.tree.map(
        lambda a, b, leaf: (a + b).astype(leaf.dtype),
        _combine(matrix, tangents[0]),
        _combine(turned, stacked),
        stacked,
    )
    return _rescaled(*primals), moved


def _divided_differences(values: Array, factor: Array, slope: Array) -> Array:
    """`[T, T]`, `(c_i - c_j) / (s_i^2 - s_j^2)`, or its limit where the two are close; 0 on the diagonal."""
    squares = jnp.square(values)
    gap = squares[:, None] - squares[None, :]
    # At this distance the rounding error of the difference equals the error of the limit.
    close = jnp.abs(gap) <= jnp.sqrt(jnp.finfo(values.dtype).eps) * jnp.maximum(squares[:, None], squares[None, :])
    limit = 0.5 * slope * _inverse(values)
    limit = 0.5 * (limit[:, None] + limit[None, :])
    apart = (factor[:, None] - factor[None, :]) / jnp.where(close, 1.0, gap)
    return jnp.where(close, limit, apart) * (1.0 - jnp.eye(values.shape[0], dtype=values.dtype))


@jax.custom_jvp
def _differentiated_once(stacked: PyTree, decomposition: Decomposition) -> Decomposition:
    return decomposition


@_differentiated_once.defjvp
def _differentiated_twice(primals: object, tangents: object) -> tuple[Decomposition, Decomposition]:
    raise NotImplementedError(
        "spectral penalties and their proximal operators have first derivatives only, found a second derivative"
    )


def _combine(matrix: Array, stacked: PyTree) -> PyTree:
    """`[S, T]` times each leaf `[T, *p]`, in float32 at least; trailing axes are not merged."""
    return jax.tree.map(lambda w: mix_rows(matrix, w.astype(trees.accumulator(w.dtype))), stacked)


def _inverse(x: Array) -> Array:
    """`1 / x`, and 0 where x is 0."""
    return jnp.where(x > 0, 1.0 / jnp.where(x > 0, x, 1.0), 0.0)
