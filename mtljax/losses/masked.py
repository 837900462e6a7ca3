"""Means over labelled elements, in which what is hidden reaches no gradient.

An element is whatever a loss has one value for: an example, a pixel, a token, an entry of a label. A mean is a ratio of
two sums over the elements of the batch, and travels with the second of them:

    mean = sum_e w_e l_e / sum_e w_e,   weight_sum = sum_e w_e

So means over parts (micro-batches, devices, batches of a split) are merged exactly: with `weight_sum` as the weights of
the parts, `masked_mean(means, weight_sums)` is the pair of the whole.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.checks import check_callable, check_outputs, check_weights
from mtljax.losses.per_example import Loss
from mtljax.types import Array


def masked_mean(values: Array, mask: Array | None = None) -> tuple[Array, Array]:
    """The weighted mean over elements, and the sum of weights.

    `mean = sum_e w_e v_e / sum_e w_e`, exact for every positive sum of weights. A value of weight 0 is replaced by
    zero, not multiplied by zero, so NaN or infinity there changes neither the mean nor the derivative with respect to
    `values`.

    This does not protect the parameters behind `values`: the derivative of a loss at a NaN label is NaN, and zero times
    NaN is NaN. Use `masked_loss`, which hides missing labels from the loss itself.

    Args:
        values: `[B, ...]`, floating.
        mask: weights, finite and at least 0, or bool, which stands for 1 and 0. The shape is that of the first axes of
            values: `[B]`, `[B, H]`, ...; each weight holds for all elements behind it. None (default) if all weights
            are 1.

    Returns:
        `(mean [], weight_sum [])`, float32 at least. Both are 0 if all weights are 0. A traced weight that is NaN,
        infinite or negative makes the mean NaN.

    Raises:
        TypeError: values that are not floating, or a mask that is neither bool nor floating.
        ValueError: values without an axis, a mask of another shape, a concrete weight that is negative or not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> mean, weight_sum = masked_mean(jnp.array([1.0, jnp.nan, 3.0]), jnp.array([0.5, 0.0, 1.5]))
        >>> float(mean), float(weight_sum)
        (2.5, 2.0)
        >>> pixels, hole = jnp.array([[1.0, 2.0], [6.0, jnp.nan]]), jnp.array([[True, True], [True, False]])
        >>> [float(each) for each in masked_mean(pixels, hole)]
        [3.0, 3.0]
    """
    values = check_outputs("masked_mean", values, what="values")
    if not values.ndim:
        raise ValueError("masked_mean: values must be [B, ...], found []")
    if mask is None:
        count = jnp.asarray(values.size, values.dtype)
        return jnp.sum(values) / jnp.maximum(count, 1), count
    mask = check_weights("masked_mean", "mask", mask)
    if not _leads(mask, values):
        raise ValueError(
            f"masked_mean: mask must have the shape of the first axes of values, {list(values.shape)}, "
            f"found {list(mask.shape)}"
        )
    behind = values.size // max(mask.size, 1)
    if mask.dtype == jnp.bool_:
        weight_sum = jnp.sum(mask, dtype=jnp.int32).astype(values.dtype) * behind
        total = jnp.sum(jnp.where(_over(mask, values), values, 0))
        return total / jnp.maximum(weight_sum, 1), weight_sum
    weights = jnp.asarray(mask, values.dtype)
    sound = (weights >= 0) & jnp.isfinite(weights)
    # A wrong weight counts as 1 at a NaN value, so that the task is left out as one with a NaN loss is, not as absent.
    weights = jnp.where(sound, weights, 1)
    values = jnp.where(_over(sound, values), values, jnp.nan)
    weight_sum = jnp.sum(weights) * behind
    # Shares, not sums of products, which could over- or underflow.
    shares = weights / jnp.where(weight_sum > 0, weight_sum, 1)
    mean = jnp.sum(_over(shares, values) * jnp.where(_over(weights > 0, values), values, 0))
    return mean, weight_sum


def means_by_task(values: Array, mask: Array | None, index: Array, num_tasks: int) -> tuple[Array, Array]:
    """The weighted mean of each task over its own examples, and its sum of weights.

    Args:
        values: `[B, ...]`, as for `masked_mean`.
        mask: likewise.
        index: int `[B]`, the task of each example; below 0 of no task, for which the mask must be 0. A traced index of
            n or more makes the mean of the last task NaN.
        num_tasks: n.

    Returns:
        `(means [n], weight_sums [n])`; both are 0 for a task without weight.

    Example:
        >>> means, weights = means_by_task(jnp.array([1.0, 2.0, 4.0]), None, jnp.array([1, 0, 1]), 3)
        >>> means.tolist(), weights.tolist()
        ([2.0, 2.5, 0.0], [1.0, 2.0, 0.0])
    """
    mask = jnp.ones(values.shape[:1], bool) if mask is None else mask
    means, sums = jax.vmap(lambda value, own: masked_mean(value[None], own[None]))(values, mask)
    means = jnp.where((index >= num_tasks) & (sums > 0), jnp.nan, means)
    index = jnp.clip(index, 0, num_tasks - 1)
    total = jax.ops.segment_sum(sums, index, num_tasks)
    shares = sums / jnp.where(total > 0, total, 1)[index]
    return jax.ops.segment_sum(shares * means, index, num_tasks), total


def masked_loss(
    loss: Loss, outputs: Any, targets: Any, *, mask: Array | None = None, name: str = "the loss"
) -> tuple[Array, Array]:
    """The weighted mean of a loss over labelled elements; what is hidden never reaches a gradient.

    `mean = sum_e w_e l_e / sum_e w_e` with the elements `l` that the loss returns, and the product w of the mask and of
    the loss's own weights.

    Where the mask is 0, zeros replace outputs and targets before the loss, and a zero replaces the value of the loss.
    The zeros in the outputs protect the gradient: the derivative of a selection is a selection, so the derivative of
    the loss there is dropped, not multiplied by zero, even if it is NaN. The zeros in the targets avoid alarms of
    `jax.debug_nans`.

    The function is one task's. `jax.vmap` maps it over many tasks of one form, and both results get the axis.

    Args:
        loss: `(outputs, targets) -> elements [B, ...]`, or `(elements, weights)`, as for `Task.loss`.
        outputs: pytree of arrays `[B, ...]`.
        targets: pytree of arrays `[B, ...]`.
        mask: bool, True where there is a label, or weights, floating, finite and at least 0. The shape is that of the
            first axes of the elements, of all outputs and of all targets: `[B]`, `[B, H]`, `[B, H, W]`, ... None
            (default) if all weights are 1.
        name: name of the loss in messages.

    Returns:
        `(mean [], weight_sum [])` as from `masked_mean`.

    Raises:
        TypeError: a loss that is not a function or does not return floating elements; a mask, or weights of the loss,
            that are neither bool nor floating.
        ValueError: outputs and targets that are not `[B, ...]` with one B; elements that are not `[B, ...]`; a mask, or
            weights of the loss, of another shape than the first axes; a concrete weight that is negative or not finite;
            errors of the loss.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from mtljax.losses import squared_error
        >>> targets, mask = jnp.array([0.0, jnp.nan]), jnp.array([True, False])
        >>> mean = lambda outputs: masked_loss(squared_error, outputs, targets, mask=mask)[0]
        >>> jax.grad(mean)(jnp.array([1.0, 5.0])).tolist()
        [2.0, 0.0]
    """
    return masked_mean(*elements_of(loss, outputs, targets, mask, name))


def elements_of(loss: Loss, outputs: Any, targets: Any, mask: Array | None, name: str) -> tuple[Array, Array | None]:
    """A loss's elements and their weights, for `masked_mean`; None where all weights are known to be 1.

    Args:
        loss: as for `masked_loss`.
        outputs: likewise.
        targets: likewise.
        mask: likewise.
        name: likewise.

    Example:
        >>> from mtljax.losses import squared_error
        >>> elements, weights = elements_of(squared_error, jnp.ones((2, 3)), jnp.zeros((2, 3)), None, "the loss")
        >>> elements.shape, weights
        ((2, 3), None)
    """
    check_callable("masked_loss", name, loss)
    size = _examples(outputs, targets)
    if mask is not None:
        mask = check_weights("masked_loss", f"the mask of {name}", mask)
        if not all(_leads(mask, leaf) for leaf in jax.tree.leaves((outputs, targets))):
            elements = jax.eval_shape(lambda *both: _elements(loss(*both), size, name)[0], outputs, targets)
            _check_leads(mask, elements, name)  # the likelier mistake: told first
            shapes = [list(jnp.shape(leaf)) for leaf in jax.tree.leaves((outputs, targets))]
            raise ValueError(
                f"masked_loss: the mask of {name} must have the shape of the first axes of all outputs and targets, "
                f"{shapes}, found {list(mask.shape)}; a loss may return (elements, weights) instead"
            )
        shown = mask != 0  # not > 0: a wrong weight is not hidden, but seen in the mean
        outputs, targets = hidden(outputs, shown), hidden(targets, shown)
    elements, own = _elements(loss(outputs, targets), size, name)
    if mask is not None:
        _check_leads(mask, elements, name)
    if own is None or mask is None:
        return elements, mask if own is None else own
    return elements, product(mask, own)


def hidden(tree: Any, shown: Array) -> Any:
    """The tree with zeros where `shown` is False; its shape is that of the first axes of all leaves.

    Example:
        >>> hidden(jnp.ones((2, 2)), jnp.array([True, False])).tolist()
        [[1.0, 1.0], [0.0, 0.0]]
    """

    def hide(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        return jnp.where(_over(shown, leaf), leaf, jnp.zeros_like(leaf))

    return jax.tree.map(hide, tree)


def product(first: Any, second: Any) -> Any:
    """The product of two masks, of which one may have more axes behind; bool where both are.

    Example:
        >>> product(np.array([2.0, 0.0]), np.array([[True, False], [True, True]])).tolist()
        [[2.0, 0.0], [0.0, 0.0]]
    """
    first, second = _over(first, second), _over(second, first)
    if first.dtype == np.bool_ and second.dtype == np.bool_:
        return first & second
    xp = np if isinstance(first, np.ndarray) and isinstance(second, np.ndarray) else jnp
    # A selection, since 0 times NaN is NaN.
    return xp.where((first != 0) & (second != 0), first * second, 0)


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


def _elements(found: Any, size: int, name: str) -> tuple[Array, Array | None]:
    """What a loss returns, as elements and weights, which are None where it returns none."""
    elements, own = found if type(found) is tuple and len(found) == 2 else (found, None)
    elements = check_outputs("masked_loss", elements, what=f"what {name} returns")
    # Checked before the mean, which would accept one value for all examples.
    if elements.shape[:1] != (size,):
        raise ValueError(
            f"masked_loss: what {name} returns must be elements [{size}, ...], at least one value for each of {size} "
            f"examples, found {list(elements.shape)}"
        )
    if own is not None:
        own = check_weights("masked_loss", f"the weights that {name} returns", own)
        if not _leads(own, elements):
            raise ValueError(
                f"masked_loss: the weights that {name} returns must have the shape of the first axes of its elements, "
                f"{list(elements.shape)}, found {list(own.shape)}"
            )
    return elements, own


def _check_leads(mask: Array, elements: Any, name: str) -> None:
    if not _leads(mask, elements):
        raise ValueError(
            f"masked_loss: the mask of {name} must have the shape of the first axes of what {name} returns, "
            f"{list(jnp.shape(elements))}, found {list(mask.shape)}"
        )


def _leads(mask: Array, leaf: Any) -> bool:
    return mask.ndim > 0 and jnp.shape(leaf)[: mask.ndim] == mask.shape


def _over(short: Any, long: Any) -> Any:
    """The array with axes of length 1 behind, up to as many axes as the other has."""
    return short.reshape(short.shape + (1,) * max(long.ndim - short.ndim, 0))
