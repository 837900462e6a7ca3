"""Each pair of tasks is pulled together as strongly as the two are related."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from mtljax import trees
from mtljax.checks import check_nonnegative, check_number
from mtljax.penalties.common import Penalty, check_stacked, mix_rows, offsets, sum_over_leaves
from mtljax.types import Array, PyTree

# Relative differences up to this count as rounding, since relations usually arrive in float32.
_ROUNDING = 1e-6

_Term = Callable[[Array], Array]


def pairwise_l2(relation: np.ndarray | Array, *, strength: Array | float = 1.0) -> Penalty:
    r"""Graph-regularized multi-task learning: related tasks have close parameters.

        value(w) = strength/2 * sum_ij R_ij |w_i - w_j|^2 = strength * sum_{i<j} R_ij |w_i - w_j|^2
                 = strength * tr(W^T Lap W),   Lap = diag(R 1) - R
        prox(v, s) = (I + 2 s strength Lap)^-1 v

    If every pair has relation `1/T` this is `l2_to_mean`. Nothing of size `[T, T, *p]` is ever formed. The relation is
    split into its connected components when the penalty is made. The cost of a component with n tasks and E related
    pairs, per parameter, depends on its kind:

    | component | example | work | storage |
    |---|---|---|---|
    | rank one, `R_ij = a_i a_j` for i != j | all equal; a cluster; `a` = task sizes | `O(n)` | `O(n)` |
    | sparse, `E <= 2 n` | chain, ring, tree, star | `O(E)` | `O(E)` |
    | dense | a matrix of measured similarities | `n^2` multiply-adds, one matrix product | `O(n)` |

    So clusters of equal relation cost `O(T)`, for any number of clusters. A dense matrix has full rank, so its
    quadratic form takes `n^2` multiply-adds in any form; here they are one matrix product `[n - 1, n] x [n, P]`. For
    each kind, the value is a sum of squares: it is never negative, and has none of the cancellation of
    `sum_i d_i |w_i|^2 - tr(W^T R W)`. `prox` applies one `[T, T]` matrix: `T^2` multiply-adds per parameter and `O(T)`
    storage, for any relation.

    The relation must be known when the penalty is made; it cannot be traced. In a sparse component that is not a chain
    in task order, GPUs add the contributions to a row's gradient in no fixed order. So the last bit may vary between
    runs, unless XLA is set to be deterministic.

    Args:
        relation: `[T, T]`, symmetric, non-negative, rows in sorted order of task names. The diagonal is ignored.
        strength: non-negative scalar; may be traced, so that it can be swept.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    Raises:
        ValueError: `relation` is not square, finite, non-negative and symmetric, or is traced.

    References:
        Evgeniou, Micchelli and Pontil, "Learning Multiple Tasks with Kernel Methods", JMLR 6, 2005.

    Example:
        >>> chain = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
        >>> penalty = pairwise_l2(chain)
        >>> float(penalty(jnp.array([[0.0], [1.0], [3.0]])))
        5.0
        >>> penalty.prox(jnp.array([[0.0], [1.0], [2.0]]), 0.5).sum()
        Array(3., dtype=float32)
    """
    check_nonnegative("pairwise_l2", "strength", strength)
    relation = _checked(relation)
    num_tasks = len(relation)
    quadratic_form = _quadratic_form(relation)
    eigenvalues, eigenvectors = np.linalg.eigh(np.diag(relation.sum(1)) - relation)

    def value(stacked: PyTree) -> Array:
        check_stacked("pairwise_l2", stacked, num_tasks)
        return strength * sum_over_leaves(stacked, quadratic_form)

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_stacked("pairwise_l2", stacked, num_tasks)
        check_nonnegative("pairwise_l2", "step_size", step_size)

        def leaf(v: Array) -> Array:
            wide = jnp.asarray(v, trees.accumulator(v.dtype))
            basis = jnp.asarray(eigenvectors, wide.dtype)
            stiffness = 2.0 * step_size * strength * jnp.asarray(np.maximum(eigenvalues, 0.0), wide.dtype)
            # The part that prox removes from v, rather than the rest: a task without relations keeps its value exactly.
            shrink = mix_rows(basis * (stiffness / (1.0 + stiffness))[None, :], basis.T)
            return (wide - mix_rows(shrink, offsets(wide))).astype(v.dtype)

        return jax.tree.map(leaf, stacked)

    return Penalty(value=value, prox=prox)


def _checked(relation: np.ndarray | Array) -> np.ndarray:
    """The relation in float64, exactly symmetric and with a zero diagonal."""
    if isinstance(relation, Tracer):
        raise ValueError("pairwise_l2: relation must be known when the penalty is made, found a traced array")
    relation = np.asarray(check_number("pairwise_l2", "relation", relation, shape=("T", "T")), np.float64)
    if relation.shape[0] != relation.shape[1] or not relation.size:
        raise ValueError(f"pairwise_l2: relation must have shape [T, T], found {relation.shape}")
    relation = relation * (1.0 - np.eye(len(relation)))
    if np.any(relation < 0):
        i, j = np.argwhere(relation < 0)[0]
        raise ValueError(f"pairwise_l2: relation must be non-negative, found {relation[i, j]} at [{i}, {j}]")
    different = np.abs(relation - relation.T) > _ROUNDING * np.maximum(relation, relation.T)
    if np.any(different):
        i, j = np.argwhere(different)[0]
        raise ValueError(
            f"pairwise_l2: relation must be symmetric, found {relation[i, j]} at [{i}, {j}] "
            f"but {relation[j, i]} at [{j}, {i}]"
        )
    return 0.5 * (relation + relation.T)


def _quadratic_form(relation: np.ndarray) -> _Term:
    """The function from a leaf `[T, *p]` to the sum of its components' terms."""
    components = list(_components(relation))
    if not components:
        return lambda w: jnp.zeros((), w.dtype)
    order = np.concatenate(components)
    terms = [_term(relation[np.ix_(rows, rows)]) for rows in components]

    def total(w: Array) -> Array:
        if not np.array_equal(order, np.arange(w.shape[0])):
            # Marked as unique, so that GPUs add the gradient's rows in a fixed order.
            w = w.at[order].get(unique_indices=True, mode="promise_in_bounds")
        # One split, whose gradient is one concatenation; the gradient of one slice per component would pad each to T.
        parts = lax.split(w, [len(rows) for rows in components])
        return sum((term(part) for term, part in zip(terms, parts, strict=True)), start=jnp.zeros((), w.dtype))

    return total


