"""Every task's parameters are pulled towards their mean."""

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
    r"""Mean-regularised multi-task learning: the squared distance of each task's parameters to their mean.

        value(w) = strength * sum_i |w_i - m|^2,   m = 1/T sum_j w_j
                 = strength / T * sum_{i<j} |w_i - w_j|^2
        prox(v, s) = m + (v_i - m) / (1 + 2 s strength),   m the mean of v, which the step keeps

    There is no factor 1/2 and no division by T or by the number of parameters. Work and storage are `O(T P)`; on a CPU
    copies that are stacked for the call alone, as in `sharing.soft`, are not copied there for up to 32 tasks. The
    differences to the mean are formed before they are squared: the expanded form `sum |w_i|^2 - T |m|^2` loses all
    digits in float32 once the copies are close.

    Evgeniou and Pontil, "Regularized Multi-Task Learning", KDD 2004. The paper writes `w_i = w_0 + v_i` and penalises
    `|v_i|^2` and `|w_0|^2`; with no penalty on `w_0` the best `w_0` is the mean, which gives the form here.

    Args:
        strength: non-negative scalar; may be traced, so that it can be swept.

    Returns:
        `Penalty` on pytrees with leaves `[T, *p]`.

    Raises:
        ValueError: `strength` (or the `step_size` of `prox`) is negative or no scalar; leaves without one common
            leading task axis.
        TypeError: a leaf that is not of a floating-point type.

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
            return (wide - stiffness / (1.0 + stiffness) * _centred(wide)).astype(v.dtype)

        return jax.tree.map(leaf, stacked)

    return Penalty(value=value, prox=prox)


_ROWS, _SUMMED = 32, 8
"""The most tasks whose rows are walked one by one, and the most of them that one loop adds."""


@jax.custom_jvp
def _spread(w: Array) -> Array:
    def value(centred: _Form, _: _Form, w: Array) -> Array:
        apart = centred(w)
        return _product(apart, apart)

    return _by_form(value, w)


# The mean's own derivative drops out, since rows less their mean sum to zero; without being told so, reverse mode walks
# the mean again, at three times the price.
@_spread.defjvp
def _spread_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    def both(centred: _Form, split: _Form, w: Array, dw: Array) -> tuple[Array, Array]:
        apart = centred(w)
        return _product(apart, apart), 2.0 * _product(apart, split(dw))

    return _by_form(both, *primals, *tangents)


def _by_form(function: Callable[..., Any], *arrays: Array) -> Any:
    """`function(centred, split, *arrays)`, on the whole stack or, on a CPU, on its rows one by one.

    Rows that were stacked just before, as in soft sharing, are then read where they lie: XLA cancels the stacking, and
    the gradient's. Elsewhere the stack stays whole, since its task axis may be sharded.
    """
    whole = functools.partial(function, lambda w: [_centred(w)], lambda w: [w])
    if arrays[0].shape[0] > _ROWS:
        return whole(*arrays)
    by_rows = functools.partial(function, _centred_rows, _rows)
    return lax.platform_dependent(*arrays, cpu=by_rows, default=whole)


def _product(a: Sequence[Array], b: Sequence[Array]) -> Array:
    return functools.reduce(jnp.add, [jnp.sum(x * y) for x, y in zip(a, b, strict=True)])


def _rows(w: Array) -> Sequence[Array]:
    # Not by indices, whose gradients would be padded to the whole stack, one by one.
    return lax.split(w, (1,) * w.shape[0])


def _centred_rows(w: Array) -> Sequence[Array]:
    first, *others = _rows(w)
    apart = [jnp.zeros_like(first), *(row - lax.stop_gradient(first) for row in others)]
    sums = [functools.reduce(jnp.add, apart[k : k + _SUMMED]) for k in range(0, len(apart), _SUMMED)]
    # XLA would repeat sums in every row that reads the mean: T squared additions. It never repeats a product.
    mean = mix_rows(jnp.full((1, len(sums)), 1.0 / len(apart), w.dtype), jnp.concatenate(sums))
    return [row - mean for row in apart]


def _centred(w: Array) -> Array:
    apart = offsets(w)
    # A product, since XLA:CPU sums over a leading axis entry by entry, ten times slower.
    return apart - mix_rows(jnp.full((1, w.shape[0]), 1.0 / w.shape[0], w.dtype), apart)
