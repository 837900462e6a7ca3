"""Penalties made of penalties: sums, weights by subtree, penalties for chosen leaves."""

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

    There is no prox of two or more: one prox after the other is not the prox of the sum, since the second moves what
    the first had put in its place. So give all but one to the objective, by their gradient, and the one whose exact
    zeros or ties matter to `proximal`; or take a penalty that is a sum with a prox of its own: `fused` (also for l1
    plus l21, as `fused(0.0, sparse=a, joint=b)`) and `temporal_group_lasso`. Penalties on different leaves do not
    meet, and their sum has a prox: see `by_path`.

    Args:
        *penalties: at least one, all with the same `parts`.

    Returns:
        `Penalty`; its prox is that of a single penalty, and None for more.

    Raises:
        ValueError: no penalties, or penalties of different `parts`.
        TypeError: an argument is no `Penalty`.

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
    """A penalty on each of some subtrees by itself, times a weight: strengths by layer.

        value(w) = sum_i weights_i * value(w_i)
        prox(v, s)_i = prox(v_i, s weights_i), and v_i itself where weights_i is 0

    `weights` is a prefix of the stacked tree, with a number wherever a subtree is to be penalised as a unit. For a
    penalty that is a sum over leaves these are the weights of the leaves. A penalty that couples leaves couples those
    under one weight and no others: `weighted(task_l2(), {"layer0": 1.0, "layer1": 1.0})` has two groups a task, one
    for each layer, where `task_l2()` has one.

    Args:
        penalty: any penalty; with `parts`, the weights are for the tree of each part.
        weights: pytree of non-negative scalars, which may be traced; 0 leaves the subtree out.

    Returns:
        `Penalty`, with a prox where `penalty` has one.

    Raises:
        ValueError: a weight is negative or no scalar; the weights are no prefix of what is penalised.
        TypeError: `penalty` is no `Penalty`.

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
            raise ValueError(f"weighted: the weights {structure} are no prefix of what is penalised: {error}") from None

    def split(stacked: PyTree) -> list[PyTree]:
        """What the penalty sees under each weight."""
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
            # A traced weight may be 0, and a prox with step size 0 may still round.
            return jax.tree.map(lambda new, old: jnp.where(number == 0, old, new), moved, tree)

        moved = [subtree(inner, number, tree) for number, tree in zip(numbers, split(stacked), strict=True)]
        if not parts:
            return structure.unflatten(moved)
        return {part: structure.unflatten([tree[part] for tree in moved]) for part in parts}

    return Penalty(value=value, prox=None if inner is None else prox, parts=parts)


def on(penalty: Penalty, where: Callable[[str], object]) -> Penalty:
    """A penalty on chosen leaves alone, which it sees together; the others are free.

    Args:
        penalty: any penalty.
        where: function of a leaf's path, "layer0/kernel" for `tree["layer0"]["kernel"]`, to what is true for leaves
            that are penalised. The search of a regular expression is one.

    Returns:
        `Penalty`, with a prox where `penalty` has one; it leaves the other leaves as they are.

    Raises:
        ValueError: at a call, no leaf of a tree with leaves is chosen.
        TypeError: `where` is no function, or `penalty` no `Penalty`.

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
    """Each leaf under the first rule that fits its path; a rule's penalty sees the leaves under it together.

        value(w) = sum_k value_k(leaves under rule k)
        prox(v, s) = prox_k(v, s) on the leaves under rule k; leaves under no rule stay as they are

    No leaf is under two rules, so the prox of the sum is the prox of each. A penalty that couples leaves couples those
    under its rule; give one rule a layer, or `weighted`, to keep layers apart.

    Args:
        *rules: pairs of a function of a leaf's path, as in `on`, and a penalty; all penalties with the same `parts`.
            With `parts`, the path is the one within a part.

    Returns:
        `Penalty`, with a prox where all penalties have one.

    Raises:
        ValueError: no rules, or penalties of different `parts`; at a call, a rule under which no leaf comes, in a tree
            with leaves.
        TypeError: a rule is no pair of a function and a `Penalty`.

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
        """For each rule: which leaves are under it, and the tree without the others."""
        leaves, structure = jax.tree_util.tree_flatten_with_path(stacked)
        paths = [jax.tree_util.keystr(path[1:] if parts else path, simple=True, separator="/") for path, _ in leaves]
        firsts = [next((k for k, (where, _) in enumerate(rules) if where(path)), None) for path in paths]
        found = []
        for k in range(len(rules)):
            chosen = [i for i, first in enumerate(firsts) if first == k]
            if leaves and not chosen:
                raise ValueError(f"{name}: no leaf comes under rule {k}; the paths are {sorted(set(paths))}")
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
    """The parts that all the penalties ask for; raises where there are no penalties, or they differ."""
    if not penalties:
        raise ValueError(f"{name}: penalties must be at least one, found none")
    for penalty in penalties:
        check_penalty(name, penalty)
        if penalty.parts != penalties[0].parts:
            raise ValueError(
                f"{name}: the penalties must have the same parts, found {penalties[0].parts} and {penalty.parts}"
            )
    return penalties[0].parts
