"""The common model of the architectures that consist of one encoder for all tasks and one decoder per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtljax.sharing.frames.inputs import one_task_at_a_time
from mtljax.sharing.frames.model import checked_model
from mtljax.sharing.frames.network import selected
from mtljax.types import Array, Key, Model, Params, PyTree


def encoder_and_heads(
    names: tuple[str, ...],
    init: Callable[..., Any],
    encode: Callable[..., Any],
    decode: Callable[..., Any],
    *,
    banks: Mapping[str, tuple[str, ...]] = {},
) -> Model:
    """A `Model` whose `apply` is `decode` after `encode`, both with the same key; it takes `TaskInputs` too.

    Args:
        names: task names, sorted.
        init: `Model.init`.
        encode: `Model.encode`.
        decode: `Model.decode`.
        banks: `Model.banks`.

    Example:
        >>> import jax
        >>> model = encoder_and_heads(
        ...     ("a", "b"),
        ...     lambda key, inputs: (Params(2.0, {"a": 3.0, "b": 5.0}), ()),
        ...     lambda shared, state, x, *, key=None, train=False: (shared * x, state),
        ...     lambda tasks_params, state, features, *, tasks=None, key=None, train=False: (
        ...         {name: tasks_params[name] * features for name in tasks or tasks_params}, state
        ...     ),
        ... )
        >>> model.apply(*model.init(jax.random.key(0), None), 10.0, tasks=("b",))[0]
        {'b': 100.0}
    """

    def apply(
        params: Params,
        state: PyTree,
        inputs: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
        task: Mapping[str, Array] = {},
    ) -> tuple[dict[str, Any], PyTree]:
        selected(names, tasks)  # first, so that an unknown task raises before the encoder can fail
        features, state = encode(params.shared, state, inputs, key=key, train=train)
        given = {"task": task} if task else {}
        return decode(params.tasks, state, features, tasks=tasks, key=key, train=train, **given)

    each = one_task_at_a_time(names, apply)
    return checked_model(names, init, each, encode=encode, decode=decode, banks=banks, by_example=True)
