"""The tasks' predictors lie close to a subspace of given dimension, which is not known."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from mtljax.penalties.clustered import subspace
from mtljax.penalties.common import Penalty
from mtljax.types import Array, PyTree


def alternating_structure(dim: int, strength: Array | float = 1.0, *, eta: Array | float = 1.0) -> Penalty:
    r"""Alternating structure optimisation, relaxed to a convex penalty.

        value(w) = strength * eta (1 + eta) * min over M of tr(W (eta I + M)^-1 W^T)
                   subject to  M [P, P] symmetric,  0 <= M <= I,  tr M = h

    with `W` `[T, P]` all leaves side by side, so for a linear model the features are its kernel and bias. M stands for
    `Theta^T Theta`, the projection on the h dimensions that all tasks share; where it is one, this is
    `strength * (eta |W|^2 + |W - W M|^2)`: what a task has outside of them costs `strength`, and all of it the ridge
    `strength * eta`. Nothing is divided by T or by the number of parameters.

    On the singular values of W this is the same function as `clustered` with k = h, which has the solution, the prox
    and the gradient: a singular value is one of W's on either side. What differs is the meaning of M, which is never
    formed, and the largest dimension that makes sense: M has P eigenvalues here and T there. From `h = T` on there is a
    dimension for each task, and the penalty is the ridge `strength * eta * |W|^2`.

    Ando and Zhang, "A Framework for Learning Predictive Structures from Multiple Tasks and Unlabeled Data", JMLR 6,
    2005; convex: Chen, Tang, Liu and Ye, "A Convex Formulation for Learning Shared Structures from Multiple Tasks",
    ICML 2009; as clustering: Zhou, Chen and Ye, "Clustered Multi-Task Learning Via Alternating Structure Optimization",
    NeurIPS 2011. They minimise over M in turns with the weights; here it is solved out.

    Args:
        dim: h, from 1 to P, the number of parameters a task has.
        strength: non-negative scalar, alpha in the paper; may be traced, so that it can be swept.
        eta: positive scalar, `beta / alpha` in the paper; may be traced.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    Raises:
        ValueError: `strength` (or the `step_size` of `prox`) is negative or no scalar; eta is not positive; h is below
            1, or larger than P; leaves without one common leading task axis.
        TypeError: h is no integer; a leaf that is not of a floating-point type.
        NotImplementedError: second derivatives are taken.

    Example:
        >>> w = {"kernel": jnp.array([[1.0, 0.0], [2.0, 0.0]]), "bias": jnp.array([2.0, 4.0])}
        >>> penalty = alternating_structure(1, eta=0.5)
        >>> round(float(jax.jit(penalty.value)(w)), 4)  # one direction: 0.5 |W|^2
        12.5
    """
    return subspace("alternating_structure", "dim", dim, strength, eta, _num_parameters)


def _num_parameters(stacked: PyTree) -> int:
    return sum(math.prod(jnp.shape(leaf)[1:]) for leaf in jax.tree.leaves(stacked))
