"""Flax linen modules as networks and models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.errors
import jax
from flax import linen as nn

from mtljax.adapters.train_flags import FLAGS, flag_values, train_flags
from mtljax.checks import check_callable, check_names, expect
from mtljax.sharing.frames.model import checked_model
from mtljax.sharing.frames.network import Network, is_sequence, key_for, selected, task_names
from mtljax.types import Key, Model, Params, PyTree

# Values that a module writes for an observer, not for its own next call.
_WRITE_ONLY = ("intermediates", "perturbations")


def from_linen(
    module: nn.Module,
    *,
    call_kwargs: Callable[[bool], dict[str, Any]] | None = None,
    rngs: Sequence[str] = ("dropout",),
) -> Network:
    """A linen module as a `Network`: a trunk or a head for `mtljax.sharing`.

    The parameters are the collection `"params"`. The state is a dict of all other collections (`"batch_stats"`), and
    empty where there are none. Training changes the state; evaluation returns the state that it was given. Sown values
    are dropped. The module is called with one argument, the inputs, and with those keyword arguments of the following
    that its `__call__` names: `train`, `training`, `is_training` (set to `train`), `deterministic` and
    `use_running_average` (set to `not train`).

    In a trunk that tasks share, one running average of batch statistics serves all of them. If the tasks' inputs
    differ, that average fits none: see `mtljax.sharing.statistics_by_task`.

    Args:
        module: linen module; `module(inputs, ...)` returns the outputs.
        call_kwargs: `call_kwargs(train) -> dict` of keyword arguments of the call, where the names above do not fit.
        rngs: names of the streams that the module draws from while it is applied; each gets its own key.

    Returns:
        `Network` whose functions are pure: the same key gives the same dropout mask.

    Raises:
        TypeError: `module` is not a linen module.
        ValueError: (by `init`) no argument tells dropout or batch normalization whether the module trains; (by `apply`)
            the module draws random numbers and `key` is None.

    Example:
        >>> import jax.numpy as jnp
        >>> class Trunk(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x, *, train):
        ...         x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        ...         return nn.Dropout(0.5, deterministic=not train)(x)
        >>> network = from_linen(Trunk())
        >>> params, state = network.init(jax.random.key(0), jnp.ones((8, 3)))
        >>> sorted(params), sorted(state)
        (['BatchNorm_0', 'Dense_0'], ['batch_stats'])
        >>> outputs, state = network.apply(params, state, jnp.ones((8, 3)), key=jax.random.key(1), train=True)
        >>> outputs.shape
        (8, 4)
    """
    rngs = _checked("from_linen", module, call_kwargs, rngs)
    name = type(module).__name__
    flags = train_flags(type(module).__call__)

    def kwargs(train: bool) -> dict[str, Any]:
        return flag_values(flags, train) if call_kwargs is None else call_kwargs(train)

    def streams(key: Key | None) -> dict[str, Key]:
        return {} if key is None else {stream: jax.random.fold_in(key, i) for i, stream in enumerate(rngs)}

    def init(key: Key, inputs: PyTree) -> tuple[PyTree, PyTree]:
        keys = {"params": key_for(key, "params"), **streams(key_for(key, "streams"))}
        try:
            variables = module.init(keys, inputs, **kwargs(False))
        except ValueError as error:
            untold = [flag for flag in ("deterministic", "use_running_average") if f'"{flag}"' in str(error)]
            if not untold:
                raise
            raise ValueError(
                f"from_linen: the __call__ of {name} must name one of {list(FLAGS)} for the layer that needs "
                f"{untold[0]!r}, found none that reaches the layer; add one, or give call_kwargs"
            ) from error
        state = {collection: value for collection, value in variables.items() if collection not in _WRITE_ONLY}
        return state.pop("params", {}), state

    def apply(
        params: PyTree, state: PyTree, inputs: PyTree, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, PyTree]:
        variables = {"params": params, **state}
        mutable = list(state) if train and state else False
        try:
            result = module.apply(variables, inputs, **kwargs(train), rngs=streams(key), mutable=mutable)
        except flax.errors.InvalidRngError as error:
            what, given = ("key must be a random key", None) if key is None else ("rngs must name the stream", rngs)
            raise ValueError(f"from_linen: {what}, since {name} draws from it, found {given}: {error}") from error
        return (result[0], dict(result[1])) if mutable else (result, state)

    return Network(init=init, apply=apply)


def model_from_linen(
    module: nn.Module,
    heads: Mapping[str, str | Sequence[str]],
    *,
    call_kwargs: Callable[[bool], dict[str, Any]] | None = None,
    rngs: Sequence[str] = ("dropout",),
) -> Model:
    """A whole multi-task linen module as a `Model`: one module with trunk and heads, returning a dict by task.

    The top-level entries of the parameters that `heads` names belong to their task. All other entries are shared. For
    some of the tasks, the model calls the whole module, and drops the outputs and the new state of the other tasks.
    Under `jit`, the compiler drops their work too.

    Args:
        module: linen module; `module(inputs, ...)` returns a dict of outputs with the tasks of `heads` as its keys.
        heads: by task name, the name (or names) of the head's submodules, for example `{"depth": "depth_head"}`.
        call_kwargs: as in `from_linen`.
        rngs: as in `from_linen`.

    Returns:
        `Model` without `encode`, `decode` and `penalty`.

    Raises:
        TypeError: `module` is not a linen module.
        ValueError: `heads` is empty, names a submodule for two tasks, or (by `init`) names a submodule without
            parameters; (by `apply`) the module does not return a dict with the tasks of `heads`, or `tasks` holds an
            unknown task; also as `from_linen`.

    Example:
        >>> import jax.numpy as jnp
        >>> class Net(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x):
        ...         x = nn.relu(nn.Dense(8, name="trunk")(x))
        ...         return {"depth": nn.Dense(1, name="depth_head")(x), "label": nn.Dense(5, name="label_head")(x)}
        >>> model = model_from_linen(Net(), {"depth": "depth_head", "label": "label_head"})
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> sorted(params.shared), {task: sorted(own) for task, own in params.tasks.items()}
        (['trunk'], {'depth': ['depth_head'], 'label': ['label_head']})
    """
    rngs = _checked("model_from_linen", module, call_kwargs, rngs)
    network = from_linen(module, call_kwargs=call_kwargs, rngs=rngs)
    expect(isinstance(heads, Mapping), "model_from_linen", "heads", "a dict by task name", heads, TypeError)
    names = task_names("model_from_linen", heads, what="heads")
    owned = {
        task: (entry,)
        if isinstance(entry := heads[task], str)
        else _names("model_from_linen", f"heads[{task!r}]", entry)
        for task in names
    }
    owner: dict[str, str] = {}
    for task, entries in owned.items():
        for entry in entries:
            if entry in owner:
                raise ValueError(
                    f"model_from_linen: heads must name submodule {entry!r} for one task, found tasks "
                    f"{owner[entry]!r} and {task!r}"
                )
            owner[entry] = task

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        params, state = network.init(key, inputs)
        for entry, task in owner.items():
            if entry not in params:
                raise ValueError(
                    f"model_from_linen: heads[{task!r}] must name submodules among {sorted(params)}, found {entry!r}"
                )
        shared = {entry: value for entry, value in params.items() if entry not in owner}
        tasks = {task: {entry: params[entry] for entry in entries} for task, entries in owned.items()}
        return Params(shared=shared, tasks=tasks), state

    def apply(
        params: Params,
        state: PyTree,
        inputs: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], PyTree]:
        chosen = selected(names, tasks)
        whole = dict(params.shared)
        for own in params.tasks.values():
            whole.update(own)
        outputs, after = network.apply(whole, state, inputs, key=key, train=train)
        if not isinstance(outputs, Mapping) or set(outputs) != set(names):
            found = sorted(outputs) if isinstance(outputs, Mapping) else type(outputs).__name__
            raise ValueError(
                f"model_from_linen: {type(module).__name__} must return a dict with the tasks {list(names)}, "
                f"found {found}"
            )
        idle = {entry for entry, task in owner.items() if task not in chosen}
        state = {
            collection: {entry: state[collection][entry] if entry in idle else value for entry, value in new.items()}
            for collection, new in after.items()
        }
        return {task: outputs[task] for task in chosen}, state

    return checked_model(names, init, apply)


def _checked(where: str, module: Any, call_kwargs: Any, rngs: Any) -> tuple[str, ...]:
    """The names of the streams, after the checks that both functions need."""
    expect(isinstance(module, nn.Module), where, "module", "a flax.linen.Module", module, TypeError)
    if call_kwargs is not None:
        check_callable(where, "call_kwargs", call_kwargs)
    return () if is_sequence(rngs) and not rngs else _names(where, "rngs", rngs)


def _names(where: str, what: str, value: Any) -> tuple[str, ...]:
    return tuple(check_names(where, what, value))
