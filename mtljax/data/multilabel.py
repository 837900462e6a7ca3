"""Multi-label and multi-class data as binary tasks, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.checks import check_count, check_mask, check_names, check_number, check_weights, expect
from mtljax.data.labels import check_masks_named
from mtljax.losses.masked import product
from mtljax.sharing.frames.network import task_names
from mtljax.types import Batch

Tasks = tuple[dict[str, Any], dict[str, Any]]


@overload
def tasks_from_multilabel(
    labels: Batch, *, names: Sequence[str] | None = None, sentinel: float | None = None
) -> Batch: ...
@overload
def tasks_from_multilabel(
    labels: Any, *, names: Sequence[str] | None = None, sentinel: float | None = None
) -> Tasks: ...
def tasks_from_multilabel(labels: Any, *, names: Sequence[str] | None = None, sentinel: float | None = None) -> Any:
    """One binary task per label, L tasks in all; a missing label is masked in its own task only.

    Args:
        labels: `[N, L]` of 0 and 1, bool, integer or floating, NumPy or JAX; or a `Batch` with these labels as its only
            target. The mask of this target, if there is one, is `[N]`, for all L labels, or `[N, L]`; bool, or weights.
            NaN marks a missing label.
        names: L task names; None for `label_0`, `label_1`, ..., with leading zeros, so that sorted order is the order
            of columns.
        sentinel: another number that marks a missing label, for example -1.

    Returns:
        `(targets, mask)`: dicts by name of float32 `[N]`, 0 where a label is missing, and of bool `[N]`. So
        `Batch(inputs, *tasks_from_multilabel(labels))` is ready for `losses.binary_cross_entropy`. A `Batch` gives a
        `Batch` with these as its targets and masks.

    Raises:
        ValueError: labels that are not `[N, L]` with L at least 1; names that are not L different strings; a `Batch`
            with several targets, or with a mask that is not `[N]` or `[N, L]` or is of another target; in NumPy arrays,
            whose values are known, a label other than 0, 1, NaN and the sentinel.
        TypeError: a name that is not a string, a mask that is neither bool nor floating.

    Example:
        >>> targets, mask = tasks_from_multilabel(np.array([[1, 0], [np.nan, 1]]), names=["toxic", "active"])
        >>> targets["toxic"].tolist(), mask["toxic"].tolist(), targets["active"].tolist()
        ([1.0, 0.0], [True, False], [0.0, 1.0])
    """
    if isinstance(labels, Batch):
        if len(labels.targets) != 1:
            raise ValueError(
                f"tasks_from_multilabel: the batch must have one target [N, L], found {sorted(labels.targets)}"
            )
        ((name, array),) = labels.targets.items()
        check_masks_named("tasks_from_multilabel", labels)
        targets, mask = tasks_from_multilabel(array, names=names, sentinel=sentinel)
        if name in labels.mask:
            known = check_weights("tasks_from_multilabel", f"mask[{name!r}]", labels.mask[name], len(array))
            if known.shape not in (array.shape[:1], array.shape):
                raise ValueError(
                    f"tasks_from_multilabel: mask[{name!r}] must be [N] or [N, L] of {list(array.shape)}, "
                    f"found {list(known.shape)}"
                )
            columns = [known] * len(mask) if known.ndim == 1 else list(known.T)
            mask = {each: product(mask[each], column) for each, column in zip(mask, columns, strict=True)}
            targets = {each: _zeroed(targets[each], mask[each] != 0) for each in targets}
        return labels._replace(targets=targets, mask=mask)
    if jnp.ndim(labels) != 2 or not jnp.shape(labels)[1]:
        raise ValueError(f"tasks_from_multilabel: labels must be [N, L], L at least 1, found {list(jnp.shape(labels))}")
    xp = jnp if isinstance(labels, jax.Array) else np
    labels = xp.asarray(labels)
    if labels.dtype.kind not in "biuf" and not jnp.issubdtype(labels.dtype, jnp.floating):
        raise TypeError(f"tasks_from_multilabel: labels must be numbers, found {labels.dtype}")
    if sentinel is not None:
        check_number("tasks_from_multilabel", "sentinel", sentinel, finite=False)
    names = _names("tasks_from_multilabel", names, labels.shape[1], "label")
    # jnp.issubdtype, since for np.issubdtype bfloat16 is not a floating type.
    present = ~xp.isnan(labels) if jnp.issubdtype(labels.dtype, jnp.floating) else xp.ones(labels.shape, bool)
    if sentinel is not None:
        present = present & (labels != sentinel)
    if xp is np and not (~present | (labels == 0) | (labels == 1)).all():
        wrong = labels[present & (labels != 0) & (labels != 1)][0]
        raise ValueError(f"tasks_from_multilabel: labels must be 0, 1, NaN or the sentinel {sentinel}, found {wrong}")
    values = xp.where(present, labels, xp.zeros_like(labels)).astype(xp.float32)
    return {name: values[:, i] for i, name in enumerate(names)}, {name: present[:, i] for i, name in enumerate(names)}


def multilabel_from_tasks(
    targets: Mapping[str, Any], mask: Mapping[str, Any] | None = None, *, names: Sequence[str] | None = None
) -> Any:
    """The inverse of `tasks_from_multilabel`: one array of labels, NaN where a label is missing.

    It also stacks the outputs of binary tasks.

    Args:
        targets: dict by task of `[N]`.
        mask: dict by task of bool `[N]`; an absent name means all present.
        names: the order of columns; None for sorted order.

    Returns:
        Floating `[N, L]`, float32 at least.

    Raises:
        ValueError: `names` are not the tasks, a target or a mask is not `[N]`, a mask of an unknown task.
        TypeError: a mask that is not bool.

    Example:
        >>> multilabel_from_tasks({"a": np.array([1.0, 0.0])}, {"a": np.array([True, False])}).tolist()
        [[1.0], [nan]]
    """
    names, mask = _order("multilabel_from_tasks", targets, names), mask or {}
    expect(isinstance(mask, Mapping), "multilabel_from_tasks", "mask", "a dict by task", mask, TypeError)
    if set(mask) - set(names):
        raise ValueError(f"multilabel_from_tasks: mask must be for the tasks {sorted(names)}, found {sorted(mask)}")
    xp = jnp if any(isinstance(each, jax.Array) for each in (*targets.values(), *mask.values())) else np
    columns = []
    for name in names:
        column = xp.asarray(targets[name])
        column = column.astype(xp.promote_types(column.dtype, xp.float32))
        if name in mask:
            present = check_mask("multilabel_from_tasks", f"mask[{name!r}]", mask[name], (len(column),))
            column = xp.where(present, column, xp.nan)
        columns.append(column)
    return xp.stack(columns, axis=1)


def one_vs_rest(classes: Any, num_classes: int, *, names: Sequence[str] | None = None, mask: Any = None) -> Tasks:
    """One binary task per class: is the example of this class or of another?

    Args:
        classes: integer `[N]`, from 0 to C - 1.
        num_classes: C, at least 2.
        names: C task names; None for `class_0`, `class_1`, ..., in which sorted order is the order of classes.
        mask: bool `[N]`, True where the class is known; None for everywhere. Every task gets this mask.

    Returns:
        `(targets, mask)`: dicts by name of float32 `[N]` and bool `[N]`, as from `tasks_from_multilabel`.

    Raises:
        TypeError: classes that are not integers; a mask that is not bool.
        ValueError: classes or mask that are not `[N]`; fewer than 2 classes; names that are not C different strings; in
            NumPy arrays, whose values are known, a class outside its range that is not masked.

    Example:
        >>> targets, mask = one_vs_rest(np.array([2, 0]), 3)
        >>> targets["class_0"].tolist(), targets["class_2"].tolist()
        ([0.0, 1.0], [1.0, 0.0])
    """
    xp = jnp if isinstance(classes, jax.Array) else np
    classes = xp.asarray(classes)
    if not xp.issubdtype(classes.dtype, xp.integer):
        raise TypeError(f"one_vs_rest: classes must be integers, found {classes.dtype}")
    check_count("one_vs_rest", "num_classes", num_classes, least=2)
    if classes.ndim != 1:
        raise ValueError(f"one_vs_rest: classes must be [N], found {list(classes.shape)}")
    names = _names("one_vs_rest", names, num_classes, "class")
    present = xp.ones(classes.shape, bool) if mask is None else check_mask("one_vs_rest", "mask", mask, classes.shape)
    if isinstance(classes, np.ndarray) and isinstance(present, np.ndarray):
        outside = present & ((classes < 0) | (classes >= num_classes))
        if outside.any():
            raise ValueError(
                f"one_vs_rest: classes must be from 0 to {num_classes - 1}, found {classes[outside][0]}; "
                "for an unknown class, set the mask to False"
            )
    targets = {name: _zeroed((classes == k).astype(xp.float32), present) for k, name in enumerate(names)}
    return targets, dict.fromkeys(names, present)


def classes_from_one_vs_rest(outputs: Mapping[str, Any], *, names: Sequence[str] | None = None) -> Any:
    """The inverse of `one_vs_rest`: the class whose binary task has the largest output; of ties, the first class.

    Args:
        outputs: dict by task of `[N]`: logits, probabilities or the targets themselves.
        names: task names in the order of classes; None for sorted order.

    Returns:
        int32 `[N]`.

    Raises:
        ValueError: `names` are not the tasks, or an output is not `[N]`.

    Example:
        >>> classes_from_one_vs_rest({"class_0": np.array([0.1, 3.0]), "class_1": np.array([0.2, -1.0])}).tolist()
        [1, 0]
    """
    names = _order("classes_from_one_vs_rest", outputs, names)
    xp = jnp if any(isinstance(each, jax.Array) for each in outputs.values()) else np
    return xp.argmax(xp.stack([xp.asarray(outputs[name]) for name in names]), axis=0).astype(xp.int32)


def _zeroed(target: Any, mask: Any) -> Any:
    xp = jnp if isinstance(target, jax.Array) or isinstance(mask, jax.Array) else np
    return xp.where(mask, target, xp.zeros_like(target))


def _names(caller: str, names: Sequence[str] | None, count: int, stem: str) -> list[str]:
    if names is None:
        digits = len(str(count - 1))
        return [f"{stem}_{i:0{digits}}" for i in range(count)]
    if len(task_names(caller, names, what="names")) != count:
        raise ValueError(f"{caller}: names must be {count}, one per {stem}, found {list(names)}")
    return list(names)


def _order(caller: str, entries: Mapping[str, Any], names: Sequence[str] | None) -> list[str]:
    expect(isinstance(entries, Mapping), caller, "the arrays", "a dict by task", entries, TypeError)
    order = sorted(entries) if names is None else check_names(caller, "names", names)
    if sorted(order) != sorted(entries) or not order:
        raise ValueError(f"{caller}: names must be the tasks {sorted(entries)}, each once, found {order}")
    shapes = {name: list(jnp.shape(entries[name])) for name in order}
    if any(len(shape) != 1 or shape != shapes[order[0]] for shape in shapes.values()):
        raise ValueError(f"{caller}: every task must have an array [N] of one length, found {shapes}")
    return order
