"""Inputs that all tasks share, or separate inputs per task (`TaskInputs`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtljax.checks import expect
from mtljax.sharing.frames.network import key_for, selected
from mtljax.types import Key, Params, PyTree, TaskInputs


def input_of(inputs: PyTree, name: str) -> PyTree:
    """The inputs of task `name`: its own entry of `TaskInputs`, or the inputs that all tasks share.

    Raises:
        ValueError: `TaskInputs` has no entry for that task.

    Example:
        >>> input_of(TaskInputs({"left": 1, "right": 2}), "right"), input_of(3, "right")
        (2, 3)
    """
    if not isinstance(inputs, TaskInputs):
        return inputs
    expect(isinstance(inputs.by_task, Mapping), "apply", "TaskInputs.by_task", "a dict", inputs.by_task, TypeError)
    if name not in inputs.by_task:
        raise ValueError(f"apply: TaskInputs must hold task {name!r}, found {sorted(inputs.by_task)}")
    return inputs.by_task[name]


def one_task_at_a_time(names: tuple[str, ...], apply: Callable[..., Any]) -> Callable[..., Any]:
    """A `Model.apply` that also takes `TaskInputs`, from one that runs all tasks on shared inputs.

    With `TaskInputs`, the requested tasks run one by one in sorted order of names,
    `apply(params, state, inputs_k, tasks=(k,))`. Each task has its own key, and the state passes from task to task.
    Other inputs are passed on unchanged.

    Args:
        names: the model's task names, sorted.
        apply: `apply(params, state, inputs, *, tasks=None, key=None, train=False) -> (outputs, state)`.

    Returns:
        A function of the same signature.

    Example:
        >>> def apply(params, state, inputs, *, tasks=None, key=None, train=False):
        ...     return {name: inputs for name in tasks or ("left", "right")}, state
        >>> one_task_at_a_time(("left", "right"), apply)((), (), TaskInputs({"left": 1, "right": 2}))[0]
        {'left': 1, 'right': 2}
    """

    def run(
        params: Params,
        state: PyTree,
        inputs: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
        **given: Any,
    ) -> tuple[dict[str, Any], PyTree]:
        if not isinstance(inputs, TaskInputs):
            return apply(params, state, inputs, tasks=tasks, key=key, train=train, **given)
        outputs = {}
        for name in selected(names, tasks):
            own = key_for(key, f"inputs/{name}")
            found, state = apply(params, state, input_of(inputs, name), tasks=(name,), key=own, train=train, **given)
            outputs[name] = found[name]
        return outputs, state

    return run
