"""Images with cells taken out, to be filled in again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from mtljax.checks import check_callable, check_flag, check_number, expect
from mtljax.data.views.common import divides, height_and_width, images
from mtljax.losses.masked import masked_loss
from mtljax.types import Array, Key


class HiddenPixels(NamedTuple):
    """Targets of which some pixels count.

    Attributes:
        values: `[B, H, W, C]`, the whole image.
        hidden: bool `[B, H, W]`, True at the pixels that the inputs do not show.
    """

    values: Array
    hidden: Array


def masked_cells(
    cell: int | tuple[int, int], *, ratio: float = 0.75, hidden_only: bool = False
) -> Callable[[Key, Any], tuple[Array, Any]]:
    """Fill in what is hidden: some cells of a grid are set to zero, the target is the whole image.

        inputs = x * (1 - m),  targets = x

    with m constant on cells of h by w pixels. Exactly `floor(ratio * cells + 1/2)` cells of every image are hidden,
    each set of so many being as probable as any other. A cell of one pixel gives a denoising autoencoder's masking
    noise.

    Pathak, Krähenbühl, Donahue, Darrell and Efros, "Context encoders: feature learning by inpainting", CVPR 2016; He,
    Chen, Xie, Li, Dollár and Girshick, "Masked autoencoders are scalable vision learners", CVPR 2022, from which the
    exact number and the default ratio are. Theirs drops hidden patches; here they are zeros, so any network will do.

    Args:
        cell: side of a cell in pixels, or `(height, width)`; H and W must be multiples.
        ratio: share of the cells that is hidden, between 0 and 1; at least one cell and not all, after rounding.
        hidden_only: whether the loss is to count hidden pixels alone, as He et al. do. The targets are then
            `HiddenPixels`, and the task's loss is wrapped in `hidden_loss`.

    Returns:
        View `(key, x [B, H, W, C]) -> (inputs like x, targets like x, or HiddenPixels)`; any dtype, which stays.

    Raises:
        TypeError: a cell that is not made of integers.
        ValueError: a ratio outside 0 to 1; from the view, other than `[B, H, W, C]`, cells that do not fit, or a ratio
            that hides none or all.

    Example:
        >>> inputs, targets = masked_cells(2, ratio=0.5)(jax.random.key(0), jnp.ones((1, 4, 4, 1)))
        >>> float(inputs.sum()), float(targets.sum())
        (8.0, 16.0)
    """
    sides = height_and_width("masked_cells", "cell", cell)
    check_number("masked_cells", "ratio", ratio, above=0, below=1)
    # How many cells are hidden is part of the program.
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


def hidden_loss(loss: Callable[[Any, Any], Array]) -> Callable[[Any, HiddenPixels], Array]:
    """A loss of images that counts hidden pixels alone.

        hidden_loss(loss)(z, (y, m)) = sum_p m_p loss(z_p, y_p) / sum_p m_p

    It is `mtljax.losses.masked_loss` over the pixels of each image: those that are not hidden reach no gradient.

    Args:
        loss: of examples, as `mtljax.losses.squared_error`; here each pixel `[C]` is an example to it.

    Returns:
        Loss `(outputs [B, H, W, ...], HiddenPixels) -> [B]`, float32 at least; 0 for an image with nothing hidden.

    Raises:
        TypeError: (by the loss) targets that are not `HiddenPixels`.
        ValueError: (by the loss) outputs of another B, H or W; whatever `loss` raises.

    Example:
        >>> from mtljax.losses import squared_error
        >>> targets = HiddenPixels(jnp.zeros((1, 1, 2, 1)), jnp.array([[[True, False]]]))
        >>> hidden_loss(squared_error)(jnp.array([3.0, 5.0]).reshape(1, 1, 2, 1), targets).tolist()
        [9.0]
    """
    check_callable("hidden_loss", "loss", loss)

    def masked(outputs: Any, targets: HiddenPixels) -> Array:
        if not isinstance(targets, HiddenPixels):
            raise TypeError(f"hidden_loss: targets must be HiddenPixels, found {type(targets).__name__}")
        values, hidden = targets
        outputs = jnp.asarray(outputs)
        if outputs.shape[:3] != hidden.shape:
            raise ValueError(
                f"hidden_loss: outputs must be [B, H, W, ...] with {list(hidden.shape)}, found {list(outputs.shape)}"
            )
        pixels = (array.reshape(array.shape[0], -1, *array.shape[3:]) for array in (outputs, values, hidden))
        return jax.vmap(lambda z, y, m: masked_loss(loss, z, y, mask=m)[0])(*pixels)

    return masked
