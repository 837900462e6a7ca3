"""Each task's parameters are pulled towards the mean over tasks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.checks import check_nonnegative
from mtljax.penalties.common import Penalty, check_stacked, mix_rows, offsets, sum_over_leaves
from mtljax.types import Array, PyTree

_Form = Callable[[Array], Sequence[Array]]


def l2_to_mean(strength: Array | float = 1.0) -> Penalty:
    r"""Mean-regularized multi-task learning: the squared distance of each task's parameters to their mean.

        value(w) = strength * sum_i |w_i - m|^2,   m = 1/T sum_j w_j
                 = strength / T * sum_{i<j} |w_i - w_j|^2
        prox(v, s) = m + (v_i - m) / (1 + 2 s strength),   m the mean of v, which the step keeps

    There is no factor 1/2 and no division by T or by the number of parameters. Work and storage are `O(T P)`.
    `sharing.soft` stacks its copies for each call; on a CPU, with up to 32 tasks, this stacking copies no data. The
    differences to the mean are formed before they are squared, because the expanded form `sum |w_i|^2 - T |m|^2` loses
    all digits in float32 once the copies are close.

    Args:
        strength: non-negative scalar; may be traced, so that it can be swept.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    References:
        Evgeniou and Pontil, "Regularized Multi-Task Learning", KDD 2004. Departures: the paper writes
        `w_i = w_0 + v_i` and penalises `|v_i|^2` and `|w_0|^2`. Without the penalty on `w_0`, the best `w_0` is the
        mean, which gives the form here.

    Example:
        >>> w = {"w": jnp.array([[1.0, 0.0], [3.0, 0.0]])}
        >>> float(l2_to_mean(0.5)(w))
        1.0
        >>> l2_to_mean(0.5).prox(w, 1.0)["w"]
        Array([[1.5, 0. ],
               [2.5, 0. ]], dtype=float32)
    """
    check_nonnegative("l2_to_mean", "strength", strength)

    def value(stacked: PyTree) -> Array:
        check_stacked("l2_to_mean", stacked)
        return strength * sum_over_leaves(stacked, _spread)

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_stacked("l2_to_mean", stacked)
        check_nonnegative("l2_to_mean", "step_size", step_size)

        stiffness = 2.0 * step_size * strength

        def leaf(v: Array) -> Array:
            wide = jnp.asarray(v, trees.accumulator(v.dtype))
            return (wide - stiffness / (1.0 + stiffness) * _centered(wide)).astype(v.dtype)

        return jax.tree.map(leaf, stacked)

    return Penalty(value=value, prox=prox)


_ROWS, _SUMMED = 32, 8
"""The largest number of tasks whose rows are processed one by one, and the number of rows that one loop adds."""


@jax.custom_jvp
def _spread(w: Array) -> Array:
    def value(centered: _Form, _: _Form, w: Array) -> Array:
        apart = centered(w)
        return _product(apart, apart)

    return _by_form(value, w)


# The derivative of the mean drops out, since rows minus their mean sum to zero. This rule says so; reverse mode would
# differentiate the mean too, at three times the cost.
@_spread.defjvp
def _spread_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    def both(centered: _Form, split: _Form, w: Array, dw: Array) -> tuple[Array, Array]:
        apart = centered(w)
        return _product(apart, apart), 2.0 * _product(apart, split(dw))

    return _by_form(both, *primals, *tangents)


def _by_form(function: Callable[..., Any], *arrays: Array) -> Any:
    """`function(centered, split, *arrays)`, on the whole stack or, on a CPU, on its rows one by one.

    If rows were stacked just before, as in soft sharing, XLA then removes the stacking, also in the gradient. On other
    platforms the stack stays whole, since its task axis may be sharded.
    """
    whole = functools.partial(function, lambda w: [_centered(w)], lambda w: [w])
    if arrays[0].shape[0] > _ROWS:
        return whole(*arrays)
    by_rows = functools.partial(function, _centered_rows, _rows)
    return lax.platform_dependent(*arrays, cpu=by_rows, default=whole)


def _product(a: Sequence[Array], b: Sequence[Array]) -> Array:
    return functools.reduce(jnp.add, [jnp.sum(x * y) for x, y in zip(a, b, strict=True)])


def _rows(w: Array) -> Sequence[Array]:
    # Not by indexing: the gradient of each index would be padded to the whole stack.
    return lax.split(w, (1,) * w.shape[0])


def _centered_rows(w: Array) -> Sequence[Array]:
    first, *others = _rows(w)
    apart = [jnp.zeros_like(first), *(row - lax.stop_gradient(first) for row in others)]
    sums = [functools.reduce(jnp.add, apart[k : k + _SUMMED]) for k in range(0, len(apart), _SUMMED)]
    # As a sum, XLA would compute the mean again for each row, T squared additions. It never repeats a matrix product.
    mean = mix_rows(jnp.full((1, len(sums)), 1.0 / len(apart), w.dtype), jnp.concatenate(sums))
    return [row - mean for row in apart]


def _centered(w: Array) -> Array:
    apart = offsets(w)
    # A matrix product, since XLA:CPU sums over a leading axis entry by entry, which is ten times slower.
    return apart - mix_rows(jnp.full((1, w.shape[0]), 1.0 / w.shape[0], w.dtype), apart)
