"""Alternating structure optimization: the tasks' predictors lie close to a subspace of given dimension."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from mtljax.penalties.clustered import subspace
from mtljax.penalties.common import Penalty
from mtljax.types import Array, PyTree


def alternating_structure(dim: int, strength: Array | float = 1.0, *, eta: Array | float = 1.0) -> Penalty:
    r"""Alternating structure optimization, relaxed to a convex penalty.

        value(w) = strength * eta (1 + eta) * min over M of tr(W (eta I + M)^-1 W^T)
                   subject to  M [P, P] symmetric,  0 <= M <= I,  tr M = h

    `W` `[T, P]` is all leaves side by side. M stands for `Theta^T Theta`, the projection on the h dimensions that all
    tasks share. If M is a projection, the value is `strength * (eta |W|^2 + |W - W M|^2)`: the part of a task outside
    the shared dimensions costs `strength`, and all of it costs the ridge `strength * eta`. Nothing is divided by T or
    by the number of parameters.

    As a function of the singular values of W, this is the same penalty as `clustered` with k = h; see there for the
    solution, the prox and the gradient. The meaning of M differs, and M is never formed. The largest dimension that
    makes sense also differs: M has P eigenvalues here and T in `clustered`. From `h = T` on, each task has its own
    dimension, and the penalty is the ridge `strength * eta * |W|^2`.

    Args:
        dim: h, from 1 to P, the number of parameters per task.
        strength: non-negative scalar, alpha in the paper; may be traced, so that it can be swept.
        eta: positive scalar, `beta / alpha` in the paper; may be traced.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    Raises:
        ValueError: h is larger than P.
        NotImplementedError: second derivatives are taken.

    References:
        Ando and Zhang, "A Framework for Learning Predictive Structures from Multiple Tasks and Unlabeled Data", JMLR 6,
        2005.
        Chen, Tang, Liu and Ye, "A Convex Formulation for Learning Shared Structures from Multiple Tasks", ICML 2009,
        for the convex form. Departures: the papers alternate between M and the weights; here the minimum over M has a
        closed form.
        Zhou, Chen and Ye, "Clustered Multi-Task Learning Via Alternating Structure Optimization", NeurIPS 2011, for the
        equality with clustering.

    Example:
        >>> w = {"kernel": jnp.array([[1.0, 0.0], [2.0, 0.0]]), "bias": jnp.array([2.0, 4.0])}
        >>> penalty = alternating_structure(1, eta=0.5)
        >>> round(float(jax.jit(penalty.value)(w)), 4)  # one direction: 0.5 |W|^2
        12.5
    """
    return subspace("alternating_structure", "dim", dim, strength, eta, _num_parameters)


def _num_parameters(stacked: PyTree) -> int:
    return sum(math.prod(jnp.shape(leaf)[1:]) for leaf in jax.tree.leaves(stacked))
