"""The common loop of feature learning and relation learning: their data, their objective, and its certificate.

Both minimise `sum_t c_t |y_t - X_t w_t|^2 + a |W|_F^2 + g |W|_*^2` over W `[T, p]`, whose rows are the tasks' weights;
`|W|_*` is the sum of the singular values of W.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from mtljax import trees
from mtljax.convex.alternating.steps import Regression, from_features, from_relations, solve
from mtljax.convex.products import product
from mtljax.types import Array

SHRINK = 0.2
"""The factor by which e shrinks."""
CLOSE = 4.0
"""e shrinks if the gap is at most this many times the gap that e explains."""


class Alternation(NamedTuple):
    """The state of the loop.

    Attributes:
        weights: `[T, p]`, W.
        values: `[k]`, singular values of W.
        objective: `[]`, at W.
        gap: `[]`, an upper bound of the objective minus its minimum.
        perturbation: `[]`, the e of the round that returned this W.
        explained: `[]`, approximately the gap that would remain if W were the minimiser for this e.
        steps: int32 `[]`, number of rounds.
    """

    weights: Array
    values: Array
    objective: Array
    gap: Array
    perturbation: Array
    explained: Array
    steps: Array


def regression(
    name: str, inputs: Array, targets: Array, mask: Array | None, *, intercept: bool, mean: bool
) -> Regression:
    """Check the data and prepare them for the loop.

    Args:
        name: the function's name; messages start with it.
        inputs: `[T, N, p]`, or `[1, N, p]` if all tasks have the same inputs.
        targets: `[T, N]`.
        mask: bool `[T, N]` or `[1, N]`; None if no row is masked.
        intercept: whether each task has an intercept, which centering eliminates.
        mean: whether c_t is one over the task's number of rows, rather than 1.

    Raises:
        ValueError: shapes do not match.
        TypeError: inputs or targets are not floating, or the mask is not bool.

    Example:
        >>> regression("f", jnp.ones((2, 4, 1)), jnp.ones((3, 4)), None, intercept=False, mean=False)
        Traceback (most recent call last):
        ...
        ValueError: f: expected inputs [T, N, p], targets [T, N] and mask [T, N], found inputs (2, 4, 1), ...
    """
    shape = jnp.shape(targets)
    expected = {"inputs": 3, "targets": 2, "mask": 2}
    shapes = {"inputs": jnp.shape(inputs), "targets": shape, "mask": shape if mask is None else jnp.shape(mask)}
    for argument, found in shapes.items():
        fits = len(found) == expected[argument] and len(shape) == 2 and found[0] in (1, shape[0])
        if not fits or found[1] != shape[1]:
            listed = ", ".join(f"{argument} {found}" for argument, found in shapes.items())
            raise ValueError(f"{name}: expected inputs [T, N, p], targets [T, N] and mask [T, N], found {listed}")
    if shape[0] == 0 or shapes["inputs"][2] == 0:
        raise ValueError(f"{name}: expected at least one task and one feature, found inputs {shapes['inputs']}")
    for argument, array in (("inputs", inputs), ("targets", targets)):
        if not jnp.issubdtype(jnp.result_type(array), jnp.floating):
            raise TypeError(f"{name}: {argument} must be of a floating-point type, found {jnp.result_type(array).name}")
    if mask is not None and mask.dtype != jnp.bool_:
        raise TypeError(f"{name}: mask must be of type bool, found {mask.dtype.name}")
    dtype = trees.accumulator(jnp.result_type(inputs, targets))
    shown = jnp.broadcast_to(jnp.ones((1, 1), bool) if mask is None else mask, shape)
    x = jnp.where(shown[:, :, None], inputs, 0.0).astype(dtype)
    y = jnp.where(shown, targets, 0.0).astype(dtype)
    count = jnp.maximum(jnp.sum(shown, axis=1), 1).astype(dtype)
    input_means, target_means = jnp.zeros((x.shape[0], x.shape[2]), dtype), jnp.zeros(x.shape[:1], dtype)
    if intercept:
        input_means, target_means = jnp.sum(x, axis=1) / count[:, None], jnp.sum(y, axis=1) / count
        x = jnp.where(shown[:, :, None], x - input_means[:, None], 0.0)
        y = jnp.where(shown, y - target_means[:, None], 0.0)
    if mean:
        x, y = x / jnp.sqrt(count)[:, None, None], y / jnp.sqrt(count)[:, None]
    return Regression(x, y, product("tnp,tnq->tpq", x, x), product("tnp,tn->tp", x, y), input_means, target_means)


def alternate(
    data: Regression, square: ArrayLike, trace: ArrayLike, *, max_steps: ArrayLike, tolerance: ArrayLike | None
) -> tuple[Alternation, Array]:
    """Alternate until the duality gap is at most `tolerance` times the objective.

    A round is `from_relations`, then `from_features`. e starts at a fifth of the norm of the first W. It shrinks to a
    fifth whenever e alone explains about all of the gap.

    Args:
        data: `Regression`.
        square: a, at least 0.
        trace: g, positive.
        max_steps: largest number of rounds, at least 1.
        tolerance: None for 1e-8 in float64, 1e-5 in float32.

    Returns:
        The last `Alternation`, and whether its gap is small enough, bool `[]`.
    """
    dtype = data.gram.dtype
    if tolerance is None:
        tolerance = 1e-8 if dtype == jnp.float64 else 1e-5
    square, trace, tolerance = (jnp.asarray(number, dtype) for number in (square, trace, tolerance))

    def judged(weights: Array, perturbation: Array, steps: Array) -> Alternation:
        values = jnp.linalg.svd(weights, compute_uv=False)
        residual = data.targets - product("tnp,tp->tn", data.inputs, weights)
        slope = 2.0 * product("tnp,tn->tp", data.inputs, residual)
        penalty = square * jnp.sum(jnp.square(weights)) + trace * jnp.square(jnp.sum(values))
        # Fenchel-Young inequality, with equality for the loss and its conjugate at the residual.
        gap = penalty + _conjugate(jnp.linalg.svd(slope, compute_uv=False), square, trace) - jnp.sum(weights * slope)
        roots = jnp.sqrt(jnp.square(values) + jnp.square(perturbation))
        kept = jnp.sum(values * (1.0 - values / jnp.where(roots > 0, roots, 1.0)))
        explained = trace * (jnp.square(jnp.sum(roots - values)) + 2.0 * jnp.sum(roots) * kept)
        objective = jnp.sum(jnp.square(residual)) + penalty
        return Alternation(weights, values, objective, jnp.maximum(gap, 0.0), perturbation, explained, steps)

    def goes_on(state: Alternation) -> Array:
        unfinished = (state.steps == 0) | (state.gap > tolerance * state.objective)
        return unfinished & (state.steps < max_steps)

    def advance(state: Alternation) -> Alternation:
        e = state.perturbation
        lower = jnp.minimum(jnp.maximum(SHRINK * e, jnp.finfo(dtype).eps * state.values[0]), e)
        e = jnp.where(state.gap <= CLOSE * state.explained, lower, e)
        weights = from_relations(data, state.weights, e, square, trace)
        return judged(from_features(data, weights, e, square, trace), e, state.steps + 1)

    # The first W is the solution for equal shares of all k directions. It has no certificate yet, so a round follows.
    ridge = (square + trace * min(data.moments.shape)) * jnp.eye(data.gram.shape[-1], dtype=dtype)
    start = solve(data.gram + ridge[None], data.moments)
    unknown = jnp.full((), jnp.inf, dtype)
    size = jnp.sqrt(jnp.sum(jnp.square(start)))
    values = jnp.zeros(min(start.shape), dtype)
    first = Alternation(start, values, unknown, unknown, size, unknown, jnp.zeros((), jnp.int32))
    last = lax.while_loop(goes_on, advance, first)
    return last, last.gap <= tolerance * last.objective


def _conjugate(sizes: Array, square: Array, trace: Array) -> Array:
    """`max_W <W, G> - a |W|_F^2 - g |W|_*^2` from the singular values of G, in descending order.

    `= min_c sum_i (sizes_i - c)_+^2 / 4a + c^2 / 4g`, at the largest `c_k = g (sizes_1 + ... + sizes_k) / (a + k g)`.
    """
    count = jnp.arange(1, len(sizes) + 1, dtype=sizes.dtype)
    level = jnp.max(trace * jnp.cumsum(sizes) / (square + count * trace))
    # In exact arithmetic, no excess is above a c / g. Rounding may exceed it, and is divided by a, which may be 0.
    excess = jnp.clip(sizes - level, 0.0, square * level / trace)
    quadratic = jnp.sum(jnp.square(excess)) / jnp.where(square > 0, 4.0 * square, 1.0)
    return quadratic + jnp.square(level) / (4.0 * trace)
