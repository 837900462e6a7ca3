"""Proximal gradient steps: a penalty's prox as the last transformation of an optax chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtljax import trees
from mtljax.checks import check_callable, check_nonnegative, expect
from mtljax.penalties.common import Penalty, check_penalty
from mtljax.types import Array, PyTree


class ProximalState(NamedTuple):
    """The state of `proximal`.

    Attributes:
        count: int32 `[]`, number of updates, for a schedule.
    """

    count: Array


def proximal(
    penalty: Penalty,
    learning_rate: Callable[[Array], Array | float] | Array | float,
    *,
    where: Callable[[PyTree], Mapping[str, PyTree]] | None = None,
    bank: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Proximal steps: the step of the transformations before it in the chain, then the penalty's prox.

        new = prox(params + updates, learning_rate),   updates' = new - params

        optax.chain(optax.sgd(rate), proximal(penalty, rate))

    This chain minimises `loss + penalty` by proximal gradient steps, if the gradient is that of the loss alone: leave
    the penalty out of the objective (`make_train_step` without `penalty`). Unlike the gradient of a penalty, the prox
    sets groups to exactly 0, and `params + updates'` keeps such zeros exactly. Other values may be rounded once more,
    so ties between tasks hold to rounding.

    `proximal` must be the last transformation of the chain, since a later one would change its result. The
    transformations before it must return the complete step with sign and learning rate, as optax's optimisers do, and
    `learning_rate` must be the same as theirs. The prox uses the Euclidean metric. After a step with momentum, it is
    the usual heuristic. Adaptive optimisers such as Adam have one learning rate per parameter; in that metric the prox
    of a group has no closed form. With the Euclidean prox zeros are still exact, but the chain does not converge to the
    minimiser of `loss + penalty`: the smaller the step of a parameter, the more the penalty weighs on it. To find the
    minimiser, use SGD, or train with the optimiser without a penalty first and finish with SGD.

    Args:
        penalty: any penalty with a prox.
        learning_rate: non-negative scalar, which may be traced, or an optax schedule, a function of the step count.
        where: function from the parameters to the penalised trees, a dict by task of trees with the same structure,
            which are stacked in sorted order of names. All other parameters stay unchanged. The function must only
            select: it is called with other leaves in place of the arrays. None (default): the parameters themselves are
            stacked, with leaves `[T, *p]`. For the trunks of `sharing.soft`:
            `lambda params: {name: own["trunk"] for name, own in params.tasks.items()}`. With `bank`, a function from
            the bank's parameters to one tree of them, such as the kernels alone.
        bank: name of an entry of `params.tasks` that is a bank: its leaves `[n, *p]` are penalised as they are. None
            (default): `where` says what is stacked.

    Returns:
        Transformation with state `ProximalState`; `update` needs `params` and ignores unknown keyword arguments. In
        `training.make_train_step` the prox acts on all tasks in every step: if a task is absent, its copy has no
        gradient step, but the prox still pulls it towards the others.

    Raises:
        ValueError: the penalty has no prox; `update` gets no `params`; trees of tasks differ in structure or shape;
            there is no entry `bank`.

    Example:
        >>> from mtljax.penalties.l21 import l21
        >>> chain = optax.chain(optax.sgd(1.0), proximal(l21(1.0), 1.0))
        >>> w = {"w": jnp.array([[3.0, 0.5], [4.0, 0.0]])}
        >>> updates, state = chain.update(jax.tree.map(jnp.zeros_like, w), chain.init(w), w)
        >>> optax.apply_updates(w, updates)["w"]
        Array([[2.4, 0. ],
               [3.2, 0. ]], dtype=float32)
    """
    operator = check_penalty("proximal", penalty).prox
    if operator is None:
        raise ValueError("proximal: penalty must have a prox, found none; add it to the objective instead")
    if where is not None:
        check_callable("proximal", "where", where)
    if bank is not None:
        expect(isinstance(bank, str), "proximal", "bank", "the name of an entry of params.tasks", bank, TypeError)
    if not callable(learning_rate):
        check_nonnegative("proximal", "learning_rate", learning_rate)

    def init(params: PyTree) -> ProximalState:
        del params
        return ProximalState(jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree | None = None, **extra: Any) -> tuple[PyTree, ProximalState]:
        if params is None:
            raise ValueError("proximal: update needs params, the third argument of an optax update")
        step_size = learning_rate(state.count) if callable(learning_rate) else learning_rate
        old, structure = jax.tree.flatten(params)
        steps = structure.flatten_up_to(updates)
        if "before_prox" in extra:
            # A training step removes the steps of absent tasks from the optimizer's update; that must precede the prox.
            steps = structure.flatten_up_to(extra["before_prox"](updates))
        # In float32 at least, so that a small step is not lost to rounding before the prox.
        moved = [_wide(p) + _wide(u) for p, u in zip(old, steps, strict=True)]
        if bank is not None:
            place = _places_in(bank, where, structure)
            rows = operator(jax.tree.map(lambda i: moved[i], place), step_size)
            for i, leaf in zip(jax.tree.leaves(place), jax.tree.leaves(rows), strict=True):
                moved[i] = leaf
        elif where is None:
            moved = jax.tree.leaves(operator(structure.unflatten(moved), step_size))
        else:
            places = _places(where, structure)
            stacked = trees.stack([jax.tree.map(lambda i: moved[i], place) for place in places])
            rows = jax.tree.leaves(operator(stacked, step_size))
            for task, place in enumerate(places):
                for i, leaf in zip(jax.tree.leaves(place), rows, strict=True):
                    moved[i] = leaf[task]
        new = [(x - _wide(p)).astype(u.dtype) for x, p, u in zip(moved, old, steps, strict=True)]
        return structure.unflatten(new), ProximalState(jnp.asarray(optax.safe_increment(state.count)))

    return optax.GradientTransformationExtraArgs(init, update)


def _wide(leaf: Array) -> Array:
    return jnp.asarray(leaf, trees.accumulator(leaf.dtype))


def _places(where: Callable[[PyTree], Mapping[str, PyTree]], structure: Any) -> list[PyTree]:
    """For each task in order, the selected tree, with the index of each leaf among all leaves of the parameters."""
    picked = where(structure.unflatten(range(structure.num_leaves)))
    if not isinstance(picked, Mapping):
        raise TypeError(f"proximal: where must return a dict of trees by task, found {type(picked).__name__}")
    numbers = _numbers_of(dict(picked))
    if not picked or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"proximal: where must select at least one task, and a leaf at most once, found the leaves {dict(picked)}"
        )
    return [picked[name] for name in sorted(picked)]


def _places_in(bank: str, where: Callable[[PyTree], PyTree] | None, structure: Any) -> PyTree:
    """The selected tree of a bank, with the index of each leaf among all leaves of the parameters."""
    params = structure.unflatten(range(structure.num_leaves))
    tasks = getattr(params, "tasks", {})
    if bank not in tasks:
        raise ValueError(f"proximal: bank must be an entry of params.tasks, of {sorted(tasks)}, found {bank!r}")
    picked = tasks[bank] if where is None else where(tasks[bank])
    if not _numbers_of(picked):
        raise ValueError("proximal: where must select at least one leaf, found none")
    return picked


def _numbers_of(picked: PyTree) -> list[int]:
    numbers = jax.tree.leaves(picked)
    if not all(type(number) is int for number in numbers):
        raise TypeError("proximal: where must return parts of its argument, found leaves that it has made")
    return numbers
