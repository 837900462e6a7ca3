"""The data of linear multi-task problems: the rows of all tasks in rectangular arrays, with a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from mtljax.checks import expect
from mtljax.sharing.frames.network import is_sequence
from mtljax.types import Array


class TaskRows(NamedTuple):
    """Rows of T tasks, at most N each. Masked rows are never read, so splits and folds are masks of the same arrays.

    Attributes:
        inputs: floating `[T, N, p]`, or `[1, N, p]` if all tasks have the same inputs, which are then stored once.
        targets: floating `[T, N]`.
        mask: bool `[T, N]`, True for rows that exist; or `[1, N]` if the mask is the same for all tasks. With one set
            of inputs and one mask, the tasks also share their Gramian, and all tasks cost little more than one.
    """

    inputs: Array
    targets: Array
    mask: Array


def pad(
    inputs_by_task: Mapping[str, ArrayLike] | Sequence[ArrayLike],
    targets_by_task: Mapping[str, ArrayLike] | Sequence[ArrayLike],
) -> TaskRows:
    """Pad tasks with different numbers of rows to rectangular arrays.

    Args:
        inputs_by_task: arrays `[n_t, p]` by task: a sequence, or a dict, which is read in sorted order of names. n_t
            may be 0.
        targets_by_task: arrays `[n_t]`, likewise.

    Returns:
        `TaskRows` with N the largest n_t. Rows beyond the n_t rows of a task are 0 and masked. Arrays are float32, or
        float64 if float64 is enabled in JAX and an array has it.

    Raises:
        ValueError: there are no tasks; the names or the number of tasks differ; shapes of arrays do not match.
        TypeError: one argument is a dict and the other is not.

    Example:
        >>> rows = pad({"b": [[1.0, 2.0]], "a": [[3.0, 4.0], [5.0, 6.0]]}, {"a": [0.0, 1.0], "b": [2.0]})
        >>> rows.targets.tolist(), rows.mask.tolist()
        ([[0.0, 1.0], [2.0, 0.0]], [[True, True], [True, False]])
    """
    xs, ys = _sequences(inputs_by_task, targets_by_task)
    inputs = [_numbers("pad", f"inputs_by_task[{task}]", x) for task, x in enumerate(xs)]
    targets = [_numbers("pad", f"targets_by_task[{task}]", y) for task, y in enumerate(ys)]
    if not inputs or len(inputs) != len(targets):
        raise ValueError(
            f"pad: inputs and targets must have the same number of tasks, at least one, found {len(inputs)} and "
            f"{len(targets)}"
        )
    for task, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        if x.ndim != 2 or x.shape[1:] != inputs[0].shape[1:] or y.shape != x.shape[:1]:
            raise ValueError(
                f"pad: inputs must be [n, p] and targets [n] for each task, with the same p, found shapes {x.shape} "
                f"and {y.shape} for task {task}, and {inputs[0].shape} for the inputs of task 0"
            )
    lengths = np.array([len(y) for y in targets])
    padded = np.zeros((len(inputs), lengths.max(), inputs[0].shape[1]), np.result_type(np.float32, *inputs))
    labels = np.zeros(padded.shape[:2], np.result_type(np.float32, *targets))
    for task, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        padded[task, : len(y)], labels[task, : len(y)] = x, y
    mask = np.arange(padded.shape[1])[None, :] < lengths[:, None]
    return TaskRows(jnp.asarray(padded), jnp.asarray(labels), jnp.asarray(mask))


def columns(inputs: ArrayLike, targets: ArrayLike) -> TaskRows:
    """One set of inputs for all tasks, and one column of targets per task; NaN is a missing label.

    Args:
        inputs: `[n, p]`.
        targets: `[n, T]`; NaN means that the row has no label for the task.

    Returns:
        `TaskRows` with inputs `[1, n, p]`, stored once, and targets `[T, n]`. The mask is `[1, n]` if each row has
        labels for all tasks or for none; otherwise, and if `targets` is traced, it is `[T, n]`.

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> rows = columns([[1.0], [2.0]], [[0.0, float("nan")], [1.0, 5.0]])
        >>> rows.inputs.shape, rows.targets.tolist(), rows.mask.tolist()
        ((1, 2, 1), [[0.0, 1.0], [0.0, 5.0]], [[True, True], [False, True]])
    """
    for what, array in (("inputs", inputs), ("targets", targets)):
        if not isinstance(array, Tracer):
            _numbers("columns", what, array)
    x, y = _floating(inputs), _floating(targets)
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0]:
        raise ValueError(f"columns: expected inputs [n, p] and targets [n, T], found shapes {x.shape} and {y.shape}")
    mask = ~jnp.isnan(y.T)
    if not isinstance(mask, Tracer) and bool(jnp.all(mask == mask[:1])):
        mask = mask[:1]
    return TaskRows(x[None], jnp.where(jnp.isnan(y.T), 0.0, y.T), mask)


def check_rows(name: str, rows: TaskRows) -> None:
    """Check, at trace time, that the arrays of `TaskRows` match.

    Args:
        name: the function's name; the message starts with it.
        rows: the argument to check.

    Raises:
        ValueError: shapes do not match, or there are no tasks or no features.
        TypeError: `rows` is not `TaskRows`; inputs or targets are not floating; the mask is not bool.

    Example:
        >>> check_rows("fit", TaskRows(jnp.ones((3, 4, 2)), jnp.ones((2, 4)), jnp.ones((2, 4), bool)))
        Traceback (most recent call last):
        ...
        ValueError: fit: inputs must have shape [2, 4, p] or [1, 4, p] beside targets [2, 4], found (3, 4, 2)
    """
    expect(isinstance(rows, TaskRows), name, "rows", "TaskRows, as pad and columns make them", rows, TypeError)
    kinds = (("inputs", jnp.floating, "floating"), ("targets", jnp.floating, "floating"), ("mask", jnp.bool_, "bool"))
    for argument, kind, name_of_kind in kinds:
        array = getattr(rows, argument)
        of_kind = hasattr(array, "dtype") and jnp.issubdtype(array.dtype, kind)
        expect(of_kind, name, argument, f"an array of type {name_of_kind}", array, TypeError)
    shape = jnp.shape(rows.targets)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{name}: targets must have shape [T, N] with T and N at least 1, found {shape}")
    num_tasks, length = shape
    found = jnp.shape(rows.inputs)
    if len(found) != 3 or found[0] not in (1, num_tasks) or found[1] != length or not found[2]:
        raise ValueError(
            f"{name}: inputs must have shape [{num_tasks}, {length}, p] or [1, {length}, p] beside targets "
            f"[{num_tasks}, {length}], found {found}"
        )
    if jnp.shape(rows.mask) not in (shape, (1, length)):
        raise ValueError(
            f"{name}: mask must have shape [{num_tasks}, {length}] or [1, {length}], found {jnp.shape(rows.mask)}"
        )


def _sequences(
    inputs: Mapping[str, ArrayLike] | Sequence[ArrayLike], targets: Mapping[str, ArrayLike] | Sequence[ArrayLike]
) -> tuple[Sequence[ArrayLike], Sequence[ArrayLike]]:
    if isinstance(inputs, Mapping) and isinstance(targets, Mapping):
        names = sorted(inputs)
        if names != sorted(targets):
            raise ValueError(f"pad: inputs have tasks {names}, but targets have {sorted(targets)}")
        return [inputs[name] for name in names], [targets[name] for name in names]
    if isinstance(inputs, Mapping) or isinstance(targets, Mapping):
        raise TypeError(
            f"pad: inputs_by_task and targets_by_task must both be dicts or both be sequences, found "
            f"{type(inputs).__name__} and {type(targets).__name__}"
        )
    for what, found in (("inputs_by_task", inputs), ("targets_by_task", targets)):
        several = isinstance(found, np.ndarray | Array) or is_sequence(found)
        expect(several, "pad", what, "a dict by task or a sequence", found, TypeError)
    return inputs, targets


def _numbers(where: str, what: str, value: ArrayLike) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:  # ragged
        array = np.asarray(None)
    real = array.dtype.kind in "biuf" or jnp.issubdtype(array.dtype, jnp.floating)
    expect(real, where, what, "an array of numbers", value, TypeError)
    return array


def _floating(array: ArrayLike) -> Array:
    array = jnp.asarray(array)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.float32)
