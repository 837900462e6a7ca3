"""Views that restore an image: from itself, from noise, from grey values, or from low resolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.checks import check_count, check_flag, check_number
from mtljax.data.views.common import divides, images
from mtljax.trees import accumulator
from mtljax.types import Array, Key, PyTree

ImageView = Callable[[Key, Any], tuple[Array, Array]]


def autoencoding() -> Callable[[Key, PyTree], tuple[PyTree, PyTree]]:
    """Reconstruct the inputs: `inputs = targets = x`. The network needs a bottleneck to learn from this task.

    Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science 313, 2006.

    Returns:
        View `(key, x) -> (x, x)` of any pytree of arrays `[B, ...]`; the key is not used.

    Example:
        >>> autoencoding()(jax.random.key(0), jnp.ones(2))
        (Array([1., 1.], dtype=float32), Array([1., 1.], dtype=float32))
    """
    return lambda key, x: (x, x)


def denoising(std: float) -> ImageView:
    """Remove Gaussian noise: `inputs = x + std * e`, e standard normal at every entry, `targets = x`.

    Vincent, Larochelle, Bengio and Manzagol, "Extracting and composing robust features with denoising autoencoders",
    ICML 2008. Their masking noise is `masked_cells(1)`.

    Args:
        std: standard deviation of the noise, positive, in units of the image.

    Returns:
        View `(key, x [B, H, W, C]) -> (inputs, targets)`, both like x; floating.

    Raises:
        TypeError: (by the view) integer images.
        ValueError: `std` that is not positive; from the view, images that are not `[B, H, W, C]`.

    Example:
        >>> inputs, targets = denoising(0.5)(jax.random.key(0), jnp.zeros((4, 16, 16, 1)))
        >>> f"{jnp.std(inputs - targets):.1f}"
        '0.5'
    """
    std = check_number("denoising", "std", std, above=0)

    def view(key: Key, x: Any) -> tuple[Array, Array]:
        x = images("denoising", x, floating=True)
        dtype = accumulator(x.dtype)
        return (x.astype(dtype) + std * jax.random.normal(key, x.shape, dtype)).astype(x.dtype), x

    return view


def colorization(*, keep_channels: bool = True) -> ImageView:
    """Predict colour from grey values: `inputs = 0.299 R + 0.587 G + 0.114 B`, `targets = x`.

    The luminance is that of ITU-R recommendation BT.601.

    Zhang, Isola and Efros, "Colorful image colorization", ECCV 2016.

    Departures: they classify the colour in bins of the ab plane of Lab. Here the target is the image itself.

    Args:
        keep_channels: whether the grey value is repeated in all three channels, so that a trunk for colour images
            accepts it (default); False gives one channel.

    Returns:
        View `(key, x [B, H, W, 3]) -> (inputs [B, H, W, 3 or 1], targets [B, H, W, 3])`, floating, of x's dtype;
        summed in float32 at least. The key is not used.

    Raises:
        TypeError: (by the view) integer images.
        ValueError: (by the view) images that are not `[B, H, W, 3]`.

    Example:
        >>> inputs, targets = colorization()(jax.random.key(0), jnp.array([1.0, 0.0, 0.0]).reshape(1, 1, 1, 3))
        >>> [f"{value:.3f}" for value in inputs.ravel()]
        ['0.299', '0.299', '0.299']
    """
    check_flag("colorization", "keep_channels", keep_channels)

    def view(key: Key, x: Any) -> tuple[Array, Array]:
        x = images("colorization", x, floating=True)
        if x.shape[3] != 3:
            raise ValueError(
                f"colorization: the inputs must have three channels (red, green, blue), found {x.shape[3]}"
            )
        wide = x.astype(accumulator(x.dtype))
        gray = 0.299 * wide[..., :1] + 0.587 * wide[..., 1:2] + 0.114 * wide[..., 2:]
        inputs = jnp.broadcast_to(gray, x.shape) if keep_channels else gray
        return inputs.astype(x.dtype), x

    return view


def super_resolution(factor: int, *, keep_size: bool = True) -> ImageView:
    """Raise the resolution: inputs are means over cells of `factor` by `factor` pixels, `targets = x`.

    Dong, Loy, He and Tang, "Image super-resolution using deep convolutional networks", TPAMI 38, 2016.

    Departures: they blur and subsample. Here inputs are averages over cells.

    Args:
        factor: side of a cell in pixels, at least 2; H and W must be multiples.
        keep_size: whether the mean is repeated at all pixels of its cell, so that a trunk for whole images accepts it
            (default); False gives the small image.

    Returns:
        View `(key, x [B, H, W, C]) -> (inputs [B, H, W, C] or [B, H / factor, W / factor, C], targets like x)`,
        floating, of x's dtype; summed in float32 at least. The key is not used.

    Raises:
        TypeError: a factor that is not an integer; from the view, integer images.
        ValueError: a factor below 2; from the view, images that are not `[B, H, W, C]`, or a factor that does not fit.

    Example:
        >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
        >>> super_resolution(2)(jax.random.key(0), x)[0].ravel().tolist()
        [1.5, 1.5, 1.5, 1.5]
    """
    factor = check_count("super_resolution", "factor", factor, least=2)
    check_flag("super_resolution", "keep_size", keep_size)

    def view(key: Key, x: Any) -> tuple[Array, Array]:
        x = images("super_resolution", x, floating=True)
        divides("super_resolution", (factor, factor), "factor", x.shape)
        size, height, width, channels = x.shape
        cells = x.reshape(size, height // factor, factor, width // factor, factor, channels)
        small = jnp.mean(cells, axis=(2, 4), dtype=accumulator(x.dtype)).astype(x.dtype)
        return small.repeat(factor, axis=1).repeat(factor, axis=2) if keep_size else small, x

    return view
