"""A penalty's proximal operator as the last link of an optax chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtljax import trees
from mtljax.checks import check_callable, check_nonnegative
from mtljax.penalties.common import Penalty, check_penalty
from mtljax.types import Array, PyTree


class ProximalState(NamedTuple):
    """What `proximal` carries from step to step.

    Attributes:
        count: int32 `[]`, number of updates, for a schedule.
    """

    count: Array


def proximal(
    penalty: Penalty,
    learning_rate: Callable[[Array], Array | float] | Array | float,
    *,
    where: Callable[[PyTree], Mapping[str, PyTree]] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Proximal steps: what the chain before it would do, then the penalty's prox.

        new = prox(params + updates, learning_rate),   updates' = new - params

        optax.chain(optax.sgd(rate), proximal(penalty, rate))

    minimises `loss + penalty` by proximal gradient steps when the gradient is that of the loss alone: leave the penalty
    out of the objective (`make_train_step` without `penalty`). Unlike its gradient, the prox sets groups to exactly 0,
    and `params + updates'` keeps such zeros to the bit; other values may be rounded once more, so that ties between
    tasks hold to rounding.

    It must be the last link: a link after it would change what it has put in place. The chain before it must end with
    the step itself, sign and learning rate included, as optax's optimisers do; `learning_rate` must be the same one.
    The prox is in the Euclidean metric. After a step with momentum it is the usual heuristic. Adaptive optimisers such
    as Adam step in a metric of their own, one learning rate a parameter, in which the prox of a group has no closed
    form; with the Euclidean one zeros are still exact, but the point where such a chain stops is not the minimiser of
    `loss + penalty`: the penalty weighs the more, the smaller a parameter's own step is. For the minimiser take SGD, or
    the optimiser without a penalty first and SGD to finish.

    Args:
        penalty: any penalty with a prox.
        learning_rate: non-negative scalar, which may be traced, or an optax schedule, a function of the step count.
        where: where the penalised trees are in the parameters: a function of these to a dict by task of trees of one
            structure, which are stacked in sorted order of names. Whatever it does not return is left alone. It is
            called with other leaves in place of arrays, and must only pick. None (default): the parameters are stacked
            already, leaves `[T, *p]`. For the trunks of `sharing.soft`:
            `lambda params: {name: own["trunk"] for name, own in params.tasks.items()}`.

    Returns:
        Transformation with state `ProximalState`; `update` needs `params` and ignores unknown keyword arguments.
        In `training.make_train_step` it moves what it ties at every step: a copy whose task is absent makes no step of
        its own, but the prox draws it to the others.

    Raises:
        TypeError: `penalty` is no `Penalty`; `where` returns anything but a dict of parts of the parameters.
        ValueError: the penalty has no prox; `learning_rate` is negative or no scalar; `update` without `params`; trees
            of tasks that differ in structure or shape; whatever the penalty raises.

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
            # What a training step leaves out of the optimizer's update, it leaves out before the prox.
            steps = structure.flatten_up_to(extra["before_prox"](updates))
        # In the dtype of sums, so that a small step is not rounded away before the prox has seen it.
        moved = [_wide(p) + _wide(u) for p, u in zip(old, steps, strict=True)]
        if where is None:
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
    """For each task in order, the picked tree, with the numbers of its leaves among all leaves of the parameters."""
    picked = where(structure.unflatten(range(structure.num_leaves)))
    if not isinstance(picked, Mapping):
        raise TypeError(f"proximal: where must return a dict of trees by task, found {type(picked).__name__}")
    numbers = jax.tree.leaves(dict(picked))
    if not all(type(number) is int for number in numbers):
        raise TypeError("proximal: where must return parts of what it is given, found leaves that it has made")
    if not picked or len(set(numbers)) < len(numbers):
        raise ValueError(f"proximal: where must pick each leaf once, for one task or more; it picked {dict(picked)}")
    return [picked[name] for name in sorted(picked)]
