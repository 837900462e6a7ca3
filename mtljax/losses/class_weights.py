"""Class weights made of the sizes of classes, and sampling weights of examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtljax.checks import check_count, check_number, check_weights, expect
from mtljax.types import Batch


def class_counts(targets: Any, num_classes: int, *, mask: Any = None) -> np.ndarray:
    """The number of labelled elements per class.

    Args:
        targets: labels `[N, ...]`, integer or bool, or floating 0 and 1; not traced.
        num_classes: C.
        mask: bool, or weights, of which only the zeros count, of the shape of the first axes of targets: True where
            there is a label. None (default) if all elements have one.

    Returns:
        int64 `[C]`.

    Raises:
        ValueError: a label that is not one of 0 to C - 1; a mask of another shape.

    Example:
        >>> class_counts(np.array([0, 2, 2, -1]), 3, mask=np.array([True, True, True, False])).tolist()
        [1, 0, 2]
    """
    check_count("class_counts", "num_classes", num_classes)
    targets = np.asarray(targets)
    expect(targets.dtype.kind in "biuf", "class_counts", "targets", "classes", targets, TypeError)
    if mask is not None:
        mask = np.asarray(check_weights("class_counts", "mask", mask))
        expected = f"of the shape of the first axes of {list(targets.shape)}"
        leads = mask.ndim > 0 and mask.shape == targets.shape[: mask.ndim]
        expect(leads, "class_counts", "mask", expected, list(mask.shape), ValueError)
        targets = targets[mask != 0]
    with np.errstate(invalid="ignore"):  # NaN becomes an arbitrary class; the comparison below detects it
        classes = targets.astype(np.int64).ravel()
    wrong = classes[(classes < 0) | (classes >= num_classes) | (classes != targets.ravel())]
    if len(wrong):
        raise ValueError(f"class_counts: targets must be from 0 to {num_classes - 1}, found {len(wrong)} that are not")
    return np.bincount(classes, minlength=num_classes)


def inverse_frequency(counts: Any) -> np.ndarray:
    """Class weights in inverse proportion to the sizes of classes: `w_c = N / (C n_c)`.

    The sum of weights over examples is the same for all classes. The mean weight of an example is 1, so the learning
    rate need not change.

    G. King and L. Zeng, "Logistic Regression in Rare Events Data", Political Analysis 9, 2001.

    Args:
        counts: number of examples per class `[C]`, finite, not negative, not all 0. A class without examples gets
            weight 0 and does not count in C.

    Returns:
        float32 `[C]`.

    Raises:
        ValueError: counts that are not `[C]`, not finite, negative, or all 0.

    Example:
        >>> inverse_frequency([30, 10])
        array([0.6666667, 2.       ], dtype=float32)
    """
    counts = checked_counts("inverse_frequency", counts)
    return _normalized(np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0), counts)


def effective_number(counts: Any, *, beta: float | None = None) -> np.ndarray:
    """Class weights in inverse proportion to the effective numbers of examples per class.

        w_c proportional to 1 / E_c,   E_c = (1 - beta^n_c) / (1 - beta)

    E_c is the expected number of different examples among n_c draws from `V = 1 / (1 - beta)` possible examples.
    beta = 0 gives every class the same weight, beta -> 1 the inverse frequency.

    Y. Cui, M. Jia, T.-Y. Lin, Y. Song and S. Belongie, "Class-Balanced Loss Based on Effective Number of Samples",
    CVPR 2019.

    Departures: the paper scales to a mean of 1 over classes. With that scale, the loss and the gradient step are
    smaller if a class is rare.

    Args:
        counts: as for `inverse_frequency`.
        beta: at least 0 and below 1; None is `(N - 1) / N` with N the sum of counts. The paper tries .9, .99, .999
            and .9999.

    Returns:
        float32 `[C]`, scaled to a mean of 1 over examples.

    Raises:
        ValueError: as `inverse_frequency`; beta outside its range.

    Example:
        >>> effective_number([99, 1], beta=0.5).round(2)
        array([0.99, 1.98], dtype=float32)
    """
    counts = checked_counts("effective_number", counts)
    if beta is None:
        beta = 1.0 - 1.0 / float(counts.sum())
    check_number("effective_number", "beta", beta, least=0, below=1)
    # expm1 keeps the digits that 1 - beta^n loses near beta = 1.
    numbers = -np.expm1(counts * np.log(beta)) if beta > 0 else (counts > 0).astype(np.float64)
    return _normalized(np.divide(1.0, numbers, out=np.zeros_like(counts), where=numbers > 0), counts)


def sampling_weights(batch: Batch, weights: Mapping[str, Any]) -> np.ndarray:
    """Sampling weights of examples, made of class weights.

    The weight of an example is the mean of its class weights over the given tasks for which it has a label. With one
    task and `inverse_frequency`, every class is drawn equally often. Several tasks that share examples cannot all be
    balanced; the mean is a compromise.

    Args:
        batch: the whole split, NumPy arrays.
        weights: class weights `[C]` by task; tasks that are left out have no effect.

    Returns:
        float64 `[N]`, for `mtljax.data.batches(weights=...)`. An example without a label for these tasks gets the mean
        weight of the other examples, or 1 if no example has a label.

    Raises:
        ValueError: no tasks, an unknown one, targets that are not `[N]`, weights that are not finite, negative, or
            fewer than the task's classes.

    Example:
        >>> split = Batch(np.zeros(4), {"rare": np.array([0, 0, 0, 1])})
        >>> sampling_weights(split, {"rare": inverse_frequency([3, 1])}).round(3).tolist()
        [0.667, 0.667, 0.667, 2.0]
    """
    expect(isinstance(batch, Batch), "sampling_weights", "batch", "a Batch", batch, TypeError)
    expect(isinstance(weights, Mapping), "sampling_weights", "weights", "a dict by task", weights, TypeError)
    if not weights or not set(weights) <= set(batch.targets):
        raise ValueError(
            f"sampling_weights: weights must be for tasks of {sorted(batch.targets)}, found {sorted(weights)}"
        )
    total, tasks = 0.0, 0
    for name, own in weights.items():
        own = check_number("sampling_weights", f"weights[{name!r}]", own, least=0, shape=("C",))
        table, classes = np.asarray(own, np.float64), np.asarray(batch.targets[name])
        if classes.ndim != 1:
            raise ValueError(f"sampling_weights: targets[{name!r}] must be [N], found {list(classes.shape)}")
        mask = batch.mask.get(name, np.ones(classes.shape, bool))
        known = np.asarray(check_weights("sampling_weights", f"mask[{name!r}]", mask))
        expect(
            known.shape == classes.shape, "sampling_weights", f"mask[{name!r}]", "[N]", list(known.shape), ValueError
        )
        present = known != 0
        class_counts(classes, len(table), mask=present)
        total = total + np.where(present, table[np.where(present, classes, 0).astype(np.int64)], 0.0)
        tasks = tasks + present
    labeled = np.asarray(tasks) > 0
    found = np.divide(total, tasks, out=np.zeros(labeled.shape), where=labeled)
    found[~labeled] = found[labeled].mean() if labeled.any() else 1.0
    return found


def checked_counts(caller: str, counts: Any) -> np.ndarray:
    """Checked counts as float64 `[C]`; `caller` opens the message."""
    counts = np.asarray(check_number(caller, "counts", counts, least=0, shape=("C",)), np.float64)
    expect(bool(counts.any()), caller, "counts", "not all 0", counts, ValueError)
    return counts


def _normalized(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weights scaled to a mean of 1 over examples."""
    return (weights * (counts.sum() / (weights * counts).sum())).astype(np.float32)
