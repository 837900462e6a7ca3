"""Losses of single examples, and means over the examples that have a label.

A loss is a function `(outputs [B, ...], targets [B, ...]) -> [B]`, the form that `Task.loss` and `Task.metrics` take.
Trailing axes (pixels, tokens, several outputs) are averaged. Values are float32 at least, whatever the outputs are.
Outputs and targets must fit exactly: nothing is broadcast, since `[B, 1]` against `[B]` would quietly become `[B, B]`.

A label out of range is a mistake. Where its value is known, it raises ValueError. Where it is traced, as under `jit`,
the loss of its example is NaN, so that the task sits the training step out and the step's metrics name it. Mask the
examples that have no label: what their targets hold is never read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtljax.checks import (
    check_callable,
    check_labels,
    check_mask,
    check_number,
    check_outputs,
    check_pair,
    check_values,
    expect,
)
from mtljax.types import Array

Loss = Callable[[Any, Any], Array]


def softmax_cross_entropy(outputs: Array, targets: Array) -> Array:
    r"""Cross-entropy of softmax probabilities with class labels.

    `loss = logsumexp(z) - z[y]`, averaged over trailing positions.

    Args:
        outputs: logits `[B, ..., C]`, floating.
        targets: labels `[B, ...]`, integer, from 0 to C - 1.

    Returns:
        `[B]`, in nats; NaN for an example with a traced label out of range.

    Raises:
        TypeError: logits that are not floating or labels that are not integers.
        ValueError: shapes that do not fit, or a concrete label out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> [f"{value:.3f}" for value in softmax_cross_entropy(jnp.zeros([2, 4]), jnp.array([3, 0]))]
        ['1.386', '1.386']
    """
    return class_cross_entropy("softmax_cross_entropy", outputs, targets)


def binary_cross_entropy(outputs: Array, targets: Array) -> Array:
    """Cross-entropy of independent yes-or-no questions, from logits.

    `loss = -y log sigmoid(z) - (1 - y) log sigmoid(-z)`, averaged over trailing axes.

    Args:
        outputs: logits `[B, ...]`, floating.
        targets: `[B, ...]` of the same shape, bool or numbers from 0 to 1.

    Returns:
        `[B]`, in nats; NaN for an example with a traced target outside [0, 1].

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
    """Squared error `(z - y)^2`, averaged over trailing axes; without the factor 1/2 that some libraries have.

    Args:
        outputs: `[B, ...]`, floating.
        targets: `[B, ...]` of the same shape, any real type.

    Returns:
        `[B]`, in squared units of the targets.

    Raises:
        TypeError: outputs that are not floating, targets that are not real.
        ValueError: shapes that differ.

    Example:
        >>> import jax.numpy as jnp
        >>> squared_error(jnp.array([[1.0, 3.0]]), jnp.array([[1, 1]])).tolist()
        [2.0]
    """
    outputs, targets = check_pair("squared_error", outputs, targets)
    return example_mean(jnp.square(outputs - targets))


def absolute_error(outputs: Array, targets: Array) -> Array:
    """Absolute error `|z - y|`, averaged over trailing axes.

    Args:
        outputs: `[B, ...]`, floating.
        targets: `[B, ...]` of the same shape, any real type.

    Returns:
        `[B]`, in units of the targets.

    Raises:
        TypeError: outputs that are not floating, targets that are not real.
        ValueError: shapes that differ.

    Example:
        >>> import jax.numpy as jnp
        >>> absolute_error(jnp.array([[1.0, 3.0]]), jnp.array([[1, 1]])).tolist()
        [1.0]
    """
    outputs, targets = check_pair("absolute_error", outputs, targets)
    return example_mean(jnp.abs(outputs - targets))


