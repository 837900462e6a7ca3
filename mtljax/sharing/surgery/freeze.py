"""Which parameters an optimiser updates: labels by path for `optax.partition`, freezing and thawing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtljax.checks import check_optimizer, expect
from mtljax.types import PyTree

Where = str | tuple[str, ...] | Callable[[str], object]
"""Selects leaves: a prefix of paths, as "shared" or ("tasks", "depth"), or a function of a path "tasks/depth/bias"."""

TRAINED, HELD = "trained", "held"
"""The two groups of `freeze` and `thaw`, which are keys of `PartitionState.inner_states`."""


def part_labels(*rules: tuple[Where, str], default: str) -> Callable[[PyTree], PyTree]:
    """Labels for `optax.partition`: each parameter gets the label of the first rule that matches its path.

    For example, to fine-tune the shared parameters with a smaller learning rate:

        labels = part_labels(("shared", "slow"), default="fast")
        optimizer = optax.partition({"slow": optax.adamw(1e-5), "fast": optax.adamw(1e-3)}, labels)

    The transformation of a label sees the parameters of that label alone: it computes a global norm over them, and has
    its own step count.

    Args:
        *rules: pairs `(where, label)`. `where` is a prefix of paths, as "shared" or ("tasks", "depth"); or a function
            of a leaf's path that is true for the selected leaves, such as the `search` of a compiled regular
            expression. The path of `params.tasks["depth"]["head"]["kernel"]` is "tasks/depth/head/kernel".
        default: label of the leaves that no rule matches.

    Returns:
        Function from the parameters to a tree of labels with the same structure.

    Raises:
        ValueError: from the function, a rule matches no leaf of a tree with leaves.

    Example:
        >>> from mtljax.types import Params
        >>> depth, biases = (("tasks", "depth"), "own"), (lambda path: path.endswith("bias"), "free")
        >>> part_labels(depth, biases, default="all")(Params({"kernel": 0, "bias": 0}, {"depth": {"bias": 0}}))
        Params(shared={'bias': 'free', 'kernel': 'all'}, tasks={'depth': {'bias': 'own'}})
    """
    for rule in rules:
        pair = isinstance(rule, tuple) and len(rule) == 2 and isinstance(rule[1], str)
        expect(pair, "part_labels", "a rule", "a pair (where, label)", rule, TypeError)
        _check_where("part_labels", "a rule", rule[0])
    expect(isinstance(default, str), "part_labels", "default", "a label, a string", default, TypeError)

    def labels(params: PyTree) -> PyTree:
        leaves, structure = jax.tree_util.tree_flatten_with_path(params)
        paths = [path for path, _ in leaves]
        firsts = [next((k for k, (where, _) in enumerate(rules) if _fits(where, path)), None) for path in paths]
        for k, (where, label) in enumerate(rules):
            if leaves and k not in firsts:
                known = sorted({"/".join(_names(path)) for path in paths})
                raise ValueError(f"part_labels: the rule ({where!r}, {label!r}) must match a path, found {known}")
        return structure.unflatten([default if k is None else rules[k][1] for k in firsts])

    return labels


def freeze(
    optimizer: optax.GradientTransformation, where: Where, *, banks: Mapping[str, Sequence[str]] = {}
) -> optax.GradientTransformationExtraArgs:
    """An optimiser that leaves the selected parameters exactly as they are (except the sign of a zero).

    Their updates are zero for any gradients, NaN included. Weight decay, momentum and clipping by a global norm see the
    other parameters alone, and the frozen parameters have no optimiser state. The result is `optax.partition` of
    `optimizer` and `optax.set_to_zero`; `optax.selective_transform` does the same from a mask.

    Batch statistics are not parameters: they still change if the network is applied with `train=True`.

    Args:
        optimizer: for the parameters that are trained.
        where: the parameters to freeze, a prefix or a function of a leaf's path as in `part_labels`.
        banks: `model.banks`, where tasks of banks are to be frozen one by one: paths of a bank's leaves then hold the
            task's name behind the bank's, as "tasks/assays/nr_ar/kernel". Rows of frozen tasks do not change. They have
            entries in the optimiser's state, whose gradients are 0.

    Returns:
        Transformation whose state is `optax.PartitionState` with the groups "trained" and "held". To start from a state
        of `optimizer` itself, use
        `carry_over(frozen.init(params), optax.PartitionState({"trained": optax.MaskedState(opt_state)}))`.

    Raises:
        ValueError: from `init` and `update`, `where` selects no leaf of a tree with leaves.

    Example:
        >>> import jax.numpy as jnp
        >>> from mtljax.types import Params
        >>> params = Params(shared=jnp.ones(1), tasks={"depth": jnp.ones(1)})
        >>> optimizer = freeze(optax.sgd(0.5), "shared")
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> optax.apply_updates(params, updates)
        Params(shared=Array([1.], dtype=float32), tasks={'depth': Array([0.5], dtype=float32)})
    """
    check_optimizer("freeze", "optimizer", optimizer)
    _check_where("freeze", "where", where)
    groups: dict[Hashable, Any] = {TRAINED: optimizer, HELD: optax.set_to_zero()}
    if not banks:
        return optax.partition(groups, part_labels((where, HELD), default=TRAINED))

    def labels(params: PyTree) -> PyTree:
        return jax.tree.map(lambda rows: HELD if rows.all() else TRAINED, _held(where, banks, params))

    def without_held(held: PyTree, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda rows, leaf: jnp.where(_along(rows, leaf), jnp.zeros_like(leaf), leaf), held, tree)

    inner = optax.partition(groups, labels)

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        held = _held(where, banks, updates)
        found, state = inner.update(without_held(held, updates), state, params, **extra)
        return without_held(held, found), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def thaw(optimizer: optax.GradientTransformation, where: Where) -> optax.GradientTransformationExtraArgs:
    """An optimiser that trains again the parameters that `freeze(optimizer, where)` has frozen.

        thawed = thaw(optimizer, where)
        opt_state = carry_over(thawed.init(params), opt_state)

    The state of the other parameters is carried over exactly. The thawed parameters start with new moments and their
    own step count, so Adam's correction for moments that start at zero is right for both groups, and a schedule starts
    again for the thawed group. Clipping by a global norm treats the two groups separately.

    `thaw` also serves new parameters (`add_task`), with `where` the new task. To start from a state of `optimizer`
    itself, use `carry_over(thawed.init(params), optax.PartitionState({"trained": optax.MaskedState(opt_state)}))`.

    Args:
        optimizer: for all parameters, in two groups; its state must have the structure of that of the optimiser given
            to `freeze`, but the learning rate may differ.
        where: the frozen parameters, as given to `freeze`.

    Returns:
        Transformation whose state is `optax.PartitionState` with the groups "trained" and "held".

    Raises:
        ValueError: as `freeze`.

    Example:
        >>> import jax.numpy as jnp
        >>> from mtljax.sharing.surgery.edit import carry_over
        >>> from mtljax.types import Params
        >>> params = Params(shared=jnp.ones(1), tasks={"depth": jnp.ones(1)})
        >>> frozen, thawed = freeze(optax.adam(0.1), "shared"), thaw(optax.adam(0.1), "shared")
        >>> _, state = frozen.update(params, frozen.init(params), params)
        >>> state = carry_over(thawed.init(params), state)
        >>> [int(state.inner_states[group].inner_state[0].count) for group in ("trained", "held")]
        [1, 0]
    """
    check_optimizer("thaw", "optimizer", optimizer)
    _check_where("thaw", "where", where)
    return optax.partition({TRAINED: optimizer, HELD: optimizer}, part_labels((where, HELD), default=TRAINED))


def _held(where: Where, banks: Mapping[str, Sequence[str]], params: PyTree) -> PyTree:
    """By leaf, whether it is held: bool `[]`, or `[n]` of a bank's leaf."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    found = []
    for path, _ in leaves:
        names = _names(path)
        bank = banks.get(names[1]) if names[:1] == ("tasks",) and len(names) > 1 else None
        each = [names] if bank is None else [(*names[:2], task, *names[2:]) for task in bank]
        held = np.array([_fits_names(where, one) for one in each])
        found.append(held[0] if bank is None else held)
    if leaves and not any(each.any() for each in found):
        known = sorted({"/".join(_names(path)) for path, _ in leaves})
        raise ValueError(f"freeze: where must select a leaf, of {known}, or a task of {dict(banks)}, found {where!r}")
    return structure.unflatten(found)


def _along(rows: np.ndarray, leaf: Any) -> np.ndarray:
    return rows.reshape(rows.shape + (1,) * (jnp.ndim(leaf) - rows.ndim))


def _check_where(name: str, what: str, where: Where) -> None:
    prefix = (where,) if isinstance(where, str) else where
    meant = callable(where) or (isinstance(prefix, tuple) and prefix and all(isinstance(part, str) for part in prefix))
    expected = "a prefix such as 'shared' or ('tasks', 'depth'), or a function of the path"
    expect(bool(meant), name, what, expected, where, TypeError)


def _names(path: tuple) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _fits(where: Where, path: tuple) -> bool:
    return _fits_names(where, _names(path))


def _fits_names(where: Where, names: tuple[str, ...]) -> bool:
    if callable(where):
        return bool(where("/".join(names)))
    prefix = (where,) if isinstance(where, str) else where
    return names[: len(prefix)] == prefix
