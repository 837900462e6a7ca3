"""What every penalty is: a value and a proximal operator on stacked task parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.checks import expect, found
from mtljax.types import Array, PyTree


class Penalty(NamedTuple):
    """A penalty on stacked task parameters, as two pure functions. Calling it gives its value.

    Attributes:
        value: `value(stacked) -> []`; `stacked` is a pytree of floating arrays `[T, *p]`, row i belonging to the
            i-th task in sorted order of names. Float32 (float64 where a leaf is), whatever the leaves are; its
            gradient has each leaf's own dtype.
        prox: `prox(stacked, step_size) -> stacked`, the proximal operator
            `argmin_X 1/2 |X - V|^2 + step_size * value(X)`, leaf dtypes kept; None where it has no closed form.
        parts: names of the summands that the parameters are a sum of, for a penalty that asks a structure of its own
            of each; `stacked` is then a dict by these names of trees of one structure. `()`: the parameters themselves.

    Example:
        >>> double = Penalty(value=lambda w: 2.0 * w.sum(), prox=lambda w, step_size: w - 2.0 * step_size)
        >>> float(double(jnp.ones((3, 1))))
        6.0
    """

    value: Callable[[PyTree], Array]
    prox: Callable[[PyTree, Array | float], PyTree] | None = None
    parts: tuple[str, ...] = ()

    def __call__(self, stacked: PyTree) -> Array:
        """The penalty's value, `[]`."""
        return self.value(stacked)


def check_penalty(where: str, value: Any) -> Penalty:
    """The penalty, after checking that it is one, and not the function that makes it.

    Example:
        >>> check_penalty("total", check_penalty)
        Traceback (most recent call last):
        ...
        TypeError: total: penalty must be a Penalty, found the function 'check_penalty'
    """
    expect(isinstance(value, Penalty), where, "penalty", "a Penalty", value, TypeError)
    return value


def check_stacked(name: str, stacked: PyTree, num_tasks: int | None = None) -> None:
    """Raises where a tree is not one of floating arrays with one leading task axis. Static: costs nothing.

    Args:
        name: the penalty's name, which opens the message.
        stacked: the tree found; it may have no leaves.
        num_tasks: length the task axis must have, where the penalty knows it.

    Raises:
        TypeError: a leaf is not of a floating-point type.
        ValueError: a leaf has no axes, the leading axes disagree, or they are not `num_tasks`.

    Example:
        >>> check_stacked("l2_to_mean", {"w": jnp.zeros((2, 3)), "b": jnp.zeros((4,))})
        Traceback (most recent call last):
        ...
        ValueError: l2_to_mean: leaf ['w'] must have a leading task axis of 4, found shape (2, 3)
    """
    leaves = jax.tree_util.tree_flatten_with_path(stacked)[0]
    if not leaves:
        return
    for path, leaf in leaves:
        where, dtype = f"leaf {jax.tree_util.keystr(path)}", getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{name}: {where} must be of a floating-point type, found {dtype or found(leaf)}")
    rows = trees.num_rows(stacked, where=name)
    if num_tasks is not None and rows != num_tasks:
        raise ValueError(
            f"{name}: the relation is between {num_tasks} tasks, but leaf {jax.tree_util.keystr(leaves[0][0])} "
            f"stacks {rows}"
        )


def offsets(rows: Array) -> Array:
    """Rows `[T, *p]` relative to the first, which is no more than an origin: no gradient is taken through it.

    What depends on differences between rows alone does not change, but keeps its digits where the rows are close to
    each other and far from zero, and is exactly zero where they are equal, as at the start of soft sharing.

    Example:
        >>> offsets(jnp.array([[5.0], [7.0]])).tolist()
        [[0.0], [2.0]]
    """
    return rows - lax.stop_gradient(rows[:1])


def mix_rows(matrix: Array, w: Array) -> Array:
    """`[m, n] x [n, *p] -> [m, *p]` in the dtype of w.

    Trailing axes stay as they are, so that a sharded leaf is not gathered.

    Example:
        >>> mix_rows(jnp.array([[0.5, 0.5]]), jnp.array([[1.0, 2.0], [3.0, 4.0]]))
        Array([[2., 3.]], dtype=float32)
    """
    axes = (((1,), (0,)), ((), ()))
    return lax.dot_general(matrix.astype(w.dtype), w, axes, precision=lax.Precision.HIGHEST)


def sum_over_leaves(stacked: PyTree, term: Callable[[Array], Array]) -> Array:
    """Sum of `term(leaf)` over the leaves, each cast to the dtype it is accumulated in; 0 for an empty tree.

    Example:
        >>> sum_over_leaves({"w": jnp.ones((2, 3), jnp.bfloat16)}, jnp.sum)
        Array(6., dtype=float32)
    """
    total = jnp.zeros((), jnp.float32)
    for leaf in jax.tree.leaves(stacked):
        total = total + term(jnp.asarray(leaf, trees.accumulator(leaf.dtype)))
    return total