def huber(delta: float = 1.0) -> Loss:
    """Make the Huber loss, quadratic near zero and linear far away.

    `loss = e^2 / 2` where `|e| <= delta` and `delta (|e| - delta / 2)` elsewhere, with `e = z - y`, averaged over
    trailing axes. (P. J. Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics 35,
    1964.)

    Args:
        delta: where the two pieces meet, positive, in units of the targets.

    Returns:
        Loss `(outputs [B, ...], targets [B, ...]) -> [B]`; raises as `squared_error` does.

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
        return example_mean(optax.losses.huber_loss(outputs, targets, delta=delta))

    return loss


def masked_mean(values: Array, mask: Array | None = None) -> tuple[Array, Array]:
    """Mean over the labelled examples, and how many there are.

    `mean = sum_i m_i v_i / max(sum_i m_i, 1)`, in which a value that is masked out is never multiplied but replaced,
    so that NaN or infinity there changes nothing, here or in the derivative by `values`.

    That alone does not protect what `values` were computed from: the derivative of a loss at a NaN label is NaN, and
    zero times NaN is NaN. Use `masked_loss`, which hides the missing labels from the loss itself.

    Args:
        values: `[B]`, floating.
        mask: bool `[B]`, True where there is a label; None means everywhere.

    Returns:
        `(mean [], count [])`, float32 at least. Where nothing is labelled, mean and count are 0.

    Raises:
        TypeError: values that are not floating, or a mask that is not bool.
        ValueError: values that are not `[B]`, or a mask of another shape.

    Example:
        >>> import jax.numpy as jnp
        >>> mean, count = masked_mean(jnp.array([1.0, jnp.nan, 3.0]), jnp.array([True, False, True]))
        >>> float(mean), float(count)
        (2.0, 2.0)
    """
    values = check_outputs("masked_mean", values, what="values")
    if values.ndim != 1:
        raise ValueError(f"masked_mean: values must be one an example, [B], found {list(values.shape)}")
    if mask is None:
        count = jnp.asarray(values.shape[0], values.dtype)
    else:
        mask = check_mask("masked_mean", "mask", mask, values.shape)
        values = jnp.where(mask, values, 0)
        count = jnp.sum(mask, dtype=values.dtype)
    return jnp.sum(values) / jnp.maximum(count, 1), count


def masked_loss(
    loss: Loss, outputs: Any, targets: Any, *, mask: Array | None = None, name: str = "the loss"
) -> tuple[Array, Array]:
    """Mean of a loss over the labelled examples; no missing label ever reaches a gradient.

    Where `mask` is False, outputs and targets are both replaced by zeros before the loss sees them, and its value by
    zero afterwards. The first replacement is what keeps the gradient clean: the derivative of a selection is itself a
    selection, so whatever the loss's derivative is there, NaN included, it is dropped, not multiplied by zero. Hiding
    the targets too keeps `jax.debug_nans` quiet.

    Args:
        loss: `(outputs [B, ...], targets [B, ...]) -> [B]`, example by example.
        outputs: pytree of arrays `[B, ...]`.
        targets: pytree of arrays `[B, ...]`.
        mask: bool `[B]`, True where there is a label; None means everywhere.
        name: what messages call the loss.

    Returns:
        `(mean [], count [])` as `masked_mean` gives them.

    Raises:
        TypeError: a loss that is not a function or does not return a floating array; a mask that is not bool.
        ValueError: outputs and targets that are not `[B, ...]` with one B, a mask or a loss's values that are not
            `[B]`; whatever the loss raises.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> targets, mask = jnp.array([0.0, jnp.nan]), jnp.array([True, False])
        >>> mean = lambda outputs: masked_loss(squared_error, outputs, targets, mask=mask)[0]
        >>> jax.grad(mean)(jnp.array([1.0, 5.0])).tolist()
        [2.0, 0.0]
    """
    check_callable("masked_loss", name, loss)
    size = _examples(outputs, targets)
    if mask is not None:
        mask = check_mask("masked_loss", "mask", mask, (size,))
        outputs, targets = _hidden(outputs, mask), _hidden(targets, mask)
    values = check_outputs("masked_loss", loss(outputs, targets), what=f"what {name} returns")
    # Before the mean, which would take one value for all examples, or those of every pixel.
    expected = f"one value for each of {size} examples, [{size}]"
    expect(values.shape == (size,), "masked_loss", f"what {name} returns", expected, list(values.shape), ValueError)
    return masked_mean(values, mask)


def class_cross_entropy(caller: str, outputs: Array, targets: Array) -> Array:
    """`softmax_cross_entropy`, in the name of `caller`."""
    outputs, labels, known = check_labels(caller, outputs, targets)
    values = optax.losses.softmax_cross_entropy_with_integer_labels(outputs, labels)
    return example_mean(jnp.where(known, values, jnp.nan))


def yes_or_no(caller: str, loss: Loss, outputs: Array, targets: Array) -> Array:
    """A loss of logits and targets from 0 to 1, entry by entry, in the name of `caller`; NaN at other targets."""
    found, wanted = check_pair(caller, outputs, targets)
    known = check_values(caller, targets, lambda y: (y >= 0) & (y <= 1), "from 0 to 1")
    return example_mean(jnp.where(known, loss(found, wanted), jnp.nan))


def example_mean(values: Array) -> Array:
    """Mean over all axes but the first."""
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def _examples(outputs: Any, targets: Any) -> int:
    """B, which all outputs and targets must have as their first axis."""
    shapes = {
        "outputs": [list(jnp.shape(leaf)) for leaf in jax.tree.leaves(outputs)],
        "targets": [list(jnp.shape(leaf)) for leaf in jax.tree.leaves(targets)],
    }
    sizes = {tuple(shape[:1]) for found in shapes.values() for shape in found}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(f"masked_loss: outputs and targets must be [B, ...] with one B, found {shapes}")
    return sizes.pop()[0]


def _hidden(tree: Any, mask: Array) -> Any:
    """The tree with zeros where the mask is False."""

    def hide(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        return jnp.where(mask.reshape(mask.shape + (1,) * (leaf.ndim - 1)), leaf, jnp.zeros_like(leaf))

    return jax.tree.map(hide, tree)
