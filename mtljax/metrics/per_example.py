"""Metrics element by element, for `Task.metrics`; error metrics are the losses of the same name."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax.checks import check_labels
from mtljax.types import Array


def accuracy(outputs: Array, targets: Array) -> Array:
    """Whether the largest logit is the label's: 1 or 0 at each position.

    Of several largest logits the first one counts, as in `argmax`.

    Args:
        outputs: logits or probabilities `[B, ..., C]`, floating.
        targets: labels `[B, ...]`, integer, from 0 to C - 1.

    Returns:
        float32 elements like the targets; NaN at a NaN logit or a traced label out of range.

    Raises:
        TypeError: logits that are not floating or labels that are not integers.
        ValueError: shapes that do not match, or a concrete label out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1])).tolist()
        [1.0, 0.0]
    """
    outputs, labels, known = check_labels("accuracy", outputs, targets)
    hits = (jnp.argmax(outputs, axis=-1) == labels).astype(jnp.float32)
    return jnp.where(known & ~jnp.isnan(outputs).any(axis=-1), hits, jnp.nan)
