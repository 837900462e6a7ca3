"""Means over labelled examples, in which missing labels reach no gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtljax.checks import check_callable, check_mask, check_outputs, expect
from mtljax.losses.per_example import Loss
from mtljax.types import Array


def masked_mean(values: Array, mask: Array | None = None) -> tuple[Array, Array]:
    """The mean over labelled examples, and their number.

    `mean = sum_i m_i v_i / max(sum_i m_i, 1)`. A masked value is replaced by zero, not multiplied by zero, so NaN or
    infinity there changes neither the mean nor the derivative with respect to `values`.

    This does not protect the parameters behind `values`: the derivative of a loss at a NaN label is NaN, and zero times
    NaN is NaN. Use `masked_loss`, which hides missing labels from the loss itself.

    Args:
        values: `[B]`, floating.
        mask: bool `[B]`, True where there is a label; None (default) if all examples have one.

    Returns:
        `(mean [], count [])`, float32 at least. Without labels, mean and count are 0.

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
        raise ValueError(f"masked_mean: values must be [B], one per example, found {list(values.shape)}")
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
    """The mean of a loss over labelled examples; a missing label never reaches a gradient.

    Where `mask` is False, zeros replace outputs and targets before the loss, and a zero replaces the value of the loss.
    The zeros in the outputs protect the gradient: the derivative of a selection is a selection, so the derivative of
    the loss there is dropped, not multiplied by zero, even if it is NaN. The zeros in the targets avoid alarms of
    `jax.debug_nans`.

    Args:
        loss: `(outputs [B, ...], targets [B, ...]) -> [B]`, example by example.
        outputs: pytree of arrays `[B, ...]`.
        targets: pytree of arrays `[B, ...]`.
        mask: bool `[B]`, True where there is a label; None (default) if all examples have one.
        name: name of the loss in messages.

    Returns:
        `(mean [], count [])` as from `masked_mean`.

    Raises:
        TypeError: a loss that is not a function or does not return a floating array; a mask that is not bool.
        ValueError: outputs and targets that are not `[B, ...]` with one B; a mask or values of the loss that are not
            `[B]`; errors of the loss.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mtljax.losses import squared_error
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
    # Checked before the mean, which would accept one value for all examples, or one per pixel.
    expected = f"one value for each of {size} examples, [{size}]"
    expect(values.shape == (size,), "masked_loss", f"what {name} returns", expected, list(values.shape), ValueError)
    return masked_mean(values, mask)


def _examples(outputs: Any, targets: Any) -> int:
    """The length B of the first axis of all outputs and targets."""
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
