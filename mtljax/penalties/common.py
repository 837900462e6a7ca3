"""`Penalty`, a value and a proximal operator on stacked task parameters, and what all penalties use."""

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
    """A penalty on stacked task parameters, as two pure functions. Calling it returns its value.

    Attributes:
        value: `value(stacked) -> []`. `stacked` is a pytree of floating arrays `[T, *p]`; row i belongs to the i-th
            task in sorted order of names. The value is float32, or float64 if a leaf is; its gradient has each leaf's
            dtype.
        prox: `prox(stacked, step_size) -> stacked`, the proximal operator
            `argmin_X 1/2 |X - V|^2 + step_size * value(X)`, which keeps the leaves' dtypes; None if it has no closed
            form.
        parts: names of the summands, if the parameters are a sum whose summands have different structures. `stacked` is
            then a dict by these names of trees with the same structure. `()` if the parameters are not a sum.

    Every penalty of the library raises at trace time, with a message that names the argument, what was expected and
    what was found. Docstrings of penalties list further errors only.

    Raises:
        TypeError: an argument or a leaf is of another type or dtype; leaves must be floating.
        ValueError: an argument is out of its range: a strength and the `step_size` of `prox` are scalars of at least 0;
            the leaves have no common leading task axis; the parts have other names, structures or shapes.

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
    """The penalty, after checking that it is a `Penalty`, and not the function that makes one.

    Example:
        >>> check_penalty("total", check_penalty)
        Traceback (most recent call last):
        ...
        TypeError: total: penalty must be a Penalty, found the function 'check_penalty'
    """
    expect(isinstance(value, Penalty), where, "penalty", "a Penalty", value, TypeError)
    return value


def check_stacked(name: str, stacked: PyTree, num_tasks: int | None = None) -> None:
    """Check, at trace time, that the leaves of a tree are floating arrays with one common leading task axis.

    Args:
        name: the penalty's name; the message starts with it.
        stacked: the tree; it may have no leaves.
        num_tasks: the length of the task axis, if the penalty knows it.

    Raises:
        TypeError: a leaf is not of a floating-point type.
        ValueError: a leaf has no axes, or leading axes differ from one another or from `num_tasks`.

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
    """Rows `[T, *p]` minus the first row, which is an origin without a gradient.

    A function of the differences between rows does not change. It keeps its digits if the rows are close to each other
    and far from zero. It is exactly zero if they are equal, as at the start of soft sharing.

    Example:
        >>> offsets(jnp.array([[5.0], [7.0]])).tolist()
        [[0.0], [2.0]]
    """
    return rows - lax.stop_gradient(rows[:1])


def mix_rows(matrix: Array, w: Array) -> Array:
    """`[m, n] x [n, *p] -> [m, *p]` in the dtype of w.

    Trailing axes are not merged, so that a sharded leaf is not gathered.

    Example:
        >>> mix_rows(jnp.array([[0.5, 0.5]]), jnp.array([[1.0, 2.0], [3.0, 4.0]]))
        Array([[2., 3.]], dtype=float32)
    """
    axes = (((1,), (0,)), ((), ()))
    return lax.dot_general(matrix.astype(w.dtype), w, axes, precision=lax.Precision.HIGHEST)


def sum_over_leaves(stacked: PyTree, term: Callable[[Array], Array]) -> Array:
    """Sum of `term(leaf)` over the leaves, each cast to float32 at least; 0 for an empty tree.

    Example:
        >>> sum_over_leaves({"w": jnp.ones((2, 3), jnp.bfloat16)}, jnp.sum)
        Array(6., dtype=float32)
    """
    total = jnp.zeros((), jnp.float32)
    for leaf in jax.tree.leaves(stacked):
        total = total + term(jnp.asarray(leaf, trees.accumulator(leaf.dtype)))
    return total
