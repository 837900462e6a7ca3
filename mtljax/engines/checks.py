"""Static checks of an engine's inputs; each raises at trace time and names what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.banks import Entries
from mtljax.checks import expect, found
from mtljax.types import Array, Params


def check_params(where: str, params: Any) -> None:
    """Raise unless `params` is `Params` with a dict of tasks and floating leaves.

    Raises:
        TypeError: not a `Params`, tasks not a dict, or a leaf that is not of a real floating dtype.
        ValueError: no tasks.

    Example:
        >>> import jax.numpy as jnp
        >>> check_params("value_and_grad", Params({"w": jnp.arange(3)}, {"a": ()}))
        Traceback (most recent call last):
        ...
        TypeError: value_and_grad: params.shared['w'] must be of a floating dtype, found int32; keep what is not trained
        in the state
    """
    if not isinstance(params, Params):
        split = ""
        if isinstance(params, Mapping):
            split = (
                "; of one tree, such as Flax's, put what each task alone reaches under tasks, for example "
                "Params({'trunk': tree['trunk']}, {'depth': tree['depth_head']})"
            )
        raise TypeError(
            f"{where}: params must be a mtljax.Params(shared, tasks), found a {type(params).__name__}{split}"
        )
    tasks = "a dict by task name, with an empty tree for a task without parameters"
    expect(isinstance(params.tasks, dict), where, "params.tasks", tasks, params.tasks, TypeError)
    expect(bool(params.tasks), where, "params.tasks", tasks, params.tasks, ValueError)
    check_floating(where, params)


def check_floating(where: str, params: Any) -> None:
    """Raise unless all leaves of parameters of any form are of a real floating dtype.

    Example:
        >>> check_floating("carry", {"ids": np.arange(3)})
        Traceback (most recent call last):
        ...
        TypeError: carry: params['ids'] must be of a floating dtype, found int64; keep what is not trained in the state
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        dtype = getattr(leaf, "dtype", None) or np.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{where}: params{jax.tree_util.keystr(path)} must be of a floating dtype, found {dtype}; "
                "keep what is not trained in the state"
            )


def split_aux(out: Any, has_aux: bool) -> tuple[Any, Any]:
    """Losses and aux out of what a loss function returned; aux is None without `has_aux`.

    Example:
        >>> split_aux({"a": 1.0}, True)
        Traceback (most recent call last):
        ...
        TypeError: losses_fn: what it returns must be (losses, aux) where has_aux is True, found {'a': 1.0}
    """
    if has_aux:
        pair = isinstance(out, tuple | list) and len(out) == 2
        expect(pair, "losses_fn", "what it returns", "(losses, aux) where has_aux is True", out, TypeError)
        return out[0], out[1]
    return out, None


def with_aux(losses: Any, aux: Any, has_aux: bool) -> Any:
    """`(losses, aux)` with `has_aux`, the losses alone without: what `value_and_grad` returns first.

    Example:
        >>> with_aux(1.0, "more", True), with_aux(1.0, None, False)
        ((1.0, 'more'), 1.0)
    """
    return (losses, aux) if has_aux else losses


def by_entry(losses: Any, names: Sequence[str], *, banks: bool = True, where: str = "losses_fn") -> tuple[Array, ...]:
    """Losses as a tuple by entry of the tasks: a scalar for a single task, `[n]` for a bank of n tasks.

    Args:
        losses: dict by entry, or an array `[T]` of single tasks.
        names: the entries of the tasks, in their order.
        banks: whether an entry may be a bank.
        where: who gives the losses; it opens the messages.

    Raises:
        ValueError: entries that differ from `names`, a loss that is not a scalar or `[n]`, an array that is not `[T]`.
        TypeError: losses that are not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> by_entry({"a": jnp.array(1.0), "b": jnp.array(2.0)}, ["a", "c"])
        Traceback (most recent call last):
        ...
        ValueError: losses_fn: losses must be of the tasks ['a', 'c'], found ['a', 'b']
    """
    names = list(names)
    if isinstance(losses, Mapping):
        if sorted(losses, key=str) != sorted(names):
            raise ValueError(f"{where}: losses must be of the tasks {names}, found {list(losses)}")
        found = tuple(_array(where, f"the loss of task '{name}'", losses[name]) for name in names)
        for name, loss in zip(names, found, strict=True):
            if loss.ndim > int(banks) or loss.shape == (0,):
                expected = "a scalar, or [n] for a bank of n tasks" if banks else "a scalar"
                raise ValueError(f"{where}: the loss of task '{name}' must be {expected}, found shape {loss.shape}")
    else:
        array = _array(where, "losses", losses)
        if array.shape != (len(names),):
            raise ValueError(f"{where}: losses must be of shape ({len(names)},) for {names}, found {array.shape}")
        found = tuple(array[k] for k in range(len(names)))
    for name, loss in zip(names, found, strict=True):
        if not jnp.issubdtype(loss.dtype, jnp.floating):
            raise TypeError(f"{where}: the loss of task '{name}' must be of a floating dtype, found {loss.dtype}")
    return found


def check_banks(entries: Entries, params: Params) -> None:
    """Raise where the parameters of a bank of n tasks do not lead with n.

    Example:
        >>> import jax.numpy as jnp
        >>> check_banks(Entries(("assays",), (3,)), Params((), {"assays": {"w": jnp.ones((2, 5))}}))
        Traceback (most recent call last):
        ...
        ValueError: losses_fn: the loss of task 'assays' must be a scalar, or [n] for a bank of n tasks with parameters
        [n, ...], found shape (3,) and params.tasks['assays']['w'] of shape (2, 5)
    """
    for name, size in zip(entries.names, entries.sizes, strict=True):
        if size is None:
            continue
        for path, leaf in jax.tree_util.tree_flatten_with_path(params.tasks[name])[0]:
            if jnp.shape(leaf)[:1] != (size,):
                where = f"params.tasks[{name!r}]{jax.tree_util.keystr(path)}"
                raise ValueError(
                    f"losses_fn: the loss of task '{name}' must be a scalar, or [n] for a bank of n tasks with "
                    f"parameters [n, ...], found shape ({size},) and {where} of shape {jnp.shape(leaf)}"
                )


def _array(where: str, what: str, value: Any) -> Array:
    if not isinstance(value, jax.Array | np.ndarray | np.generic | float | int):
        expected = "an array" if what != "losses" else "a dict of scalars by task, or an array [T]"
        raise TypeError(f"{where}: {what} must be {expected}, found {found(value)}")
    return jnp.asarray(value)
