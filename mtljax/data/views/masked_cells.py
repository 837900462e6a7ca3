"""The view `masked_cells`: images with hidden cells, which the network fills in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from mtljax.checks import check_callable, check_flag, check_number, expect
from mtljax.data.views.common import divides, height_and_width, images
from mtljax.losses.masked import hidden
from mtljax.types import Array, Key


class HiddenPixels(NamedTuple):
    """An image as a target of which only the hidden pixels count.

    Attributes:
        values: `[B, H, W, C]`, the whole image.
        hidden: bool `[B, H, W]`, True at the pixels that are hidden in the inputs.
    """

    values: Array
    hidden: Array


def masked_cells(
    cell: int | tuple[int, int], *, ratio: float = 0.75, hidden_only: bool = False
) -> Callable[[Key, Any], tuple[Array, Any]]:
    """Fill in hidden cells: some cells of a grid are set to zero, the target is the whole image.

        inputs = x * (1 - m),  targets = x

    with m constant on cells of h by w pixels. Exactly `floor(ratio * cells + 1/2)` cells of every image are hidden; all
    sets of that size are equally probable. Cells of one pixel give the masking noise of a denoising autoencoder.

    Pathak, Krähenbühl, Donahue, Darrell and Efros, "Context encoders: feature learning by inpainting", CVPR 2016; He,
    Chen, Xie, Li, Dollár and Girshick, "Masked autoencoders are scalable vision learners", CVPR 2022. The exact number
    of hidden cells and the default ratio are from He et al.

    Departures: He et al. drop hidden patches. Here hidden cells are zeros, so that every network accepts them.

    Args:
        cell: side of a cell in pixels, or `(height, width)`; H and W must be multiples.
        ratio: share of the cells that is hidden, between 0 and 1. After rounding, at least one cell must be hidden and
            at least one visible.
        hidden_only: whether the loss counts only hidden pixels, as in He et al. The targets are then `HiddenPixels`;
            wrap the task's loss in `hidden_loss`.

    Returns:
        View `(key, x [B, H, W, C]) -> (inputs like x, targets like x, or HiddenPixels)`; any dtype, which stays.

    Raises:
        TypeError: a cell that is not made of integers.
        ValueError: a ratio outside 0 to 1; from the view, images that are not `[B, H, W, C]`, H or W that is not a
            multiple, or a ratio that hides no cell or all cells.

    Example:
        >>> inputs, targets = masked_cells(2, ratio=0.5)(jax.random.key(0), jnp.ones((1, 4, 4, 1)))
        >>> float(inputs.sum()), float(targets.sum())
        (8.0, 16.0)
    """
    sides = height_and_width("masked_cells", "cell", cell)
    check_number("masked_cells", "ratio", ratio, above=0, below=1)
    # The number of hidden cells is static.
    expect(not isinstance(ratio, Tracer), "masked_cells", "ratio", "known when the view is made", ratio, TypeError)
    check_flag("masked_cells", "hidden_only", hidden_only)

    def view(key: Key, x: Any) -> tuple[Array, Any]:
        x = images("masked_cells", x)
        divides("masked_cells", sides, "cell", x.shape)
        rows, columns = x.shape[1] // sides[0], x.shape[2] // sides[1]
        count = int(ratio * rows * columns + 0.5)
        if not 0 < count < rows * columns:
            raise ValueError(f"masked_cells: ratio {ratio} of {rows} by {columns} cells hides {count} of them")
        order = jnp.broadcast_to(jnp.arange(rows * columns)[None, :], (x.shape[0], rows * columns))
        chosen = jax.random.permutation(key, order, axis=1, independent=True) < count
        hidden = chosen.reshape(x.shape[0], rows, columns).repeat(sides[0], axis=1).repeat(sides[1], axis=2)
        inputs = jnp.where(hidden[..., None], jnp.zeros_like(x), x)
        return inputs, HiddenPixels(x, hidden) if hidden_only else x

    return view


def hidden_loss(loss: Callable[[Any, Any], Array]) -> Callable[[Any, HiddenPixels], tuple[Array, Array]]:
    """A loss of images that counts only hidden pixels.

        hidden_loss(loss)(z, (y, m)) = (loss(z, y), m)

    The mean is over the hidden pixels of the batch; visible pixels do not reach the gradient.

    Args:
        loss: `(outputs, targets) -> elements [B, H, W, ...]`, such as `mtljax.losses.squared_error`.

    Returns:
        Loss `(outputs [B, H, W, ...], HiddenPixels) -> (elements [B, H, W, ...], weights bool [B, H, W])`.

    Raises:
        TypeError: (by the loss) targets that are not `HiddenPixels`.
        ValueError: (by the loss) outputs of another B, H or W; whatever `loss` raises.

    Example:
        >>> from mtljax.losses import masked_loss, squared_error
        >>> targets = HiddenPixels(jnp.zeros((1, 1, 2, 1)), jnp.array([[[True, False]]]))
        >>> outputs = jnp.array([3.0, 5.0]).reshape(1, 1, 2, 1)
        >>> [float(each) for each in masked_loss(hidden_loss(squared_error), outputs, targets)]
        [9.0, 1.0]
    """
    check_callable("hidden_loss", "loss", loss)

    def masked(outputs: Any, targets: HiddenPixels) -> tuple[Array, Array]:
        if not isinstance(targets, HiddenPixels):
            raise TypeError(f"hidden_loss: targets must be HiddenPixels, found {type(targets).__name__}")
        values, chosen = targets
        outputs = jnp.asarray(outputs)
        if outputs.shape[:3] != chosen.shape:
            raise ValueError(
                f"hidden_loss: outputs must be [B, H, W, ...] with {list(chosen.shape)}, found {list(outputs.shape)}"
            )
        return loss(hidden(outputs, chosen), hidden(values, chosen)), chosen

    return masked
