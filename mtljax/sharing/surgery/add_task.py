"""Adding tasks to a trained model, and removing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax

from mtljax.banks import Banks
from mtljax.checks import check_key, expect
from mtljax.sharing.surgery.edit import matched
from mtljax.types import Key, Model, Params, PyTree


def add_task(
    params: Params, state: PyTree, model: Model, key: Key, inputs: PyTree, *, banks: Mapping[str, Sequence[str]] = {}
) -> tuple[Params, PyTree]:
    """Carry a trained model over into one with more tasks; old values stay exact, new parameters are initialized.

        params, state = add_task(params, state, hard(trunk, heads | {"edges": head}), key, inputs)

    The old tasks' outputs do not change. A new head starts as it would in any model with that key, since a head's key
    comes from its name. With `soft`, a new copy starts from the network's initial values, far from the trained copies;
    to start it from one of them, copy `params.tasks["depth"]["trunk"]` to the new task. For the optimiser's state see
    `carry_over`; to train the new head alone see `freeze`. A method's state has one entry per task and cannot be
    carried over: make it with `method.init`.

    Args:
        params: the old model's parameters.
        state: the old model's state.
        model: the new model, with all the old tasks.
        key: for `model.init`.
        inputs: for `model.init`, `[B, ...]`.
        banks: the old model's `banks`, where it has any. A bank may have more tasks than before, in any order; their
            rows are carried over by name.

    Returns:
        `(params, state)` of the new model. Carried leaves are the old arrays themselves, not copies, so a step that
        donates its state consumes them.

    Raises:
        ValueError: the new model lacks an old task, or has no new one. The new model lacks a leaf of the old parameters
            or state, or has it in another shape or dtype (as with architectures whose parameters are `[T, ...]`).

    Example:
        >>> import jax.numpy as jnp
        >>> from mtljax.sharing import Network, hard
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> x, trunk, heads = jnp.ones((2, 3)), dense(4), {"depth": dense(1)}
        >>> params, state = hard(trunk, heads).init(jax.random.key(0), x)
        >>> model = hard(trunk, heads | {"edges": dense(2)})
        >>> params, state = add_task(params, state, model, jax.random.key(1), x)
        >>> jax.tree.map(jnp.shape, params)
        Params(shared=(3, 4), tasks={'depth': (4, 1), 'edges': (4, 2)})
    """
    _check("add_task", params, model, banks)
    check_key("add_task", "key", key)
    new_params, new_state = model.init(key, inputs)
    old, new = _tasks(params, banks), _tasks(new_params, model.banks)
    if not set(old) < set(new):
        raise ValueError(f"add_task: model must have the old tasks {old} and at least one more, found {new}")
    pair = model.banks, banks
    moved, moved_state = matched("add_task", new_params, params, pair), matched("add_task", new_state, state, pair)
    for found, what in ((moved, "parameters"), (moved_state, "state")):
        if found.dropped:
            raise ValueError(f"add_task: the {what} of model must have the old leaf {found.dropped[0]}, found none")
    return moved.tree, moved_state.tree


def without_task(
    params: Params, state: PyTree, model: Model, inputs: PyTree, *, banks: Mapping[str, Sequence[str]] = {}
) -> tuple[Params, PyTree]:
    """Carry a trained model over into one with fewer tasks; all values stay exact.

        params, state = without_task(params, state, hard(trunk, {"depth": head}), inputs)

    For the optimiser's state use `carry_over`; make the method's state with `method.init`.

    Args:
        params: the old model's parameters.
        state: the old model's state.
        model: the new model, with fewer of the same tasks.
        inputs: for the shapes of `model.init`, `[B, ...]`, arrays or `jax.ShapeDtypeStruct`; nothing is computed.
        banks: the old model's `banks`, where it has any; a bank may have fewer tasks than before.

    Returns:
        `(params, state)` of the new model. Leaves are the old arrays themselves, not copies.

    Raises:
        ValueError: the new model's tasks are not a proper subset of the old ones; the old model lacks a leaf of the new
            parameters or state, or has it in another shape or dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> from mtljax.sharing import Network, hard
        >>> scale = Network(lambda key, x: (jnp.ones(()), ()), lambda w, state, x, **_: (x * w, state))
        >>> params, state = hard(scale, {"depth": scale, "edges": scale}).init(jax.random.key(0), jnp.ones(2))
        >>> sorted(without_task(params, state, hard(scale, {"edges": scale}), jnp.ones(2))[0].tasks)
        ['edges']
    """
    _check("without_task", params, model, banks)
    new_params, new_state = jax.eval_shape(model.init, jax.random.key(0), inputs)
    old, new = _tasks(params, banks), _tasks(new_params, model.banks)
    if not set(new) < set(old):
        raise ValueError(f"without_task: model must have some of the old tasks {old} and not all, found {new}")
    moved, moved_state = (
        matched("without_task", new, old, (model.banks, banks))
        for new, old in ((new_params, params), (new_state, state))
    )
    for found, what in ((moved, "parameters"), (moved_state, "state")):
        if found.fresh:
            raise ValueError(f"without_task: the old {what} must have the new leaf {found.fresh[0]}, found none")
    return moved.tree, moved_state.tree


def _tasks(params: Params, banks: Banks) -> list[str]:
    """The names of the tasks, those of banks one by one, behind the name of their bank."""
    return [
        task
        for entry in sorted(params.tasks)
        for task in ([f"{entry}/{name}" for name in banks[entry]] if entry in banks else [entry])
    ]


def _check(where: str, params: Params, model: Model, banks: Mapping[str, Sequence[str]]) -> None:
    expect(isinstance(params, Params), where, "params", "mtljax.Params", params, TypeError)
    expect(isinstance(model, Model), where, "model", "a Model", model, TypeError)
    for entry in set(model.banks) & set(params.tasks) - set(banks):
        raise ValueError(f"{where}: banks must tell the tasks of {entry!r} in the old model, found {dict(banks)}")
