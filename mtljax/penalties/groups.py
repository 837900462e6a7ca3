"""Common parts of penalties on groups: norms with derivatives everywhere, thresholds, and the axes of a group."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mtljax import trees
from mtljax.checks import expect
from mtljax.types import Array, PyTree

Axes = tuple[int, ...]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def norm(leaves: tuple[Array, ...], axes: tuple[Axes, ...]) -> Array:
    """Euclidean norm over some axes of one or more arrays together; all its derivatives are 0 where it is 0.

    Entries are scaled by the largest one, so that their squares neither overflow nor underflow.

    Args:
        leaves: floating arrays, in the dtype of the computation.
        axes: for each array, the axes to sum over; the shapes of the other axes must be the same.

    Returns:
        Array of the shape of the other axes.

    Example:
        >>> norm((jnp.array([[3e30, 0.0], [4e30, 0.0]]),), ((0,),)).tolist() == [jnp.float32(5e30), 0.0]
        True
        >>> jax.grad(lambda x: norm((x,), ((0,),)))(jnp.zeros(2))
        Array([0., 0.], dtype=float32)
    """
    pairs = list(zip(leaves, axes, strict=True))
    largest = functools.reduce(jnp.maximum, (jnp.max(jnp.abs(x), over, initial=0.0) for x, over in pairs))
    unit = jnp.where(largest > 0, largest, 1.0)
    squares = (jnp.sum(jnp.square(x / jnp.expand_dims(unit, over)), over) for x, over in pairs)
    return largest * jnp.sqrt(functools.reduce(operator.add, squares))


@norm.defjvp
def _norm_jvp(
    axes: tuple[Axes, ...], primals: tuple[tuple[Array, ...]], tangents: tuple[tuple[Array, ...]]
) -> tuple[Array, Array]:
    length = norm(primals[0], axes)

    def slope(x: Array, moved: Array, over: Axes) -> Array:
        # Both `where`s, rather than x / 1 at 0: the second derivative there must be 0 too.
        there = jnp.expand_dims(length, over)
        return jnp.sum(jnp.where(there > 0, x / jnp.where(there > 0, there, 1.0), 0.0) * moved, over)

    return length, functools.reduce(operator.add, map(slope, primals[0], tangents[0], axes))


def magnitude(x: Array) -> Array:
    """`|x|`, with the derivative `sign(x)`, which is 0 at 0; that of `jnp.abs` is 1 there.

    Example:
        >>> jax.vmap(jax.grad(magnitude))(jnp.array([-2.0, 0.0, 3.0]))
        Array([-1.,  0.,  1.], dtype=float32)
    """
    return x * jnp.sign(x)


def shrink(length: Array, threshold: Array | float) -> Array:
    """The factor of the group soft threshold for a group of that norm: `max(1 - threshold / norm, 0)`.

    Example:
        >>> shrink(jnp.array([0.0, 1.0, 4.0]), 2.0)
        Array([0. , 0. , 0.5], dtype=float32)
    """
    # Not `where(length > threshold, ...)`, which would treat NaN as a small norm.
    return jnp.maximum(length - threshold, 0.0) / jnp.where(length > 0, length, 1.0)


def soft_threshold(v: Array, threshold: Array | float) -> Array:
    """`sign(v) max(|v| - threshold, 0)`, computed as v minus its projection on `[-threshold, threshold]`.

    Example:
        >>> soft_threshold(jnp.array([-3.0, 0.5, 2.0]), 1.0)
        Array([-2.,  0.,  1.], dtype=float32)
    """
    return v - jnp.clip(v, -threshold, threshold)


def map_leaves(function: Callable[[Array], Array], stacked: PyTree) -> PyTree:
    """`function` of each leaf, cast to float32 at least; results have the leaf's dtype.

    Example:
        >>> map_leaves(lambda w: w + 1.0, {"w": jnp.ones(2, jnp.bfloat16)})["w"]
        Array([2, 2], dtype=bfloat16)
    """

    def leaf(v: Array) -> Array:
        return function(jnp.asarray(v, trees.accumulator(v.dtype))).astype(v.dtype)

    return jax.tree.map(leaf, stacked)


def check_per(name: str, per: int | Sequence[int] | None) -> Axes | None:
    """`per`, the axes that index the groups of a parameter, as a tuple of negative integers.

    Args:
        name: the penalty's name; the message starts with it.
        per: axes of one task's parameter `[*p]`, counted from its end: -1 is the last. None: all axes.

    Raises:
        TypeError: `per` is not an integer, a sequence of integers, or None.
        ValueError: an axis is not negative, or is given twice.

    Example:
        >>> check_per("l21", -2)
        (-2,)
        >>> check_per("l21", 0)
        Traceback (most recent call last):
        ...
        ValueError: l21: per must be axes from the end, -1 the last, found 0
    """
    if per is None:
        return None
    expected = "an integer, a sequence of integers or None"
    axes = tuple(per) if isinstance(per, Sequence) else (per,)
    whole = all(isinstance(axis, int | np.integer) and not isinstance(axis, bool) for axis in axes)
    expect(whole, name, "per", expected, per, TypeError)
    expect(all(axis < 0 for axis in axes), name, "per", "axes from the end, -1 the last", per, ValueError)
    expect(len(set(axes)) == len(axes), name, "per", "axes that differ", per, ValueError)
    return tuple(int(axis) for axis in axes)


def check_has_axes(name: str, stacked: PyTree, per: Axes | None) -> None:
    """Check that each leaf `[T, *p]` has the axes `per` in `[*p]`.

    Example:
        >>> check_has_axes("l21", {"bias": jnp.zeros((3, 8))}, (-2,))
        Traceback (most recent call last):
        ...
        ValueError: l21: per names axis -2 of each parameter, but leaf ['bias'] has parameters of shape (8,)
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(stacked)[0]:
        shape = jnp.shape(leaf)[1:]
        for axis in per or ():
            if -axis > len(shape):
                where = jax.tree_util.keystr(path)
                raise ValueError(
                    f"{name}: per names axis {axis} of each parameter, but leaf {where} has parameters of shape {shape}"
                )


def group_axes(w: Array, per: Axes | None) -> Axes:
    """The axes of a leaf `[T, *p]` within a group: the task axis, and the axes that `per` does not name.

    Example:
        >>> group_axes(jnp.zeros((5, 3, 3, 16, 32)), (-2,))
        (0, 1, 2, 4)
        >>> group_axes(jnp.zeros((5, 16, 32)), None)
        (0,)
    """
    return (0,) if per is None else tuple(axis for axis in range(w.ndim) if axis == 0 or axis - w.ndim not in per)
