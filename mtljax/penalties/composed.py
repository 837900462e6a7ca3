"""Penalties made of penalties: sums, weights per subtree, penalties on selected leaves."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mtljax.checks import check_nonnegative, expect, is_zero
from mtljax.penalties.common import Penalty, check_penalty
from mtljax.types import Array, PyTree


def total(*penalties: Penalty) -> Penalty:
    """The sum of penalties on the same parameters.

        value(w) = sum_k value_k(w)

    The sum of two or more penalties has no prox here, since one prox after the other is not the prox of the sum. So add
    all penalties but one to the objective, and give the one whose exact zeros or ties matter to `proximal`. Or use a
    penalty that is a sum with its own prox: `fused` (also for l1 plus l21, as `fused(0.0, sparse=a, joint=b)`) or
    `temporal_group_lasso`. A sum of penalties on different leaves has a prox: see `by_path`.

    Args:
        *penalties: at least one, all with the same `parts`.

    Returns:
        `Penalty`; its prox is that of a single penalty, and None for more.

    Raises:
        ValueError: there are no penalties, or they have different `parts`.

    Example:
        >>> from mtljax.penalties import l2_to_mean
        >>> both = total(l2_to_mean(1.0), l2_to_mean(0.5))
        >>> float(both(jnp.array([[0.0], [2.0]]))), both.prox
        (3.0, None)
    """
    parts = _common_parts("total", penalties)

    def value(stacked: PyTree) -> Array:
        return sum((penalty(stacked) for penalty in penalties[1:]), start=penalties[0](stacked))

    return penalties[0] if len(penalties) == 1 else Penalty(value=value, prox=None, parts=parts)


def weighted(penalty: Penalty, weights: PyTree) -> Penalty:
    """One penalty applied to several subtrees separately, each with its own weight, for example one per layer.

        value(w) = sum_i weights_i * value(w_i)
        prox(v, s)_i = prox(v_i, s weights_i), and v_i itself where weights_i is 0

    `weights` is a prefix of the stacked tree, with one number per subtree that is penalised as a unit. A penalty that
    couples leaves couples only the leaves under one weight: `weighted(task_l2(), {"layer0": 1.0, "layer1": 1.0})` has
    two groups per task, one per layer, while `task_l2()` has one.

    Args:
        penalty: any penalty; with `parts`, the weights apply to the tree of each part.
        weights: pytree of non-negative scalars, which may be traced; a subtree with weight 0 is not penalised.

    Returns:
        `Penalty`, with a prox if `penalty` has one.

    Raises:
        ValueError: a weight is negative or not a scalar; `weights` is not a prefix of the stacked tree.

    Example:
        >>> from mtljax.penalties import l2_to_mean
        >>> penalty = weighted(l2_to_mean(), {"trunk": 0.5, "head": 0.0})
        >>> w = {"trunk": {"w": jnp.array([[0.0], [2.0]])}, "head": jnp.array([[0.0], [9.0]])}
        >>> float(penalty(w))
        1.0
        >>> penalty.prox(w, 1e9)["head"][:, 0]
        Array([0., 9.], dtype=float32)
    """
    parts = _common_parts("weighted", (penalty,))
    numbers, structure = jax.tree.flatten(weights)
    for number in numbers:
        check_nonnegative("weighted", "weights", number)
    inner = penalty.prox

    def subtrees(tree: PyTree) -> list[PyTree]:
        try:
            return structure.flatten_up_to(tree)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"weighted: weights must be a prefix of the stacked tree, found {structure}: {error}"
            ) from None

    def split(stacked: PyTree) -> list[PyTree]:
        """By weight, the tree that the penalty gets."""
        if not parts:
            return subtrees(stacked)
        by_part = {part: subtrees(stacked[part]) for part in parts}
        return [{part: by_part[part][i] for part in parts} for i in range(len(numbers))]

    def value(stacked: PyTree) -> Array:
        pairs = zip(numbers, split(stacked), strict=True)
        terms = (number * penalty(tree) for number, tree in pairs if not is_zero(number))
        return sum(terms, start=jnp.zeros((), jnp.float32))

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_nonnegative("weighted", "step_size", step_size)
        assert inner is not None

        def subtree(operator: Callable[..., PyTree], number: Array | float, tree: PyTree) -> PyTree:
            if is_zero(number):
                return tree
            moved = operator(tree, step_size * number)
            # A traced weight may be 0, and a prox with step size 0 may round its argument.
            return jax.tree.map(lambda new, old: jnp.where(number == 0, old, new), moved, tree)

        moved = [subtree(inner, number, tree) for number, tree in zip(numbers, split(stacked), strict=True)]
        if not parts:
            return structure.unflatten(moved)
        return {part: structure.unflatten([tree[part] for tree in moved]) for part in parts}

    return Penalty(value=value, prox=None if inner is None else prox, parts=parts)


def on(penalty: Penalty, where: Callable[[str], object]) -> Penalty:
    """One penalty on the selected leaves together; the other leaves are not penalised.

    Args:
        penalty: any penalty.
        where: function of a leaf's path that is true for the leaves to penalise, such as the `search` of a compiled
            regular expression. The path of `tree["layer0"]["kernel"]` is "layer0/kernel".

    Returns:
        `Penalty`, with a prox if `penalty` has one; it leaves the other leaves unchanged.

    Raises:
        ValueError: at a call, `where` selects no leaf of a tree with leaves.

    Example:
        >>> import re
        >>> from mtljax.penalties import l2_to_mean
        >>> kernels = on(l2_to_mean(), re.compile("kernel$").search)
        >>> layer = {"kernel": jnp.array([[0.0], [2.0]]), "bias": jnp.array([0.0, 9.0])}
        >>> float(kernels({"layer0": layer, "layer1": layer}))
        4.0
    """
    return _by_path("on", ((where, penalty),))


def by_path(*rules: tuple[Callable[[str], object], Penalty]) -> Penalty:
    """Different penalties on different leaves: a leaf belongs to the first rule that matches its path.

        value(w) = sum_k value_k(leaves under rule k)
        prox(v, s) = prox_k(v, s) on the leaves of rule k; leaves of no rule stay unchanged

    A rule's penalty gets the leaves of the rule together. No leaf belongs to two rules, so the prox of the sum is the
    prox of each. A penalty that couples leaves couples all leaves of its rule; to separate layers, give one rule per
    layer, or use `weighted`.

    Args:
        *rules: pairs of a function of a leaf's path, as in `on`, and a penalty; all penalties with the same `parts`.
            With `parts`, the path is the one within a part.

    Returns:
        `Penalty`, with a prox if all penalties have one.

    Raises:
        ValueError: there are no rules, or penalties have different `parts`; at a call, a rule matches no leaf of a tree
            with leaves.

    Example:
        >>> from mtljax.penalties import l2_to_mean
        >>> penalty = by_path(
        ...     (lambda path: path.startswith("layer0"), l2_to_mean(1.0)),
        ...     (lambda path: path.endswith("kernel"), l2_to_mean(0.1)),
        ... )
        >>> apart = {"kernel": jnp.array([[0.0], [2.0]])}
        >>> round(float(penalty({"layer0": apart, "layer1": apart, "head": {"bias": jnp.array([0.0, 9.0])}})), 6)
        2.2
    """
    return _by_path("by_path", rules)


def _by_path(name: str, rules: tuple[tuple[Callable[[str], object], Penalty], ...]) -> Penalty:
    for rule in rules:
        # A Penalty is a tuple too, and can be called.
        pair = isinstance(rule, tuple) and not isinstance(rule, Penalty) and len(rule) == 2 and callable(rule[0])
        expect(pair, name, "a rule", "a pair of a function of the path and a Penalty", rule, TypeError)
    penalties = tuple(penalty for _, penalty in rules)
    parts = _common_parts(name, penalties)
    operators = [penalty.prox for penalty in penalties]

    def split(stacked: PyTree) -> list[tuple[list[int], PyTree]]:
        """By rule, the indices of its leaves, and the tree without the other leaves."""
        leaves, structure = jax.tree_util.tree_flatten_with_path(stacked)
        paths = [jax.tree_util.keystr(path[1:] if parts else path, simple=True, separator="/") for path, _ in leaves]
        firsts = [next((k for k, (where, _) in enumerate(rules) if where(path)), None) for path in paths]
        found = []
        for k in range(len(rules)):
            chosen = [i for i, first in enumerate(firsts) if first == k]
            if leaves and not chosen:
                raise ValueError(f"{name}: rule {k} matches no leaf; the paths are {sorted(set(paths))}")
            kept = [leaf if first == k else None for first, (_, leaf) in zip(firsts, leaves, strict=True)]
            found.append((chosen, structure.unflatten(kept)))
        return found

    def value(stacked: PyTree) -> Array:
        terms = (penalty(tree) for penalty, (_, tree) in zip(penalties, split(stacked), strict=True))
        return sum(terms, start=jnp.zeros((), jnp.float32))

    def prox(stacked: PyTree, step_size: Array | float) -> PyTree:
        check_nonnegative(name, "step_size", step_size)
        leaves, structure = jax.tree.flatten(stacked)
        for operator, (chosen, tree) in zip(operators, split(stacked), strict=True):
            assert operator is not None
            for i, leaf in zip(chosen, jax.tree.leaves(operator(tree, step_size)), strict=True):
                leaves[i] = leaf
        return structure.unflatten(leaves)

    return Penalty(value=value, prox=None if None in operators else prox, parts=parts)


def _common_parts(name: str, penalties: tuple[Penalty, ...]) -> tuple[str, ...]:
    """The `parts` of all penalties, after checking that there are penalties and that their parts are the same."""
    if not penalties:
        raise ValueError(f"{name}: penalties must be at least one, found none")
    for penalty in penalties:
        check_penalty(name, penalty)
        if penalty.parts != penalties[0].parts:
            raise ValueError(
                f"{name}: the penalties must have the same parts, found {penalties[0].parts} and {penalty.parts}"
            )
    return penalties[0].parts
