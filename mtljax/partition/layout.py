"""The owner of each leaf of a pytree of parameters, and the conversion to `Params` and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from mtljax.checks import check_names, expect, found
from mtljax.engines.checks import check_floating
from mtljax.types import Params, PyTree

Own = Callable[[str], str | None] | Mapping[str, str | Sequence[str]]
"""Who owns what: `own(path) -> task or None` for each leaf's path, such as "depth/kernel"; or a dict by task of the
path at which its parameters begin, or of several such paths. `{}`: all are shared."""


class Layout(NamedTuple):
    """The owner of each leaf of a pytree.

    Attributes:
        names: the T tasks, in task order.
        owners: for each leaf, in the order of `jax.tree.leaves`, the number of its task; None where it is shared.
        paths: of each leaf, such as "depth/kernel".
        structure: of the pytree.
    """

    names: list[str]
    owners: list[int | None]
    paths: list[str]
    structure: Any


def layout_of(where: str, own: Own, params: PyTree, names: Sequence[str]) -> Layout:
    """The owners of leaves, as the caller says."""
    paths = paths_of(where, params)
    return Layout(list(names), owners_of(where, own, paths, names), paths, jax.tree.structure(params))


def split(layout: Layout, tree: PyTree) -> Params:
    """A pytree as `Params`: an owned leaf is in a list under its task, and leaves a hole (None) in `shared`.

    Example:
        >>> import jax.numpy as jnp
        >>> tree = {"x": jnp.ones(1), "y": jnp.ones(1)}
        >>> split(layout_of("split", {"b": "y"}, tree, ["b", "a"]), tree)
        Params(shared={'x': Array([1.], dtype=float32), 'y': None},
        tasks={'0 b': [Array([1.], dtype=float32)], '1 a': []})
    """
    keys = keys_of(layout.names)
    tasks: dict[str, list[Any]] = {key: [] for key in keys}
    for leaf, owner in zip(jax.tree.leaves(tree), layout.owners, strict=True):
        if owner is not None:
            tasks[keys[owner]].append(leaf)
    return Params(_with_holes(tree, layout.owners), tasks)


def join(layout: Layout, parts: Params) -> PyTree:
    """The inverse of `split`."""
    shared, own = iter(jax.tree.leaves(parts.shared)), [iter(parts.tasks[key]) for key in keys_of(layout.names)]
    leaves = [next(shared if owner is None else own[owner]) for owner in layout.owners]
    return jax.tree.unflatten(layout.structure, leaves)


def has_tasks(params: PyTree) -> bool:
    """Whether parameters are `Params` that are split by task, and not one pytree.

    Example:
        >>> has_tasks(Params(1.0, {"a": ()})), has_tasks(Params(1.0, {})), has_tasks({"w": 1.0})
        (True, False, False)
    """
    return isinstance(params, Params) and not (isinstance(params.tasks, Mapping) and not params.tasks)


def shared_of(where: str, own: Own | None, params: PyTree) -> PyTree:
    """The shared parameters of a pytree, with holes where something is owned.

    Example:
        >>> import jax.numpy as jnp
        >>> shared_of("carry", {"a": "head"}, {"head": jnp.ones(1), "trunk": jnp.ones(1)})
        {'head': None, 'trunk': Array([1.], dtype=float32)}
    """
    return params if not own else _with_holes(params, owners_of(where, own, paths_of(where, params), None))


def _with_holes(tree: PyTree, owners: Sequence[int | None]) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    shared = [leaf if owner is None else None for leaf, owner in zip(leaves, owners, strict=True)]
    return jax.tree.unflatten(structure, shared)


def keys_of(names: Sequence[str]) -> list[str]:
    """Names under which tasks are sorted in the order in which they are given.

    Example:
        >>> keys_of(["a", "b"]), keys_of(["b", "a"])
        (['a', 'b'], ['0 b', '1 a'])
    """
    if list(names) == sorted(names):
        return list(names)
    width = len(str(len(names) - 1))
    return [f"{k:0{width}} {name}" for k, name in enumerate(names)]


def paths_of(where: str, params: PyTree) -> list[str]:
    """The path of each leaf, such as "depth/kernel", after checking that all are floating arrays and there are some."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    expect(bool(leaves), where, "params", "a pytree of floating arrays", params, TypeError)
    check_floating(where, params)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]


def owners_of(where: str, own: Own, paths: Sequence[str], names: Sequence[str] | None) -> list[int | None]:
    """The number of each leaf's task, None where it is shared, as the caller says.

    Args:
        where: the public function asking, which opens the message.
        own: who owns what.
        paths: of the leaves.
        names: the tasks in their order; None to take any name, in the order of leaves.

    Raises:
        TypeError: own of another type.
        ValueError: an owner that is not a task, a path at which nothing begins, a leaf with two owners.

    Example:
        >>> owners_of("value_and_grad", {"b": "head", "a": ["x"]}, ["head/w", "trunk", "x"], ["a", "b"])
        [1, None, 0]
    """
    told = "a function of a leaf's path that returns a task or None, or a dict by task of paths"
    expect(callable(own) or isinstance(own, Mapping), where, "own", told, own, TypeError)
    claims: list[str | None] = [None] * len(paths)
    if isinstance(own, Mapping):
        for task, begins in own.items():
            starts = [begins] if isinstance(begins, str) else check_names(where, f"own[{task!r}]", begins)
            for start in starts:
                fit = [k for k, path in enumerate(paths) if f"{path}/".startswith(f"{start.rstrip('/')}/")]
                if not fit:
                    raise ValueError(
                        f"{where}: own[{task!r}] must be where paths of parameters begin, such as {paths[0]!r}, found "
                        f"{start!r}"
                    )
                for k in fit:
                    if claims[k] not in (None, task):
                        raise ValueError(
                            f"{where}: own must give each parameter to one task at most, found {paths[k]!r} given to "
                            f"{claims[k]!r} and to {task!r}"
                        )
                    claims[k] = task
    else:
        claims = [own(path) for path in paths]
    tasks = list(dict.fromkeys(claim for claim in claims if claim is not None)) if names is None else list(names)
    for path, claim in zip(paths, claims, strict=True):
        if claim is not None and claim not in tasks:
            raise ValueError(
                f"{where}: own must give parameters to the tasks {tasks}, found {path!r} given to {found(claim)}"
            )
    return [None if claim is None else tasks.index(claim) for claim in claims]
