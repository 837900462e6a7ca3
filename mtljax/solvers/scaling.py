"""Scales a Gramian by powers of two, so that its precision suffices; nothing is rounded.

Task norms may spread over many decades and tasks may all but cancel, so a plain float32 solve loses the direction.
Two devices keep it. Every task is divided by a power of two near its norm, which is exact: the scaled problem is the
given one. And matrix-vector products are summed in two parts, the leading one free of rounding, which is what makes
iterative refinement gain digits.

A Gramian in float64, which `engines.full(refine=True)` makes of float32 rows, is solved in float64 by the same solvers.
A product of two float32 numbers is exact in float64, so that such a Gramian is right to about `2^-50 |g_i| |g_j|`, and
`|d|^2 = y'My` to `2^-50 (sum_i y_i |g_i|)^2`. `finer` says what a tolerance becomes; weights are rounded to float32 at
the end.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from mtljax.types import Array

# Error of `accurate_product`, relative to the sum of |vector| (entries of the matrix are below 1): the leading part
# is exact, the trailing one is below 2^-7 and rounds at 2^-24 of that; two bits of margin for its sums.
PRODUCT_ERROR = 2.0**-29
WEIGHT_ERROR = 2.0**-24
# The smallest normal number of float32.
TINY = 2.0**-126
# A direction shorter than this share of the shortest gradient counts as none: Pareto-stationary to working precision.
STATIONARY = 2.0**-10


TRUSTED = 2.0**-6
"""The residual above which an answer is not to be trusted: the method then takes its safe direction, and says so."""


class Solution(NamedTuple):
    """What a solver returns.

    Attributes:
        weights: float32, the minimiser; its shape is the solver's.
        residual: float32 `[]` in [0, 1], an estimate of the direction's relative error, which the solver's docstring
            defines. 0: exact. Above `TRUSTED`: what is returned is the solver's safe direction. 1: no digit of the
            direction is certain, as at a point that is Pareto-stationary to working precision.
    """

    weights: Array
    residual: Array


class Scaled(NamedTuple):
    """A Gramian divided on both sides by powers of two.

    Attributes:
        matrix: float32 or float64 `[T, T]`, entries below 1 in size, diagonal in [1/4, 1); rows and columns of tasks
            that are inactive or have a zero gradient are 0.
        norm: the same `[T]`, the powers of two, above the task gradients' norms by a factor in (1, 2]; 1 where zero.
        active: bool `[T]`, the tasks that take part.
        nonzero: bool `[T]`, the tasks that take part and have a gradient.
    """

    matrix: Array
    norm: Array
    active: Array
    nonzero: Array


def as_float32(array: ArrayLike) -> Array:
    """The array as a float32 constant of differentiation: solvers are never differentiated through."""
    return lax.stop_gradient(jnp.asarray(array)).astype(jnp.float32)


def as_floating(array: ArrayLike) -> Array:
    """The same for functions that also work in float64: float64 stays, other dtypes become float32."""
    array = lax.stop_gradient(jnp.asarray(array))
    return array if array.dtype == jnp.float64 else array.astype(jnp.float32)


def is_wide(array: Array) -> bool:
    """Whether an array is in float64: a Gramian without rounding, which solvers can solve to more digits."""
    return array.dtype == jnp.float64


def finer(tolerance: float, matrix: Array, *, square: bool = False) -> float:
    """A tolerance of float32's rounding, or with `square` of its root, for the precision that the matrix is in."""
    return tolerance * (2.0**-12 if square else 2.0**-24) if is_wide(matrix) else tolerance


def power_of_two(x: Array) -> Array:
    """The largest power of two that is at most x, for positive x; 1 where x is 0."""
    # Bits rather than exp2(floor(log2(x))): the latter need not be a power of two on every backend.
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
        The scaled Gramian, in float64 where the Gramian is, else in float32; what an inactive task's row and column
        held, NaN included, is not read. Entries below 2^-126 count as 0 in float32: a task whose gradient is shorter
        than 2^-63 has none.

    Raises:
        ValueError: the Gramian is not square, or `active` is not `[T]`.
    """
    shape = jnp.shape(gramian)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise ValueError(f"gramian must be a square matrix [T, T] with T at least 1, found shape {shape}")
    if active is not None and jnp.shape(active) != shape[:1]:
        raise ValueError(f"active must have shape {shape[:1]} to match the gramian, found {jnp.shape(active)}")
    gramian = as_floating(gramian)
    # Below the normal numbers, whether a number is 0 depends on the thread.
    gramian = jnp.where(jnp.abs(gramian) < jnp.finfo(gramian.dtype).tiny, 0.0, gramian)
    squares = jnp.diagonal(gramian)
    active = jnp.ones_like(squares, dtype=bool) if active is None else jnp.asarray(active).astype(bool)
    # Not `squares > 0`: a NaN of an active task must come out again, not pass for a zero gradient.
    nonzero = active & ~(squares <= 0)
    norm = jnp.where(nonzero, 2.0 * power_of_two(jnp.sqrt(jnp.where(nonzero, squares, 1.0))), 1.0)
    # One side after the other: the product of two norms may leave the range.
    matrix = gramian / norm[:, None] / norm[None, :]
    return Scaled(jnp.where(nonzero[:, None] & nonzero[None, :], matrix, 0.0), norm, active, nonzero)


def multiply(matrix: Array, vector: Array) -> Array:
    """`matrix @ vector` in full precision on every backend."""
    return jnp.matmul(matrix, vector, precision=lax.Precision.HIGHEST)


def accurate_product(matrix: Array, vector: Array) -> Array:
    """`matrix @ vector` to about `PRODUCT_ERROR` times the sum of |vector|, where plain float32 gives 2^-24 of it.

    Both factors are cut at 8 bits; the product of the leading parts is exact in float32, being a sum of at most 512
    multiples of one number of less than 24 bits altogether.

    Args:
        matrix: float32 `[T, T]`, entries at most 1 in size.
        vector: float32 `[T]`.

    Returns:
        float32 `[T]`. In float64 the plain product, for which nothing need be done.
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
    """`error / length` capped to 1, and 0 where the error is 0 whatever the length."""
    ratio = error / jnp.where(length > 0, length, 1.0)
    ratio = jnp.where(length > 0, jnp.minimum(ratio, 1.0), 1.0)
    return jnp.where(error == 0, 0.0, ratio)
