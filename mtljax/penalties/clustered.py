"""Clustered tasks: the tasks fall into a given number of clusters, which are learned with the parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.checks import check_count, check_nonnegative, check_number
from mtljax.penalties.common import Penalty, check_stacked
from mtljax.penalties.singular_values import rescale, singular_values
from mtljax.types import Array, PyTree


def clustered(num_clusters: int, strength: Array | float = 1.0, *, eta: Array | float = 1.0) -> Penalty:
    r"""Clustered multi-task learning, relaxed to a convex penalty.

        value(w) = strength * eta (1 + eta) * min over M of tr(W^T (eta I + M)^-1 W)
                   subject to  M [T, T] symmetric,  0 <= M <= I,  tr M = k

    `W` `[T, P]` is all leaves side by side, so a task is in the same cluster for all leaves. If M is a projection on k
    directions, the value is `strength * ((1 + eta) |W|^2 - |M W|^2)`. This is k-means on the rows of W plus a ridge of
    `strength * eta`: if M averages over clusters, the sum of squares within clusters is `|W|^2 - |M W|^2`. As eta
    grows, the best M tends to a projection; the ridge, which grows with it, makes the penalty convex. For small eta the
    penalty is near `strength * eta / k * |W|_*^2`, as long as no `sigma_i` is above 1/k of their sum. Nothing is
    divided by T or by the number of parameters.

    The best M has the left singular vectors of W and the eigenvalues

        m_i = min(max(sigma_i / u - eta, 0), 1),   u such that sum_i m_i = k,

    which are found exactly, from the points where an `m_i` leaves 0 or reaches 1. With them,

        value = strength * eta (1 + eta) * sum_i sigma_i^2 / (eta + m_i)
        prox(v, s) = U diag(sigma_i (eta + m_i) / (eta + m_i + c)) V^T,   c = 2 s strength eta (1 + eta)

    where the `m_i` of the prox are those for `eta + c` in place of eta: after the minimum over the new singular values,
    `1/2 c sum_i sigma_i^2 / (eta + c + m_i)` is left, which is the same problem. The gradient takes M as constant, by
    the envelope theorem; there are no second derivatives. If k is at least the rank of W, all `m_i` are 1, and the
    penalty is the ridge `strength * eta * |W|^2`.

    Args:
        num_clusters: k, from 1 to T.
        strength: non-negative scalar, rho_1; may be traced, so that it can be swept.
        eta: positive scalar, rho_2 / rho_1; may be traced.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    Raises:
        ValueError: k is larger than T.
        NotImplementedError: second derivatives are taken.

    References:
        Zhou, Chen and Ye, "Clustered Multi-Task Learning Via Alternating Structure Optimization", NeurIPS 2011, with
        `rho_1 = strength` and `eta = rho_2 / rho_1`. They prove that the value equals that of `alternating_structure`
        with k dimensions. Departures: in the paper the tasks are the columns of W, here its rows. The paper minimises
        over M by gradient steps, with the weights; here the minimum has a closed form.
        Jacob, Bach and Vert, "Clustered Multi-Task Learning: A Convex Formulation", NeurIPS 2008. Departures: the paper
        has one term for the mean of all tasks and one for the distance of the clusters from it; here there are none.

    Example:
        >>> apart = jnp.array([[3.0, 0.0], [0.0, 1.0]])
        >>> one, two = jax.jit(lambda w: (clustered(1)(w), clustered(2)(w)))(apart)
        >>> round(float(one), 4), round(float(two), 4)  # two clusters of one task each: the ridge alone
        (11.0, 10.0)
    """
    return subspace("clustered", "num_clusters", num_clusters, strength, eta, trees.num_rows)


def subspace(
    name: str,
    argument: str,
    dim: int,
    strength: Array | float,
    eta: Array | float,
    limit: Callable[[PyTree], int],
) -> Penalty:
    """`strength * eta (1 + eta) * min_M sum_i sigma_i^2 / (eta + m_i)`, `sum m = dim`, `0 <= m <= 1`, with its prox.

    Args:
        name: the penalty's name; messages start with it.
        argument: the name of the argument that is `dim`.
        dim: trace of M.
        strength: see `clustered`.
        eta: see `clustered`.
        limit: function from a tree to the order of M, which the trace of M cannot exceed.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    Example:
        >>> ridge = subspace("ridge", "dim", 2, 2.0, 0.5, trees.num_rows)
        >>> round(float(jax.jit(ridge.value)(jnp.eye(2))), 4)
        2.0
    """
    check_count(name, argument, dim)
    check_nonnegative(name, "strength", strength)
    check_number(name, "eta", eta, above=0)

    def check(stacked: PyTree) -> bool:
        check_stacked(name, stacked)
        if not jax.tree.leaves(stacked):
            return False
        if dim > limit(stacked):
            raise ValueError(f"{name}: {argument} must be at most {limit(stacked)}, found {dim}")
        return True

    def value(stacked: PyTree) -> Array:
        if not check(stacked):
            return strength * jnp.zeros((), jnp.float32)
        values = singular_values(stacked)
        return strength * _energy(values, jnp.asarray(eta, values.dtype), dim)

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_nonnegative(name, "step_size", step_size)
        if not check(stacked):
            return stacked
        stiffness = 2.0 * step_size * strength * eta * (1.0 + eta)

        def factors(values: Array) -> Callable[[Array], Array]:
            level = _level(values, jnp.asarray(eta + stiffness, values.dtype), dim)

            def factor(x: Array) -> Array:
                members = eta + _membership(x, level, eta + stiffness)
                return members / (members + stiffness)

            return factor

        return rescale(stacked, factors)

    return Penalty(value=value, prox=prox)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _energy(values: Array, eta: Array, dim: int) -> Array:
    members = _membership(values, _level(values, eta, dim), eta)
    return eta * (1.0 + eta) * jnp.sum(jnp.square(values) / (eta + members))


@_energy.defjvp
def _energy_jvp(dim: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """The envelope theorem: the derivative of the minimum is that with the best eigenvalues held constant."""
    values, eta = primals
    members = _membership(values, _level(values, eta, dim), eta)
    slope = 2.0 * eta * (1.0 + eta) * values / (eta + members)
    # d/d eta of eta (1 + eta) / (eta + m)
    of_eta = (jnp.square(eta) + members * (1.0 + 2.0 * eta)) / jnp.square(eta + members)
    return _energy(values, eta, dim), jnp.sum(slope * tangents[0]) + jnp.sum(jnp.square(values) * of_eta) * tangents[1]


def _membership(x: Array, level: Array, eta: Array | float) -> Array:
    """`m = min(max(x / level - eta, 0), 1)`; 1 at level 0."""
    there = level > 0
    return jnp.where(there, jnp.clip(x / jnp.where(there, level, 1.0) - eta, 0.0, 1.0), 1.0)


def _level(values: Array, eta: Array, dim: int) -> Array:
    """`u` with `sum_i m_i(u) = dim`, `[]`; 0 if fewer than `dim` of the values `[T]` are positive.

    The sum falls with u. Entry i is 1 up to `u = sigma_i / (1 + eta)`, and 0 from `sigma_i / eta` on. The lowest of
    these edges at which the sum is at most `dim` tells which entries are 1 and which lie between 0 and 1 just below it.
    """
    low, high = values / (1.0 + eta), values / eta
    edges = lax.stop_gradient(jnp.concatenate([low, high]))
    sums = jnp.sum(_membership(values[None, :], edges[:, None], eta), 1)
    edge = jnp.min(jnp.where((edges > 0) & (sums <= dim), edges, jnp.inf))
    between = (low < edge) & (edge <= high)
    left = dim - jnp.sum(edge <= low)
    denominator = left + eta * jnp.sum(between)
    inside = jnp.sum(jnp.where(between, values, 0.0)) / jnp.where(jnp.any(between), denominator, 1.0)
    return jnp.where(jnp.any(between), inside, jnp.where(left > 0, 0.0, edge))
