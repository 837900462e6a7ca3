"""Means over the examples that have a label."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtljax.checks import check_callable, check_mask, check_outputs, expect
from mtljax.losses.per_example import Loss
from mtljax.types import Array


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
    # Before the mean, which would take one value for all examples, or those of every pixel.
    expected = f"one value for each of {size} examples, [{size}]"
    expect(values.shape == (size,), "masked_loss", f"what {name} returns", expected, list(values.shape), ValueError)
    return masked_mean(values, mask)


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
