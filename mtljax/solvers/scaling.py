"""Scales a Gramian by powers of two, without rounding, so that float32 is precise enough to solve it.

The norms of tasks may differ by many decades, and tasks may almost cancel. A plain float32 solver then loses the
direction. Two means keep it. The Gramian is divided by a power of two near each task's norm; this division is exact.
Matrix-vector products are computed in two parts, and the leading part has no rounding; so iterative refinement gains
digits.

`engines.full(refine=True)` computes a float64 Gramian from float32 rows. The same solvers then work in float64. A
product of two float32 numbers is exact in float64, so such a Gramian is right to about `2^-50 |g_i| |g_j|`, and
`|d|^2 = y'My` to `2^-50 (sum_i y_i |g_i|)^2`. `finer` turns a tolerance for float32 into one for float64. The weights
are rounded to float32 at the end.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from mtljax.types import Array

# The error of `accurate_product` relative to the sum of |vector|, for entries of the matrix below 1. The leading part
# is exact. The trailing part is below 2^-7 and its rounding is 2^-24 of that, 2^-31; two bits are margin for its sums.
PRODUCT_ERROR = 2.0**-29
# The rounding of a number to float32, relative to the number.
WEIGHT_ERROR = 2.0**-24
# The smallest normal number of float32.
TINY = 2.0**-126

TRUSTED = 2.0**-6
"""The largest residual of an answer that is trusted. Above it, a method takes its safe direction."""


class Solution(NamedTuple):
    """What a solver returns.

    Attributes:
        weights: float32, the minimiser; the solver's docstring gives the shape.
        residual: float32 `[]` in [0, 1], an estimate of the direction's relative error, which the solver's docstring
            defines. 0: the direction is exact. Above `TRUSTED`: the direction is the solver's safe direction. 1: no
            digit of the direction is certain, as at a point that is Pareto-stationary to working precision.
    """

    weights: Array
    residual: Array


class Scaled(NamedTuple):
    """A Gramian divided on both sides by powers of two.

    Attributes:
        matrix: float32 or float64 `[T, T]`, entries below 1 in size, diagonal in [1/4, 1); rows and columns of tasks
            that are inactive or have a zero gradient are 0.
        norm: the same `[T]`, the powers of two: the task gradients' norms times a factor in (1, 2]; 1 for zero
            gradients.
        active: bool `[T]`, the tasks that take part.
        nonzero: bool `[T]`, the tasks that take part and have a gradient.
    """

    matrix: Array
    norm: Array
    active: Array
    nonzero: Array


def as_float32(array: ArrayLike) -> Array:
    """The array in float32, as a constant under differentiation: no solver is differentiated."""
    return lax.stop_gradient(jnp.asarray(array)).astype(jnp.float32)


def as_floating(array: ArrayLike) -> Array:
    """The array as a constant under differentiation: float64 stays float64, all other dtypes become float32."""
    array = lax.stop_gradient(jnp.asarray(array))
    return array if array.dtype == jnp.float64 else array.astype(jnp.float32)


def is_wide(array: Array) -> bool:
    """Whether an array is in float64. Solvers solve a Gramian in float64 to more digits."""
    return array.dtype == jnp.float64


def finer(tolerance: float, matrix: Array, *, square: bool = False) -> float:
    """A tolerance for the precision of the matrix, from one in units of float32's rounding (`square`: of its root)."""
    return tolerance * (2.0**-12 if square else 2.0**-24) if is_wide(matrix) else tolerance


def power_of_two(x: Array) -> Array:
    """The largest power of two that is at most x, for positive x; 1 where x is 0."""
    # The bits are exact. exp2(floor(log2(x))) is not a power of two on every backend.
    if is_wide(x):
        long = lax.bitcast_convert_type(x, jnp.int64) & 0x7FF0000000000000
        return jnp.where(long > 0, lax.bitcast_convert_type(long, jnp.float64), 1.0)
    bits = lax.bitcast_convert_type(x, jnp.int32) & 0x7F800000
    return jnp.where(bits > 0, lax.bitcast_convert_type(bits, jnp.float32), 1.0)


def scale(gramian: Array, active: Array | None) -> Scaled:
    """Divides rows and columns of a Gramian `[T, T]` by powers of two near the tasks' norms.

    Args:
        gramian: `[T, T]` floating point, symmetric positive semi-definite up to rounding.
        active: bool `[T]` or None for all.

    Returns:
        The scaled Gramian, in float64 where the Gramian is in float64, else in float32. The row and the column of an
        inactive task are not read and may hold NaN. In float32 entries below 2^-126 count as 0, so a gradient shorter
        than 2^-63 counts as zero.

    Raises:
        ValueError: the Gramian is not square, or `active` is not `[T]`.
    """
    shape = jnp.shape(gramian)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"gramian must be a square matrix [T, T] with T at least 1, found shape {shape}")
    if active is not None and jnp.shape(active) != shape[:1]:
        raise ValueError(f"active must have shape {shape[:1]} to match the gramian, found {jnp.shape(active)}")
    gramian = as_floating(gramian)
    # Some threads flush numbers below the normal ones to 0, and some do not.
    gramian = jnp.where(jnp.abs(gramian) < jnp.finfo(gramian.dtype).tiny, 0.0, gramian)
    squares = jnp.diagonal(gramian)
    active = jnp.ones_like(squares, dtype=bool) if active is None else jnp.asarray(active).astype(bool)
    # Not `squares > 0`: a NaN of an active task must reach the result and must not count as a zero gradient.
    nonzero = active & ~(squares <= 0)
    norm = jnp.where(nonzero, 2.0 * power_of_two(jnp.sqrt(jnp.where(nonzero, squares, 1.0))), 1.0)
    # Two divisions, because the product of two norms may exceed the range.
    matrix = gramian / norm[:, None] / norm[None, :]
    return Scaled(jnp.where(nonzero[:, None] & nonzero[None, :], matrix, 0.0), norm, active, nonzero)


def multiply(matrix: Array, vector: Array) -> Array:
    """`matrix @ vector` in full precision on every backend."""
    return jnp.matmul(matrix, vector, precision=lax.Precision.HIGHEST)


def accurate_product(matrix: Array, vector: Array) -> Array:
    """`matrix @ vector` with an error of about `PRODUCT_ERROR` times the sum of |vector|; plain float32 has 2^-24.

    Both factors are split at 8 bits. The product of the leading parts is exact in float32: it is a sum of at most 512
    multiples of one number, and has less than 24 bits.

    Args:
        matrix: float32 `[T, T]`, entries at most 1 in size.
        vector: float32 `[T]`.

    Returns:
        float32 `[T]`. In float64 the plain product is returned.
    """
    if is_wide(matrix):
        return multiply(matrix, vector)
    unit = power_of_two(jnp.max(jnp.abs(vector))) / 128.0
    vector_lead = jnp.round(vector / unit) * unit
    matrix_lead = jnp.round(matrix * 128.0) / 128.0
    rest = multiply(matrix_lead, vector - vector_lead) + multiply(matrix - matrix_lead, vector)
    return multiply(matrix_lead, vector_lead) + rest


def solution(weights: Array, residual: Array) -> Solution:
    """The solver's result, converted from the solver's precision."""
    return Solution(as_float32(weights), as_float32(residual))


def relative(error: Array, length: Array) -> Array:
    """`error / length`, at most 1; 0 where the error is 0, for any length."""
    ratio = error / jnp.where(length > 0, length, 1.0)
    ratio = jnp.where(length > 0, jnp.minimum(ratio, 1.0), 1.0)
    return jnp.where(error == 0, 0.0, ratio)
