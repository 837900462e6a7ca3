"""Carrying values from one tree over into another by path: parameters, and states of models and optimisers."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtljax.banks import Banks, Moves, moved, moves_at
from mtljax.types import PyTree

TELLERS = ("the new model's banks", "the old model's banks")


def carry_over(new: PyTree, old: PyTree, *, banks: tuple[Banks, Banks] = ({}, {})) -> PyTree:
    """The new tree with the old values at every path that both have.

        result[path] = old[path] if path in old else new[path]

    Use it when the structure of the parameters changes. An optax state contains trees with the structure of the
    parameters, so it works for these too, after `add_task` or `without_task`, or between `freeze` and `thaw`:

        opt_state = carry_over(optimizer.init(new_params), opt_state)

    Moments of old parameters are kept; those of new parameters start at zero. But Adam has one step count for all
    parameters, so its correction for moments that start at zero is over. New parameters then take steps up to 6.6
    times too long for some hundred steps (with the usual decays 0.9 and 0.999). Give them their own count with `thaw`,
    or train them alone for a while. A state with one entry per task, such as a method's state, cannot be carried over:
    make it with `method.init(num_tasks)`.

    Args:
        new: pytree of arrays, for its structure and for the values that are new.
        old: pytree of arrays; what it has at other paths is dropped.
        banks: `(new_model.banks, old_model.banks)`, where the models have banks. Rows of a bank's leaves, below
            `tasks` and the bank's name, are carried over by the tasks' names.

    Returns:
        Pytree like `new`. Carried leaves are the old arrays themselves, not copies, so a step that donates its state
        consumes them.

    Raises:
        ValueError: a leaf's shape or dtype differs between the two trees; both have leaves but no path in common; the
            names of a bank's tasks are given for one of the trees alone.

    Example:
        >>> old = {"a": jnp.array(1.0), "b": jnp.array(2.0)}
        >>> carry_over({"b": jnp.array(0.0), "c": jnp.array(0.0)}, old)
        {'b': Array(2., dtype=float32, weak_type=True), 'c': Array(0., dtype=float32, weak_type=True)}
    """
    found = matched("carry_over", new, old, banks)
    if not found.carried and jax.tree.leaves(new) and jax.tree.leaves(old):
        raise ValueError(
            f"carry_over: new and old must have a path in common, found for example {found.fresh[0]} in new and "
            f"{found.dropped[0]} in old"
        )
    return found.tree


class Match(NamedTuple):
    """The result of matching two trees by path.

    Attributes:
        tree: the new tree with the old values at the paths that both trees have.
        carried: paths of both trees.
        fresh: paths of the new tree alone.
        dropped: paths of the old tree alone.
    """

    tree: PyTree
    carried: list[str]
    fresh: list[str]
    dropped: list[str]


def matched(where: str, new: PyTree, old: PyTree, banks: tuple[Banks, Banks] = ({}, {})) -> Match:
    """The new tree with the old values at common paths, and the lists of paths; leaves may be arrays or shapes.

    Args:
        where: the public function that calls this one; the message starts with its name.
        new: pytree.
        old: pytree.
        banks: of the new tree and of the old one. A path of a bank's leaf stands for its tasks one by one.

    Raises:
        ValueError: a leaf's shape or dtype differs, or names of a bank's tasks are missing.

    Example:
        >>> matched("add_task", {"a": 1, "b": 1}, {"a": 2, "c": 2})
        Match(tree={'a': 2, 'b': 1}, carried=["['a']"], fresh=["['b']"], dropped=["['c']"])
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(new)
    before = dict(jax.tree_util.tree_flatten_with_path(old)[0])
    values, carried, fresh, dropped = [], [], [], []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        if path not in before:
            fresh.append(name)
            values.append(leaf)
            continue
        value = before.pop(path)
        moves = moves_at(where, path, banks, TELLERS)
        if moves is not None and _leads(value, leaf, moves):
            values.append(moved(moves, leaf, value))
            carried += [f"{name} of {task}" for task in moves.common]
            fresh += [f"{name} of {task}" for task in moves.fresh]
            dropped += [f"{name} of {task}" for task in moves.dropped]
            continue
        if _kind(value) != _kind(leaf):
            raise ValueError(f"{where}: leaf {name} must be {_kind(leaf)} in the old tree, found {_kind(value)}")
        carried.append(name)
        values.append(value)
    return Match(structure.unflatten(values), carried, fresh, dropped + [jax.tree_util.keystr(path) for path in before])


def _leads(old: Any, new: Any, moves: Moves) -> bool:
    """Whether both leaves are `[n, ...]` of the bank, and alike from there on."""
    shapes = jnp.shape(old), jnp.shape(new)
    lead = [shape[:1] for shape in shapes] == [(size,) for size in moves.size]
    return lead and shapes[0][1:] == shapes[1][1:] and _dtype(old) == _dtype(new)


def _kind(leaf: Any) -> str:
    return f"{_dtype(leaf)}{list(jnp.shape(leaf))}"


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
