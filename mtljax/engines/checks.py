"""Static checks of what goes into an engine; each raises at trace time and names what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.types import Array, Params


def check_params(params: Any) -> None:
    """Raise unless `params` is `Params` with a dict of tasks and floating leaves.

    Raises:
        TypeError: not a `Params`, tasks not a dict, or a leaf that is not of a real floating dtype.
        ValueError: no tasks.

    Example:
        >>> import jax.numpy as jnp
        >>> check_params(Params({"w": jnp.arange(3)}, {"a": ()}))
        Traceback (most recent call last):
        ...
        TypeError: params.shared['w'] has dtype int32, expected a floating dtype; keep what is not trained in the state
    """
    if not isinstance(params, Params):
        raise TypeError(
            f"params is a {type(params).__name__}, expected mtljax.Params(shared, tasks): of one tree, such as Flax's, "
            "put what each task alone reaches under tasks, for example Params({'trunk': tree['trunk']}, "
            "{'depth': tree['depth_head']})"
        )
    if not isinstance(params.tasks, dict):
        raise TypeError(f"params.tasks is a {type(params.tasks).__name__}, expected a dict by task name")
    if not params.tasks:
        raise ValueError(
            "params.tasks is empty, expected an entry a task (an empty tree for a task without parameters)"
        )
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} has dtype {dtype}, expected a floating dtype; "
                "keep what is not trained in the state"
            )


def as_scalars(losses: Any, names: Sequence[str]) -> tuple[Array, ...]:
    """Losses as a tuple of T scalars in task order.

    Args:
        losses: dict of scalars by task, or array `[T]`.
        names: the tasks of the parameters, sorted.

    Raises:
        ValueError: tasks that differ from `names`, a loss that is not a scalar, an array that is not `[T]`.
        TypeError: losses that are not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> as_scalars({"a": jnp.array(1.0), "b": jnp.array(2.0)}, ["a", "c"])
        Traceback (most recent call last):
        ...
        ValueError: losses_fn returned tasks ['a', 'b'] but params.tasks has ['a', 'c']
    """
    if isinstance(losses, dict):
        if sorted(losses) != list(names):
            raise ValueError(f"losses_fn returned tasks {sorted(losses)} but params.tasks has {list(names)}")
        scalars = tuple(jnp.asarray(losses[name]) for name in names)
        for name, loss in zip(names, scalars, strict=True):
            if loss.shape != ():
                raise ValueError(
                    f"losses_fn returned a loss of shape {loss.shape} for task '{name}', expected a scalar"
                )
    else:
        array = jnp.asarray(losses)
        if array.shape != (len(names),):
            raise ValueError(
                f"losses_fn returned losses of shape {array.shape}, expected ({len(names)},) for tasks {list(names)}"
            )
        scalars = tuple(array[k] for k in range(len(names)))
    for name, loss in zip(names, scalars, strict=True):
        if not jnp.issubdtype(loss.dtype, jnp.floating):
            raise TypeError(
                f"losses_fn returned a loss of dtype {loss.dtype} for task '{name}', expected a floating dtype"
            )
    return scalars