def _term(relation: np.ndarray) -> _Term:
    """The function from the rows of one component to its value, `[n, *p]` -> `[]`, in the cheapest exact form."""
    pairs = np.argwhere(np.triu(relation))
    scale = _rank_one(relation)
    if scale is not None:
        return _rank_one_term(scale)
    if len(pairs) <= 2 * len(relation):
        return _sparse_term(pairs[:, 0], pairs[:, 1], relation[pairs[:, 0], pairs[:, 1]])
    return _dense_term(relation)


def _components(relation: np.ndarray) -> Iterator[np.ndarray]:
    """The sorted rows of each connected component with more than one task."""
    left = np.ones(len(relation), bool)
    while left.any():
        reached = np.zeros_like(left)
        frontier = np.arange(len(left)) == np.flatnonzero(left)[0]
        while frontier.any():
            reached |= frontier
            frontier = (relation[frontier] > 0).any(0) & ~reached
        left &= ~reached
        if reached.sum() > 1:
            yield np.flatnonzero(reached)


def _rank_one(relation: np.ndarray) -> np.ndarray | None:
    """`a` with `R_ij = a_i a_j` off the diagonal, or None if there is no such `a`."""
    others = ~np.eye(len(relation), dtype=bool)
    if np.any(relation[others] == 0):
        return None
    if len(relation) == 2:
        return np.sqrt(relation.sum(0))
    first = np.sqrt(relation[0, 1] / relation[1, 2] * relation[0, 2])
    scale = np.concatenate([[first], relation[0, 1:] / first])
    return scale if np.allclose(np.outer(scale, scale)[others], relation[others], rtol=_ROUNDING, atol=0) else None


def _rank_one_term(scale: np.ndarray) -> _Term:
    """`1/2 sum_ij a_i a_j |w_i - w_j|^2 = A sum_i a_i |w_i - m|^2`, `A = sum a`, `m = sum a_i w_i / A`."""
    total = scale.sum()

    def centered(w: Array) -> Array:
        apart = offsets(w)
        mean = mix_rows(jnp.asarray(scale[None, :] / total, w.dtype), apart)
        return _columns(np.sqrt(total * scale), w) * (apart - mean)

    @jax.custom_jvp
    def term(w: Array) -> Array:
        return jnp.sum(jnp.square(centered(w)))

    # As in `l2_to_mean`: the derivative of the mean drops out, and this rule saves its cost.
    @term.defjvp
    def term_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        apart = centered(primals[0])
        slope = _columns(np.sqrt(total * scale), primals[0]) * tangents[0]
        return jnp.sum(jnp.square(apart)), 2.0 * jnp.sum(apart * slope)

    return term


def _sparse_term(i: np.ndarray, j: np.ndarray, weights: np.ndarray) -> _Term:
    """`sum_e R_e |w_i(e) - w_j(e)|^2` over the related pairs."""
    return lambda w: jnp.sum(jnp.square(_columns(np.sqrt(weights), w) * (_take(w, i) - _take(w, j))))


def _dense_term(relation: np.ndarray) -> _Term:
    """`|F W|^2` with `F^T F` the Laplacian."""
    eigenvalues, eigenvectors = np.linalg.eigh(np.diag(relation.sum(1)) - relation)
    factor = (eigenvectors * np.sqrt(np.maximum(eigenvalues, 0.0))).T[1:]
    return lambda w: jnp.sum(jnp.square(mix_rows(jnp.asarray(factor, w.dtype), offsets(w))))


def _take(w: Array, rows: np.ndarray) -> Array:
    """Rows of `[T, *p]`, by a slice if they are consecutive, since the gradient of a gather is a slow scatter."""
    if np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return lax.slice_in_dim(w, int(rows[0]), int(rows[0]) + len(rows))
    return w[rows]


def _columns(scale: np.ndarray, w: Array) -> Array:
    """`[n]` -> `[n, 1, ...]`, to multiply the rows of `w` `[n, *p]`."""
    return jnp.asarray(scale.reshape((-1,) + (1,) * (w.ndim - 1)), w.dtype)
