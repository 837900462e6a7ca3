"""Closed forms in the eigenvectors of the Gramian: equal projections (IMTL-G, ConFIG) and alignment (Aligned-MTL).

An eigenvalue counts as zero relative to the largest eigenvalue, never below an absolute number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax.solvers.scaling import (
    Solution,
    accurate_product,
    as_floating,
    finer,
    multiply,
    power_of_two,
    relative,
    scale,
    solution,
)
from mtljax.types import Array

# The tolerances hold for float32; `finer` turns them into those for float64.
# An eigenvalue v'Mv of unit gradients is uncertain by this share of (sum_k |v_k|)^2: twice the rounding of M, 2^-24.
RANK_TOLERANCE = 2.0**-23
REFINEMENTS = 2
# The error of a direction by the rounding of its weights, relative to the sum of |w_k g_k|.
WEIGHT_ROUNDING = 2.0**-21
# The error of the eigenvalues by the rounding of the Gramian and of the vectors, relative to the largest eigenvalue.
ROUNDING = 2.0**-24
# Gains below this share of the largest target are rounding: unit gradients that cancel leave the root of 2^-24.
CANCELLED = 2.0**-12


class Projections(NamedTuple):
    """A direction with prescribed projections on the task gradients, `u = sum_k amounts_k g_k / |g_k|`.

    Attributes:
        amounts: float32 `[T]`, the weights of the unit gradients; 0 for tasks that take no part.
        gains: float32 `[T]`, `<g_i, u> / |g_i|`, the projections attained; 0 for tasks that take no part.
        length: float32 `[]`, `|u|`.
        norms: float32 `[T]`, `|g_i|`; 1 for tasks that take no part.
        takes_part: bool `[T]`, the active tasks with a gradient.
        errors: float32 `[T, T]`. The Gramian's rounding gives `x'amounts` an error of about `|errors x|`.
        residual: float32 `[]` in [0, 1], the larger of two numbers. The first is the largest `|gains_i - targets_i|`
            over the largest `|targets_i|`; it is 0 to rounding where the task gradients are linearly independent. The
            second estimates the relative error of u that the Gramian's rounding causes.
    """

    amounts: Array
    gains: Array
    length: Array
    norms: Array
    takes_part: Array
    errors: Array
    residual: Array


def _squares(product: Callable[[Array], Array], vectors: Array) -> Array:
    """`v'Mv` of each column v, to the precision of M. The error of `eigh`'s eigenvalues is 2^-24 of the largest one."""
    return jnp.sum(vectors * jax.vmap(product, 1, 1)(vectors), axis=0)


def projections(gramian: Array, targets: ArrayLike | None = None, *, active: Array | None = None) -> Projections:
    """The shortest direction u with `<g_i, u> / |g_i| = targets_i` for all tasks, in the least-squares sense.

    With U the task gradients divided by their lengths, `u = U^+ targets = U' (UU')^+ targets`. `UU'` is the Gramian
    divided by the lengths on both sides, so the function needs no gradient.

    Args:
        gramian: floating point `[T, T]`, `G_ij = <g_i, g_j>`, of any scale that float32 holds; in float64 it is solved
            in float64.
        targets: floating point `[T]`; None for 1 each. The targets of tasks that take no part are not read.
        active: bool `[T]`, the tasks that take part; None for all. The others are not read. A task without gradient
            has no direction and takes no part either.

    Returns:
        `Projections`, constants under differentiation. An eigenvalue of `UU'` with the unit eigenvector v counts as
        zero up to `2^-23 (sum_k |v_k|)^2`, the size of the Gramian's rounding. Where no gain exceeds 2^-12 of the
        largest target, as for opposed tasks, u is 0 and the residual is 1.

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> found = projections(jnp.array([[4.0, 0.0], [0.0, 1.0]]))
        >>> found.amounts.round(3).tolist(), found.gains.round(3).tolist()
        ([1.0, 1.0], [1.0, 1.0])
    """
    matrix, norm, _, takes_part = scale(gramian, active)
    targets = jnp.ones_like(norm) if targets is None else as_floating(targets)
    if targets.shape != norm.shape:
        raise ValueError(f"targets must have shape {norm.shape} to match the gramian, found {targets.shape}")
    targets = jnp.where(takes_part, targets, 0.0)
    own = jnp.sqrt(jnp.where(takes_part, jnp.diagonal(matrix), 1.0))
    _, vectors = jnp.linalg.eigh(matrix / own[:, None] / own[None, :])

    def product(amounts: Array) -> Array:
        # The product uses the Gramian that was given: division of its entries by `own` would round them.
        return jnp.where(takes_part, accurate_product(matrix, amounts / own) / own, 0.0)

    values = _squares(product, vectors)
    tolerance = finer(RANK_TOLERANCE, matrix)
    least = tolerance * jnp.square(jnp.sum(jnp.abs(vectors), axis=0))
    kept = values > least
    inverse = jnp.where(kept, 1.0 / jnp.where(kept, values, 1.0), 0.0)

    amounts = jnp.zeros_like(targets)
    for step in range(1 + REFINEMENTS):
        missing = targets - product(amounts) if step else targets
        change = multiply(vectors, inverse * multiply(vectors.T, missing))
        amounts = amounts + jnp.where(takes_part, change, 0.0)
    gains = product(amounts)
    largest = jnp.max(jnp.abs(targets))
    certain = jnp.max(jnp.abs(gains)) > finer(CANCELLED, matrix, square=True) * largest
    amounts, gains = jnp.where(certain, amounts, 0.0), jnp.where(certain, gains, 0.0)
    off = jnp.max(jnp.abs(gains - targets)) / jnp.where(largest > 0, largest, 1.0)
    length = jnp.sqrt(jnp.maximum(jnp.sum(amounts * gains), 0.0))

    # A change E of UU' changes amounts by `-(UU')^+ E amounts` and by `(I - UU'(UU')^+) E (UU')^+ amounts`. The second
    # does not change u. The entries of E are below the tolerance and have any sign, so their effects add up in squares.
    size = jnp.linalg.norm(amounts)
    turned = jnp.linalg.norm(inverse * multiply(vectors.T, amounts))
    errors = multiply(vectors, tolerance * jnp.where(kept, size * inverse, turned)[:, None] * vectors.T)
    error = tolerance * size * jnp.sqrt(jnp.sum(inverse))
    error = error + WEIGHT_ROUNDING * jnp.sum(jnp.abs(amounts))
    # An eigenvector that counts as zero may still belong to u: it does if the targets along it exceed rounding. Its
    # part of u is then the larger, the smaller its eigenvalue is, and nothing of u is certain.
    hidden = jnp.any(~kept & (jnp.abs(multiply(vectors.T, targets - gains)) > 2.0 * tolerance * (size + largest)))
    return Projections(
        amounts=amounts,
        gains=gains,
        length=length,
        norms=jnp.where(takes_part, norm * own, 1.0),
        takes_part=takes_part,
        errors=errors,
        residual=jnp.where(hidden, 1.0, jnp.minimum(jnp.maximum(off, relative(error, length)), 1.0)),
    )


def smallest(values: Array, kept: Array) -> Array:
    """The smallest eigenvalue kept, which is the scale in the paper of Aligned-MTL.

    Args:
        values: float32 `[T]`, ascending.
        kept: bool `[T]`, whether an eigenvalue is not zero; True in a run at the end.

    Returns:
        float32 `[]`.

    Example:
        >>> smallest(jnp.array([0.0, 1.0, 2.0, 4.0]), jnp.array([False, True, True, True])).item()
        1.0
    """
    return values[jnp.argmax(kept)]


def median(values: Array, kept: Array) -> Array:
    """The median of the eigenvalues kept, or the lower one of two medians. Arguments are as in `smallest`.

    Example:
        >>> median(jnp.array([0.0, 1.0, 2.0, 4.0]), jnp.array([False, True, True, True])).item()
        2.0
    """
    return values[jnp.argmax(kept) + (jnp.sum(kept) - 1) // 2]


def mean(values: Array, kept: Array) -> Array:
    """The mean of the eigenvalues kept, "rmse" in the authors' code. Arguments are as in `smallest`.

    Example:
        >>> mean(jnp.array([0.0, 1.0, 1.0, 4.0]), jnp.array([False, True, True, True])).item()
        2.0
    """
    return jnp.sum(jnp.where(kept, values, 0.0)) / jnp.maximum(jnp.sum(kept), 1)


def alignment(
    gramian: Array,
    weights: ArrayLike,
    *,
    level: Callable[[Array, Array], Array] = smallest,
    active: Array | None = None,
) -> Solution:
    """Weights of a combination of task gradients after their principal components got one size (Aligned-MTL).

    With `G = V diag(lambda) V'` restricted to its non-zero eigenvalues, the weights returned are
    `sqrt(level(lambda)) V diag(lambda)^(-1/2) V' weights`.

    Args:
        gramian: floating point `[T, T]`, `G_ij = <g_i, g_j>`, of any scale that float32 holds; in float64 it is solved
            in float64.
        weights: floating point `[T]`, the weights of the combination before alignment.
        level: the size: `smallest`, `median`, `mean`, or any function `(values, kept)` of the eigenvalues (`[T]`,
            ascending, in a unit of the solver's choice) and of the mask `[T]` of those that are not zero.
        active: bool `[T]`, the tasks that take part; None for all. The others get weight 0 and are not read.

    Returns:
        `Solution` with weights float32 `[T]`, constants under differentiation. Eigenvalues up to `T 2^-23` of the
        largest count as zero, as in the authors' code; T is the number of active tasks. A zero Gramian leaves the
        weights as they are. `residual` estimates the relative error of the direction that the Gramian's rounding
        causes. It is 1 where rounding may decide whether an eigenvalue counts as zero.

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> alignment(jnp.array([[4.0, 0.0], [0.0, 1.0]]), jnp.ones(2)).weights.tolist()
        [0.5, 1.0]
    """
    _, norm, active, nonzero = scale(gramian, active)
    weights = as_floating(weights).astype(norm.dtype)
    if weights.shape != norm.shape:
        raise ValueError(f"weights must have shape {norm.shape} to match the gramian, found {weights.shape}")
    weights = jnp.where(active, weights, 0.0)
    # Alignment depends on the tasks' relative sizes, so all tasks are divided by one power of two. `norm` exceeds the
    # tasks' norms, so entries are at most 1.
    unit = power_of_two(jnp.max(jnp.where(nonzero, norm, 0.0)))
    whole = nonzero[:, None] & nonzero[None, :]
    matrix = jnp.where(whole, as_floating(gramian), 0.0) / unit / unit
    _, vectors = jnp.linalg.eigh(matrix)
    values = _squares(partial(accurate_product, matrix), vectors)
    cut = 2.0**-23 * jnp.sum(active) * values[-1]
    kept = values > cut
    root = jnp.sqrt(jnp.where(kept, values, 1.0))
    stretch = jnp.where(kept, jnp.sqrt(level(values, kept)) / root, 0.0)
    parts = multiply(vectors.T, weights)
    aligned = jnp.where(nonzero, multiply(vectors, stretch * parts), 0.0)
    found = jnp.any(kept)
    residual = _alignment_error(matrix, vectors, values, parts, cut)
    return solution(jnp.where(found, aligned, weights), jnp.where(found, residual, 0.0))


def _alignment_error(matrix: Array, vectors: Array, values: Array, parts: Array, cut: Array) -> Array:
    """The relative error of the aligned direction, with the length of each of its components taken as 1."""
    kept = values > cut
    root = jnp.sqrt(jnp.where(kept, values, 1.0))
    largest = jnp.max(jnp.abs(parts))
    parts = parts / jnp.where(largest > 0, largest, 1.0)
    # A change E of the Gramian, in the basis of its eigenvectors, changes the k-th component of the direction by
    # `sum_l E_kl parts_l / (root_l (root_k + root_l))` where both are kept, and by `E_kl parts_l / values_k` where the
    # l-th is not kept. It changes the smallest eigenvalue by an entry of E. The entries of E have any sign, so their
    # effects add up in squares.
    noise = finer(ROUNDING, matrix) * values[-1]
    between = jnp.where(kept[None, :], root[None, :] * (root[:, None] + root[None, :]), values[:, None])
    turned = jnp.where(kept[:, None], parts[None, :] / jnp.where(kept[:, None], between, 1.0), 0.0)
    length = jnp.linalg.norm(jnp.where(kept, parts, 0.0))
    error = noise * (jnp.linalg.norm(turned) + 0.5 * length / jnp.min(jnp.where(kept, values, jnp.inf)))
    # Weights are sums of terms that may cancel.
    terms = multiply(jnp.abs(vectors), jnp.where(kept, jnp.abs(parts) / root, 0.0))
    error = error + WEIGHT_ROUNDING * jnp.sum(terms * jnp.sqrt(jnp.diagonal(matrix)))
    uncertain = jnp.any(jnp.abs(values - cut) < 2.0 * noise)
    return jnp.where(uncertain, 1.0, relative(error, length))
