"""Feature learning and relation learning: a closed form of a shared matrix alternates with least squares of weights."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from mtljax.checks import check_flag, check_nonnegative, check_number
from mtljax.convex.alternating.loop import Alternation, alternate, regression
from mtljax.convex.alternating.steps import Regression, decomposed, shares
from mtljax.convex.products import product
from mtljax.types import Array


class Learned(NamedTuple):
    """The result of an alternation.

    Attributes:
        weights: `[T, p]`, row t the weights of task t.
        intercepts: `[T]`; 0 without intercepts.
        matrix: D `[p, p]` of feature learning, Omega `[T, T]` of relation learning; symmetric, positive semi-definite,
            of trace 1.
        objective: `[]`, of the problem without perturbation.
        gap: `[]`, the certificate, a duality gap: the objective is at most this much above its minimum, except for
            rounding.
        perturbation: `[]`, the e of the last round.
        steps: int32 `[]`, number of rounds.
        converged: bool `[]`, whether `gap` is at most `tolerance` times `objective`.
    """

    weights: Array
    intercepts: Array
    matrix: Array
    objective: Array
    gap: Array
    perturbation: Array
    steps: Array
    converged: Array


def feature_learning(
    inputs: Array,
    targets: Array,
    mask: Array | None = None,
    *,
    gamma: ArrayLike,
    intercept: bool = False,
    max_steps: ArrayLike = 1000,
    tolerance: ArrayLike | None = None,
) -> Learned:
    r"""Convex multi-task feature learning: tasks share few directions of the inputs, which are learned.

        min over W, D of  sum_t sum_i (y_ti - <w_t, x_ti>)^2 + gamma sum_t <w_t, D^+ w_t>
            with D positive semi-definite, tr D <= 1, every w_t in the range of D
        D   <- (W^T W + e^2 I)^1/2 / tr(same),   W `[T, p]` with rows w_t
        w_t <- D^1/2 (D^1/2 X_t^T X_t D^1/2 + gamma I)^-1 D^1/2 X_t^T y_t

    The problem is jointly convex, and each step has a closed form. With the best D the second term is `gamma |W|_*^2`,
    the squared trace norm, which prefers W of low rank. D is never inverted.

    Args:
        inputs: `[T, N, p]`, floating; or `[1, N, p]` if all tasks have the same inputs.
        targets: `[T, N]`, floating.
        mask: bool `[T, N]` or `[1, N]`, False for rows that pad a task to N rows; None if there are none. Masked rows
            are never read and may be NaN.
        gamma: positive. May be traced.
        intercept: whether each task has an intercept, which is not penalised; default False, as in the paper.
        max_steps: largest number of rounds, at least 1; default 1000. May be traced.
        tolerance: of the gap, relative to the objective; default 1e-5 in float32, 1e-8 in float64.

    Returns:
        `Learned` in float32, or float64 if the data are, with D as `matrix`. With k = min(T, p) a round takes
        `O(T (p^2 k + k^3 + N p))` time and some tens of products of `O(T p^2)`; memory is `O(T N p + T p^2)`. The loop
        is a `lax.while_loop`, so there is no reverse-mode derivative.

    Raises:
        ValueError: shapes do not match; gamma is known and not positive.
        TypeError: inputs or targets are not floating, or the mask is not bool.

    References:
        Argyriou, Evgeniou and Pontil, "Convex Multi-Task Feature Learning", Machine Learning 73, 2008. Departures: the
        paper takes these two steps alone, with a fixed e. A round then moves the shared directions in proportion to e:
        a small e takes some 1/e rounds, and a large e solves another problem. Here a round first takes the step of
        `relation_learning`, which bounds the same trace norm by Omega in place of D, and e shrinks with the gap, so
        that the limit is the optimum of the unperturbed problem. The objective with the round's e never rises. The loop
        ends when the duality gap is small; that of the paper ends when W changes little.

    Example:
        >>> import jax
        >>> x = jnp.eye(2)[None]
        >>> found = jax.jit(feature_learning)(x, jnp.array([[4.0, 0.0], [8.0, 0.0]]), gamma=1.0)
        >>> found.weights.round(1).tolist(), found.matrix.round(1).tolist()  # the tasks share one feature
        ([[2.0, 0.0], [4.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]])
    """
    check_number("feature_learning", "gamma", gamma, above=0)
    _check_options("feature_learning", intercept, max_steps, tolerance)
    data = regression("feature_learning", inputs, targets, mask, intercept=intercept, mean=False)
    last, converged = alternate(data, 0.0, gamma, max_steps=max_steps, tolerance=tolerance)
    return _learned(data, last, converged, decomposed(last.weights).right)


def relation_learning(
    inputs: Array,
    targets: Array,
    mask: Array | None = None,
    *,
    lambda1: ArrayLike,
    lambda2: ArrayLike,
    intercept: bool = True,
    max_steps: ArrayLike = 1000,
    tolerance: ArrayLike | None = None,
) -> Learned:
    r"""Multi-task relation learning: a covariance between tasks, which is learned, pulls them together or apart.

        min over W, b, Omega of  sum_t 1/n_t sum_i (y_ti - <w_t, x_ti> - b_t)^2
                                 + lambda1/2 |W|_F^2 + lambda2/2 sum_st (Omega^-1)_st <w_s, w_t>
            with Omega positive semi-definite, tr Omega = 1
        Omega <- (W W^T + e^2 I)^1/2 / tr(same),   W `[T, p]` with rows w_t
        W, b  <- the minimiser for that Omega, by least squares that couple all tasks

    `Omega_st / sqrt(Omega_ss Omega_tt)` is the learned correlation of two tasks, which may be negative. With the best
    Omega the last term is `lambda2/2 |W|_*^2`. The coupled step uses conjugate gradients on `Omega^-1/2 W`, which start
    from the W of the round before; Omega is never inverted.

    Args:
        inputs: `[T, N, p]`, floating; or `[1, N, p]` if all tasks have the same inputs.
        targets: `[T, N]`, floating.
        mask: bool `[T, N]` or `[1, N]`, False for rows that pad a task to N rows; None if there are none. Masked rows
            are never read and may be NaN.
        lambda1: at least 0. May be traced.
        lambda2: positive. May be traced.
        intercept: whether each task has an intercept, which is not penalised; default True, as in the paper.
        max_steps: largest number of rounds, at least 1; default 1000. May be traced.
        tolerance: of the gap, relative to the objective; default 1e-5 in float32, 1e-8 in float64.

    Returns:
        `Learned` in float32, or float64 if the data are, with Omega as `matrix`. Time and memory are those of
        `feature_learning`.

    Raises:
        ValueError: shapes do not match; a strength is known and out of range.
        TypeError: inputs or targets are not floating, or the mask is not bool.

    References:
        Zhang and Yeung, "A Convex Formulation for Learning Task Relationships in Multi-Task Learning", UAI 2010.
        Departures: a round also takes the step of `feature_learning`, the paper has no e, and the loop ends when the
        duality gap is small. The paper solves the coupled step exactly; here the residual falls a hundredfold per
        round.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> x = jnp.eye(2)[None]
        >>> y = jnp.array([[4.0, 0.0], [-8.0, 0.0]])
        >>> learn = jax.jit(relation_learning, static_argnames="intercept")
        >>> found = learn(x, y, lambda1=0.0, lambda2=1.0, intercept=False)
        >>> found.weights.round(1).tolist()
        [[2.0, 0.0], [-4.0, 0.0]]
        >>> np.asarray(found.matrix, float).round(1).tolist()  # a correlation of -1
        [[0.2, -0.4], [-0.4, 0.8]]
    """
    check_nonnegative("relation_learning", "lambda1", lambda1)
    check_number("relation_learning", "lambda2", lambda2, above=0)
    _check_options("relation_learning", intercept, max_steps, tolerance)
    data = regression("relation_learning", inputs, targets, mask, intercept=intercept, mean=True)
    half = jnp.asarray(0.5, data.gram.dtype)
    last, converged = alternate(data, half * lambda1, half * lambda2, max_steps=max_steps, tolerance=tolerance)
    return _learned(data, last, converged, decomposed(last.weights).left.T)


def _learned(data: Regression, last: Alternation, converged: Array, vectors: Array) -> Learned:
    share = shares(last.values, jnp.zeros_like(last.gap))
    return Learned(
        weights=last.weights,
        intercepts=data.target_means - jnp.sum(data.input_means * last.weights, axis=1),
        matrix=product("ki,kj->ij", share[:, None] * vectors, vectors),
        objective=last.objective,
        gap=last.gap,
        perturbation=last.perturbation,
        steps=last.steps,
        converged=converged,
    )


def _check_options(name: str, intercept: bool, max_steps: ArrayLike, tolerance: ArrayLike | None) -> None:
    check_flag(name, "intercept", intercept)
    check_number(name, "max_steps", max_steps, least=1)
    if tolerance is not None:
        check_number(name, "tolerance", tolerance, above=0)
