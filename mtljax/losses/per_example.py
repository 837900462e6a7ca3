"""Losses element by element.

A loss is a function `(outputs [B, ...], targets [B, ...]) -> elements [B, ...]`, as for `Task.loss` and `Task.metrics`:
one value for each example, pixel, position or output. The mean over the batch's elements is taken later, with the
weights of the mask (`masked_loss`). Values are float32 at least, for every dtype of outputs. The shapes of outputs and
targets must match exactly: broadcasting would silently turn `[B, 1]` and `[B]` into `[B, B]`.

A label out of range is a mistake. A concrete one raises ValueError. A traced one, as under `jit`, makes the loss of its
element NaN: the task is then inactive in the training step, and the step's metrics name the task. Mask the elements
without a label: their targets are never read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from mtljax.checks import (
    check_labels,
    check_number,
    check_pair,
    check_values,
)
from mtljax.types import Array

Loss = Callable[[Any, Any], Any]  # elements, or elements and their weights


def softmax_cross_entropy(outputs: Array, targets: Array) -> Array:
    r"""Cross-entropy of softmax probabilities with class labels.

    `loss = logsumexp(z) - z[y]` at each position.

    Args:
        outputs: logits `[B, ..., C]`, floating.
        targets: labels `[B, ...]`, integer, from 0 to C - 1.

    Returns:
        Elements like the targets, in nats; NaN for a traced label out of range.

    Raises:
        TypeError: logits that are not floating or labels that are not integers.
        ValueError: shapes that do not match, or a concrete label out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> [f"{value:.3f}" for value in softmax_cross_entropy(jnp.zeros([2, 4]), jnp.array([3, 0]))]
        ['1.386', '1.386']
    """
    return class_cross_entropy("softmax_cross_entropy", outputs, targets)


def binary_cross_entropy(outputs: Array, targets: Array) -> Array:
    """Cross-entropy of independent binary labels, from logits.

    `loss = -y log sigmoid(z) - (1 - y) log sigmoid(-z)`.

    Args:
        outputs: logits `[B, ...]`, floating.
        targets: `[B, ...]` of the same shape, bool or numbers from 0 to 1.

    Returns:
        Elements like the targets, in nats; NaN for a traced target outside [0, 1].

    Raises:
        TypeError: logits that are not floating, targets that are not real.
        ValueError: shapes that differ, or a concrete target outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> [f"{value:.3f}" for value in binary_cross_entropy(jnp.zeros([2]), jnp.array([True, False]))]
        ['0.693', '0.693']
    """
    return yes_or_no("binary_cross_entropy", optax.losses.sigmoid_binary_cross_entropy, outputs, targets)


def squared_error(outputs: Array, targets: Array) -> Array:
    """Squared error `(z - y)^2`, without the factor 1/2 of some libraries.

    Args:
        outputs: `[B, ...]`, floating.
        targets: `[B, ...]` of the same shape, any real type.

    Returns:
        Elements like the targets, in their units squared.

    Raises:
        TypeError: outputs that are not floating, targets that are not real.
        ValueError: shapes that differ.

    Example:
        >>> import jax.numpy as jnp
        >>> squared_error(jnp.array([[1.0, 3.0]]), jnp.array([[1, 1]])).tolist()
        [[0.0, 4.0]]
    """
    outputs, targets = check_pair("squared_error", outputs, targets)
    return jnp.square(outputs - targets)


def absolute_error(outputs: Array, targets: Array) -> Array:
    """Absolute error `|z - y|`.

    Args:
        outputs: `[B, ...]`, floating.
        targets: `[B, ...]` of the same shape, any real type.

    Returns:
        Elements like the targets, in their units.

    Raises:
        TypeError: outputs that are not floating, targets that are not real.
        ValueError: shapes that differ.

    Example:
        >>> import jax.numpy as jnp
        >>> absolute_error(jnp.array([[1.0, 3.0]]), jnp.array([[1, 1]])).tolist()
        [[0.0, 2.0]]
    """
    outputs, targets = check_pair("absolute_error", outputs, targets)
    return jnp.abs(outputs - targets)


def huber(delta: float = 1.0) -> Loss:
    """Make the Huber loss, quadratic for small errors and linear for large ones.

    `loss = e^2 / 2` where `|e| <= delta` and `delta (|e| - delta / 2)` elsewhere, with `e = z - y`.

    P. J. Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics 35, 1964.

    Args:
        delta: the size of the error where the two parts meet, positive, in units of the targets.

    Returns:
        Loss `(outputs [B, ...], targets [B, ...]) -> [B, ...]`; raises as `squared_error` does.

    Raises:
        ValueError: `delta` that is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> huber(delta=1.0)(jnp.array([0.5, 3.0]), jnp.zeros(2)).tolist()
        [0.125, 2.5]
    """
    check_number("huber", "delta", delta, above=0)

    def loss(outputs: Array, targets: Array) -> Array:
        outputs, targets = check_pair("huber", outputs, targets)
        return optax.losses.huber_loss(outputs, targets, delta=delta)

    return loss


def class_cross_entropy(caller: str, outputs: Array, targets: Array) -> Array:
    """`softmax_cross_entropy`, with `caller` in its messages."""
    outputs, labels, known = check_labels(caller, outputs, targets)
    values = optax.losses.softmax_cross_entropy_with_integer_labels(outputs, labels)
    return jnp.where(known, values, jnp.nan)


def yes_or_no(caller: str, loss: Loss, outputs: Array, targets: Array) -> Array:
    """A loss of logits and targets from 0 to 1, with `caller` in its messages; NaN at other targets."""
    found, wanted = check_pair(caller, outputs, targets)
    known = check_values(caller, targets, lambda y: (y >= 0) & (y <= 1), "from 0 to 1")
    return jnp.where(known, loss(found, wanted), jnp.nan)
