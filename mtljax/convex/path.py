"""A grid of strengths: the fits at all strengths, and cross-validation to choose one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.typing import ArrayLike

from mtljax.checks import check_callable, check_count, check_key, check_number, expect
from mtljax.convex.fit import Fit, Problem, check_problem, fit_prepared, prepare
from mtljax.convex.linear import predict
from mtljax.convex.losses import Loss, squared
from mtljax.convex.problem import TaskRows
from mtljax.convex.splits import fold_numbers
from mtljax.convex.splitting import parts_of
from mtljax.penalties.common import Penalty
from mtljax.types import Array, Key, PyTree

MakePenalty = Callable[[PyTree], Penalty]
Score = Callable[[Array, TaskRows], Array]


class CrossValidation(NamedTuple):
    """The result of cross-validation.

    Attributes:
        scores: `[K, S]`, one per fold and strength; larger is better.
        mean: `[S]`, over folds.
        index: int32 `[]`, the index of the strength with the best mean, the first one of equals.
        strength: that strength.
        fit: the fit to all rows at that strength.
    """

    scores: Array
    mean: Array
    index: Array
    strength: PyTree
    fit: Fit


def fit_path(
    rows: TaskRows,
    make_penalty: MakePenalty,
    strengths: PyTree,
    *,
    loss: Loss = squared,
    intercept: bool = False,
    average: bool = False,
    tolerance: ArrayLike | None = None,
    max_iterations: int = 5000,
) -> Fit:
    """Fit all strengths of a grid, each fit starting from the one before; all fits share what depends on the rows.

    Decreasing strengths make the best starts; any other order works too. To fit the whole grid at once, use
    `jax.vmap(lambda s: fit(rows, make_penalty(s)))(strengths)`. On School (CPU, 8 strengths, trace norm, l21 and l1)
    starts from the neighbouring strength took 22 to 32 % fewer iterations than starts from 0. The batch, which waits
    for its slowest member, took at least twice as long.

    Args:
        rows: as in `fit`.
        make_penalty: function from a strength to a penalty, such as `trace_norm`; it is traced.
        strengths: array `[S]`, or a pytree of arrays with a leading axis S, of which `make_penalty` gets one slice.
        loss: as in `fit`.
        intercept: as in `fit`.
        average: as in `fit`.
        tolerance: as in `fit`.
        max_iterations: as in `fit`, per strength.

    Returns:
        `Fit` with a leading axis S in every array.

    Raises:
        ValueError: as in `fit`; strengths without one common leading axis.
        TypeError: as in `fit`.

    Example:
        >>> from mtljax.convex.problem import columns
        >>> from mtljax.penalties.l1 import l1
        >>> rows = columns(jnp.eye(1), jnp.array([[3.0]]))
        >>> found = jax.jit(lambda rows: fit_path(rows, l1, jnp.array([4.0, 2.0, 1.0])))(rows)
        >>> found.weights[:, 0, 0].round(3).tolist()
        [0.0, 1.0, 2.0]
    """
    strengths = _grid("fit_path", strengths)
    options = {"intercept": intercept, "average": average, "tolerance": tolerance, "max_iterations": max_iterations}
    check_problem("fit_path", rows, _made("fit_path", make_penalty, strengths), loss, **options)
    problem = prepare(rows, loss, intercept=intercept, average=average)
    return _path(
        problem,
        make_penalty,
        strengths,
        loss,
        intercept=intercept,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


def cross_validate(
    rows: TaskRows,
    make_penalty: MakePenalty,
    strengths: PyTree,
    *,
    folds: int | Array | np.ndarray = 5,
    key: Key | None = None,
    score: Score | None = None,
    at_once: int = 1,
    loss: Loss = squared,
    intercept: bool = False,
    average: bool = False,
    tolerance: ArrayLike | None = None,
    max_iterations: int = 5000,
) -> CrossValidation:
    """Choose a strength by cross-validation, and fit all rows at that strength.

    Each task's rows are split into K folds. For each fold, `fit_path` fits the other rows, and the fits are scored on
    the fold.

    Args:
        rows: as in `fit`.
        make_penalty: as in `fit_path`.
        strengths: as in `fit_path`.
        folds: the number K of folds, at least 2, with a `key`; or the fold of each row, as `fold_numbers` draws them:
            integers from 0 to K - 1 of the mask's shape, not traced. Rows with a negative number are training rows for
            every fold.
        key: PRNG key that draws the folds.
        score: `score(outputs [T, N], rows) -> []` on rows with the fold's mask, larger is better, such as
            `explained_variance`. Default: minus the mean loss per row.
        at_once: number of folds that are fitted together as one batch, which waits for its slowest member. One
            (default) is fastest on a CPU, by 1.1 to 1.3 times on School. On an accelerator, such small steps may take
            the same time for one fold and for K; this was not measured.
        loss: as in `fit`.
        intercept: as in `fit`.
        average: as in `fit`.
        tolerance: as in `fit`. 1e-4 is usually enough for scores; for a more exact fit, call `fit` at the chosen
            strength.
        max_iterations: as in `fit`, per fold and strength.

    Returns:
        `CrossValidation`.

    Raises:
        ValueError: as in `fit_path`; a number of folds without a key; fewer than two folds; folds of another shape.
        TypeError: as in `fit`; folds that are not integers.

    Example:
        >>> from mtljax.convex.problem import columns
        >>> from mtljax.penalties.l1 import l1
        >>> rows = columns(jnp.ones((4, 1)), jnp.array([[2.0], [2.0], [2.0], [2.0]]))
        >>> strengths = jnp.array([4.0, 2.0, 0.0])
        >>> found = jax.jit(lambda key: cross_validate(rows, l1, strengths, folds=2, key=key))(jax.random.key(0))
        >>> found.scores.round(3).tolist(), float(found.strength)
        ([[-2.0, -0.5, -0.0], [-2.0, -0.5, -0.0]], 0.0)
    """
    strengths = _grid("cross_validate", strengths)
    options = {"intercept": intercept, "tolerance": tolerance, "max_iterations": max_iterations}
    check_problem(
        "cross_validate", rows, _made("cross_validate", make_penalty, strengths), loss, average=average, **options
    )
    if score is not None:
        check_callable("cross_validate", "score", score)
    check_count("cross_validate", "at_once", at_once)
    numbers, count = _folds(key, rows, folds)

    def fold(number: Array) -> Array:
        held_out = numbers == number
        train = rows._replace(mask=rows.mask & ~held_out)
        problem = prepare(train, loss, intercept=intercept, average=average)
        fits = _path(problem, make_penalty, strengths, loss, **options)
        test = rows._replace(mask=rows.mask & held_out)

        def one(found: Fit) -> Array:
            outputs = predict(found, rows.inputs)
            return _mean_loss(loss, outputs, test) if score is None else score(outputs, test)

        return lax.map(one, fits)

    scores = lax.map(fold, jnp.arange(count), batch_size=at_once)
    mean = jnp.mean(scores, 0)
    index = jnp.argmax(jnp.where(jnp.isnan(mean), -jnp.inf, mean)).astype(jnp.int32)
    strength = _slice(strengths, index)
    problem = prepare(rows, loss, intercept=intercept, average=average)
    best = fit_prepared("cross_validate", problem, make_penalty(strength), loss, start=None, **options)
    return CrossValidation(scores, mean, index, strength, best)


def _path(
    problem: Problem,
    make_penalty: MakePenalty,
    strengths: PyTree,
    loss: Loss,
    *,
    intercept: bool,
    tolerance: ArrayLike | None,
    max_iterations: int,
) -> Fit:
    """The fits at all strengths, from the result of `prepare`."""

    def following(start: Fit, strength: PyTree) -> tuple[Fit, Fit]:
        found = fit_prepared(
            "fit_path",
            problem,
            make_penalty(strength),
            loss,
            intercept=intercept,
            tolerance=tolerance,
            max_iterations=max_iterations,
            start=start,
        )
        return found, found

    return lax.scan(following, _nothing(problem, make_penalty(_slice(strengths, 0))), strengths)[1]


def _nothing(problem: Problem, penalty: Penalty) -> Fit:
    """A start at 0; its rho of 0 makes the solver choose its own."""
    dtype = problem.targets.dtype
    points = jnp.zeros((max(len(penalty.parts), 1), problem.targets.shape[0], problem.inputs.shape[2]), dtype)
    parts, zero = parts_of(penalty, points), jnp.zeros((), dtype)
    return Fit(
        weights=points[0],
        intercepts=points[0, :, 0],
        parts=parts,
        duals=parts,
        objective=zero,
        certificate=zero,
        iterations=jnp.zeros((), jnp.int32),
        converged=jnp.array(False),
        rho=zero,
        radius=zero,
    )


def _grid(name: str, strengths: PyTree) -> PyTree:
    """The strengths as arrays with one leading axis."""
    for leaf in jax.tree.leaves(strengths):
        check_number(name, "strengths", leaf, shape=None)
    strengths = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), strengths)
    shapes = [leaf.shape for leaf in jax.tree.leaves(strengths)]
    if not shapes or any(not shape or shape[0] != shapes[0][0] or not shape[0] for shape in shapes):
        raise ValueError(f"{name}: strengths must be arrays with one leading axis, not empty, found shapes {shapes}")
    return strengths


def _made(name: str, make_penalty: MakePenalty, strengths: PyTree) -> Penalty:
    return check_callable(name, "make_penalty", make_penalty)(_slice(strengths, 0))


def _slice(strengths: PyTree, index: Array | int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], strengths)


def _folds(key: Key | None, rows: TaskRows, folds: int | Array | np.ndarray) -> tuple[Array, int]:
    """The fold of each row, and the number of folds."""
    if isinstance(folds, int | np.integer):
        check_count("cross_validate", "folds", folds, least=2)
        check_key("cross_validate", "key", key)
        assert key is not None
        return fold_numbers(key, rows, int(folds)), int(folds)
    whole = hasattr(folds, "dtype") and jnp.issubdtype(folds.dtype, jnp.integer)
    expect(whole, "cross_validate", "folds", "integers", folds, TypeError)
    if jnp.shape(folds) != jnp.shape(rows.mask):
        raise ValueError(
            f"cross_validate: folds must have the shape of the mask, {jnp.shape(rows.mask)}, found {jnp.shape(folds)}"
        )
    if isinstance(folds, Tracer):
        raise TypeError("cross_validate: folds must be known when it is called, found a traced array")
    count = int(np.max(folds)) + 1
    if count < 2:
        raise ValueError(f"cross_validate: folds must be at least 2, found {count}")
    return jnp.asarray(folds), count


def _mean_loss(loss: Loss, outputs: Array, rows: TaskRows) -> Array:
    """Minus the mean loss over unmasked rows; 0 if there are none."""
    mask = jnp.broadcast_to(rows.mask, outputs.shape)
    losses = loss.value(outputs, rows.targets.astype(outputs.dtype))
    return -jnp.sum(jnp.where(mask, losses, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
