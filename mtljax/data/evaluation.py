"""Batches for evaluation, with all examples once, in order, padded to one shape."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from mtljax.checks import check_count, check_weights, expect
from mtljax.data.labels import check_masks_named
from mtljax.data.lengths import leading_length
from mtljax.losses.masked import product
from mtljax.types import Batch


def evaluation_batches(batch: Batch, batch_size: int) -> Iterator[Batch]:
    """All examples once, in order, in batches of one shape and one structure, so that jit traces once.

    Copies of the last example fill up the last batch, with mask False or 0 for every task, so that the copies never
    count. Every batch has a mask for every task, all True where `batch` has no mask.

    Args:
        batch: `Batch` of arrays `[B, ...]`, B at least 1.
        batch_size: examples per batch, at least 1; may exceed B.

    Returns:
        Iterator of `ceil(B / batch_size)` batches with NumPy leaves `[batch_size, ...]`.

    Raises:
        ValueError: no leaves, or leaves of unequal length; `batch_size` below 1; a mask that is not `[B, ...]` or
            that names an unknown task.
        TypeError: a mask that is neither bool nor floating.

    Example:
        >>> data = Batch(inputs=np.arange(3.0), targets={"a": np.arange(3)})
        >>> last = list(evaluation_batches(data, 2))[-1]
        >>> last.inputs.tolist(), last.mask["a"].tolist()
        ([2.0, 2.0], [True, False])
    """
    expect(isinstance(batch, Batch), "evaluation_batches", "batch", "a Batch", batch, TypeError)
    check_masks_named("evaluation_batches", batch)
    size = leading_length(batch._replace(mask={}), "evaluation_batches")
    check_count("evaluation_batches", "batch_size", batch_size)
    mask = {}
    for name in batch.targets:
        own = batch.mask.get(name, np.ones(size, bool))
        mask[name] = np.asarray(check_weights("evaluation_batches", f"mask[{name!r}]", own, size))
    arrays = jax.tree.map(np.asarray, batch._replace(mask=mask))
    return _padded(arrays, size, batch_size)


def _padded(arrays: Batch, size: int, batch_size: int) -> Iterator[Batch]:
    for start in range(0, size, batch_size):
        rows = np.arange(start, start + batch_size)
        real = rows < size
        part = jax.tree.map(lambda array, rows=rows: array[np.minimum(rows, size - 1)], arrays)
        yield part._replace(mask={name: product(own, real) for name, own in part.mask.items()})
