"""The frame of every architecture: a `Model` whose functions check their arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from mtljax.banks import Group, keep_apart
from mtljax.checks import check_flag, check_key, expect
from mtljax.sharing.frames.network import selected
from mtljax.types import Array, Key, Model, Params, PyTree


def checked_model(
    names: tuple[str, ...],
    init: Callable[..., Any],
    apply: Callable[..., Any],
    *,
    encode: Callable[..., Any] | None = None,
    decode: Callable[..., Any] | None = None,
    penalty: Callable[[Params], Array] | None = None,
    banks: Mapping[str, tuple[str, ...]] = {},
    by_example: bool = False,
) -> Model:
    """A `Model` of these functions that checks keys, flags, tasks and parameters before a network runs.

    Args:
        names: task names, sorted.
        init: `Model.init`.
        apply: `Model.apply`.
        encode: `Model.encode`.
        decode: `Model.decode`.
        penalty: `Model.penalty`.
        banks: `Model.banks`.
        by_example: whether `apply` and `decode` take `task`, for examples that are of one task of a bank each.

    Example:
        >>> def apply(params, state, inputs, *, tasks=None, key=None, train=False):
        ...     return {"a": inputs}, state
        >>> checked_model(("a",), lambda key, inputs: (Params((), {"a": ()}), ()), apply).init(0, None)
        Traceback (most recent call last):
        ...
        TypeError: init: key must be one PRNG key, as jax.random.key(0) makes it, found 0
    """

    def given(where: str, task: Any) -> dict[str, Any]:
        """`task` for a function that takes it, where it is given at all."""
        expect(isinstance(task, Mapping), where, "task", "a dict of int [B] by bank", task, TypeError)
        unknown = [name for name in task if name not in banks]
        if unknown:
            raise ValueError(f"{where}: task must be for banks of the model, {sorted(banks)}, found {unknown[0]!r}")
        if task and not by_example:
            raise ValueError(f"{where}: task must be empty for this architecture, found entries for {sorted(task)}")
        return {"task": task} if task else {}

    def checked_init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        return init(check_key("init", "key", key), inputs)

    places = {name: (entry, k) for entry, bank in banks.items() for k, name in enumerate(bank)}

    def one_by_one(
        params: Params, state: PyTree, inputs: PyTree, tasks: Sequence[str], alone: dict[str, Any], key: Key | None
    ) -> tuple[dict[str, Any], PyTree]:
        """The tasks that are asked for, among them some of banks by their own names: these alone run of their banks."""
        rest = tuple(name for name in tasks if name not in alone)
        outputs, state = checked_apply(params, state, inputs, tasks=rest, key=key) if rest else ({}, state)
        for name, (entry, k) in alone.items():
            with keep_apart(Group(entry, k, 1)):
                found, state = checked_apply(params, state, inputs, tasks=(entry,), key=key)
            outputs[name] = jax.tree.map(lambda leaf, k=k: leaf[:, k], found[entry])
        return outputs, state

    def checked_apply(
        params: Params,
        state: PyTree,
        inputs: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
        task: Mapping[str, Array] = {},
    ) -> tuple[dict[str, Any], PyTree]:
        alone = {name: places[name] for name in tasks if name in places} if isinstance(tasks, list | tuple) else {}
        if alone:
            if train or task:
                what = "train must be False" if train else "task must be empty"
                raise ValueError(f"apply: {what} where tasks names tasks of banks, found {sorted(alone)}")
            return one_by_one(params, state, inputs, tasks or (), alone, key)
        chosen = selected(names, tasks)
        expect(isinstance(params, Params), "apply", "params", "mtljax.Params", params, TypeError)
        _check_tasks("apply", "params.tasks", params.tasks, chosen)
        return apply(params, state, inputs, tasks=tasks, **_checked("apply", key, train), **given("apply", task))

    def checked_encode(
        shared: PyTree, state: PyTree, inputs: PyTree, *, key: Key | None = None, train: bool = False
    ) -> tuple[PyTree, PyTree]:
        assert encode is not None
        return encode(shared, state, inputs, **_checked("encode", key, train))

    def checked_decode(
        tasks_params: PyTree,
        state: PyTree,
        features: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
        task: Mapping[str, Array] = {},
    ) -> tuple[dict[str, Any], PyTree]:
        assert decode is not None
        _check_tasks("decode", "tasks_params", tasks_params, selected(names, tasks))
        return decode(
            tasks_params, state, features, tasks=tasks, **_checked("decode", key, train), **given("decode", task)
        )

    return Model(
        init=checked_init,
        apply=checked_apply,
        encode=None if encode is None else checked_encode,
        decode=None if decode is None else checked_decode,
        penalty=penalty,
        banks=banks,
    )


def _checked(where: str, key: Any, train: Any) -> dict[str, Any]:
    return {"key": key if key is None else check_key(where, "key", key), "train": check_flag(where, "train", train)}


def _check_tasks(where: str, what: str, tasks: Any, chosen: tuple[str, ...]) -> None:
    expect(isinstance(tasks, Mapping), where, what, "a dict by task name", tasks, TypeError)
    missing = [name for name in chosen if name not in tasks]
    if missing:
        raise ValueError(f"{where}: {what} must have an entry for task {missing[0]!r}, found {sorted(tasks)}")
