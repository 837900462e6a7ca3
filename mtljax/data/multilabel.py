"""Multi-label and multi-class data as a bank of binary tasks."""

from __future__ import annotations

from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.checks import check_count, check_mask, check_number, check_weights
from mtljax.data.labels import check_masks_named
from mtljax.losses.masked import product
from mtljax.types import Batch


@overload
def multilabel(labels: Batch, *, sentinel: float | None = None) -> Batch: ...
@overload
def multilabel(labels: Any, *, sentinel: float | None = None) -> tuple[Any, Any]: ...
def multilabel(labels: Any, *, sentinel: float | None = None) -> Any:
    """A bank of binary tasks, one per label; a missing label is masked in its own task only.

    Args:
        labels: `[N, L]` of 0 and 1, bool, integer or floating, NumPy or JAX; or a `Batch` with these labels as its only
            target. The mask of this target, if there is one, is `[N]`, for all L labels, or `[N, L]`; bool, or weights.
            NaN marks a missing label.
        sentinel: another number that marks a missing label, for example -1.

    Returns:
        `(targets, mask)`: float32 `[N, L]`, 0 where a label is missing, and bool `[N, L]`, for
        `losses.binary_cross_entropy` and a head `sharing.Bank(network, names)` with L names. A `Batch` gives a `Batch`
        with these as target and mask, under the target's name. `data.single_tasks` makes L entries of them.

    Raises:
        ValueError: labels that are not `[N, L]` with L at least 1; a `Batch` with several targets, or with a mask that
            is not `[N]` or `[N, L]` or is of another target; in NumPy arrays, whose values are known, a label other
            than 0, 1, NaN and the sentinel.
        TypeError: labels that are not numbers, a mask that is neither bool nor floating.

    Example:
        >>> targets, mask = multilabel(np.array([[1, 0], [np.nan, 1]]))
        >>> targets.tolist(), mask.tolist()
        ([[1.0, 0.0], [0.0, 1.0]], [[True, True], [False, True]])
    """
    if isinstance(labels, Batch):
        if len(labels.targets) != 1:
            raise ValueError(f"multilabel: the batch must have one target [N, L], found {sorted(labels.targets)}")
        ((name, array),) = labels.targets.items()
        check_masks_named("multilabel", labels)
        targets, mask = multilabel(array, sentinel=sentinel)
        if name in labels.mask:
            known = check_weights("multilabel", f"mask[{name!r}]", labels.mask[name], len(array))
            if known.shape not in (array.shape[:1], array.shape):
                raise ValueError(
                    f"multilabel: mask[{name!r}] must be [N] or [N, L] of {list(array.shape)}, "
                    f"found {list(known.shape)}"
                )
            mask = product(mask, known)
            targets = _zeroed(targets, mask != 0)
        return labels._replace(targets={name: targets}, mask={name: mask})
    if jnp.ndim(labels) != 2 or not jnp.shape(labels)[1]:
        raise ValueError(f"multilabel: labels must be [N, L], L at least 1, found {list(jnp.shape(labels))}")
    xp = jnp if isinstance(labels, jax.Array) else np
    labels = xp.asarray(labels)
    if labels.dtype.kind not in "biuf" and not jnp.issubdtype(labels.dtype, jnp.floating):
        raise TypeError(f"multilabel: labels must be numbers, found {labels.dtype}")
    if sentinel is not None:
        check_number("multilabel", "sentinel", sentinel, finite=False)
    # jnp.issubdtype, since for np.issubdtype bfloat16 is not a floating type.
    present = ~xp.isnan(labels) if jnp.issubdtype(labels.dtype, jnp.floating) else xp.ones(labels.shape, bool)
    if sentinel is not None:
        present = present & (labels != sentinel)
    if xp is np and not (~present | (labels == 0) | (labels == 1)).all():
        wrong = labels[present & (labels != 0) & (labels != 1)][0]
        raise ValueError(f"multilabel: labels must be 0, 1, NaN or the sentinel {sentinel}, found {wrong}")
    return xp.where(present, labels, xp.zeros_like(labels)).astype(xp.float32), present


def one_vs_rest(classes: Any, num_classes: int, *, mask: Any = None) -> tuple[Any, Any]:
    """A bank of binary tasks, one per class: is the example of this class or of another?

    The class is the task whose output is the largest: `outputs.argmax(1)` of outputs `[N, C]`.

    Args:
        classes: integer `[N]`, from 0 to C - 1.
        num_classes: C, at least 2.
        mask: bool `[N]`, True where the class is known; None for everywhere.

    Returns:
        `(targets, mask)`: float32 `[N, C]`, 0 where the class is not known, and bool `[N]`, for all tasks of the bank.

    Raises:
        TypeError: classes that are not integers; a mask that is not bool.
        ValueError: classes or mask that are not `[N]`; fewer than 2 classes; in NumPy arrays, whose values are known, a
            class outside its range that is not masked.

    Example:
        >>> targets, mask = one_vs_rest(np.array([2, 0]), 3)
        >>> targets.tolist(), mask.tolist()
        ([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], [True, True])
    """
    xp = jnp if isinstance(classes, jax.Array) else np
    classes = xp.asarray(classes)
    if not xp.issubdtype(classes.dtype, xp.integer):
        raise TypeError(f"one_vs_rest: classes must be integers, found {classes.dtype}")
    check_count("one_vs_rest", "num_classes", num_classes, least=2)
    if classes.ndim != 1:
        raise ValueError(f"one_vs_rest: classes must be [N], found {list(classes.shape)}")
    present = xp.ones(classes.shape, bool) if mask is None else check_mask("one_vs_rest", "mask", mask, classes.shape)
    if isinstance(classes, np.ndarray) and isinstance(present, np.ndarray):
        outside = present & ((classes < 0) | (classes >= num_classes))
        if outside.any():
            raise ValueError(
                f"one_vs_rest: classes must be from 0 to {num_classes - 1}, found {classes[outside][0]}; "
                "for an unknown class, set the mask to False"
            )
    targets = (classes[:, None] == xp.arange(num_classes)[None, :]).astype(xp.float32)
    return _zeroed(targets, present[:, None]), present


def _zeroed(target: Any, mask: Any) -> Any:
    xp = jnp if isinstance(target, jax.Array) or isinstance(mask, jax.Array) else np
    return xp.where(mask, target, xp.zeros_like(target))
