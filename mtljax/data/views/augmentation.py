"""Augmentations of images, which keep the meaning of an image: functions `(key, x [B, H, W, C]) -> like x`.

Every image of a batch gets its own draw. Use them in `contrastive_pairs`, or alone in a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.checks import check_callable, check_count, check_number
from mtljax.data.views.common import images
from mtljax.trees import accumulator
from mtljax.types import Array, Key

Augmentation = Callable[[Key, Any], Array]


def flip(*, probability: float = 0.5) -> Augmentation:
    """Mirror left and right, with the given probability.

    Args:
        probability: from 0 to 1.

    Returns:
        Augmentation; any dtype.

    Raises:
        ValueError: a probability outside 0 to 1; from the augmentation, images that are not `[B, H, W, C]`.

    Example:
        >>> flip(probability=1.0)(jax.random.key(0), jnp.arange(3).reshape(1, 1, 3, 1)).ravel().tolist()
        [2, 1, 0]
    """
    probability = check_number("flip", "probability", probability, least=0, most=1)

    def augment(key: Key, x: Any) -> Array:
        x = images("flip", x)
        flipped = jax.random.bernoulli(key, probability, (x.shape[0],))
        return jnp.where(flipped[:, None, None, None], x[:, :, ::-1], x)

    return augment


def crop(pixels: int) -> Augmentation:
    """Pad with zeros on every side and crop to the old size: a shift by up to `pixels` in each direction.

    Args:
        pixels: the largest shift, at least 1; both coordinates are uniform over `-pixels, ..., pixels`.

    Returns:
        Augmentation; any dtype.

    Raises:
        TypeError: `pixels` that is not an integer.
        ValueError: `pixels` below 1; from the augmentation, images that are not `[B, H, W, C]`.

    Example:
        >>> crop(1)(jax.random.key(0), jnp.ones((2, 4, 4, 1))).shape
        (2, 4, 4, 1)
    """
    pixels = check_count("crop", "pixels", pixels)

    def augment(key: Key, x: Any) -> Array:
        x = images("crop", x)
        padded = jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
        corners = jax.random.randint(key, (x.shape[0], 2), 0, 2 * pixels + 1)

        def window(image: Array, corner: Array) -> Array:
            return lax.dynamic_slice(image, (corner[0], corner[1], 0), x.shape[1:])

        return jax.vmap(window)(padded, corners)

    return augment


def noise(std: float) -> Augmentation:
    """Add Gaussian noise.

    Args:
        std: standard deviation, positive, in units of the image.

    Returns:
        Augmentation; floating, drawn and added in float32 at least.

    Raises:
        TypeError: (by the augmentation) integer images.
        ValueError: `std` that is not positive; from the augmentation, images that are not `[B, H, W, C]`.

    Example:
        >>> noise(0.1)(jax.random.key(0), jnp.ones((2, 4, 4, 1), jnp.bfloat16)).dtype.name
        'bfloat16'
    """
    std = check_number("noise", "std", std, above=0)

    def augment(key: Key, x: Any) -> Array:
        x = images("noise", x, floating=True)
        dtype = accumulator(x.dtype)
        return (x.astype(dtype) + std * jax.random.normal(key, x.shape, dtype)).astype(x.dtype)

    return augment


def cutout(side: int) -> Augmentation:
    """Set a square to zero. Its centre is uniform over the pixels, so the square may extend beyond the image.

    DeVries and Taylor, "Improved regularization of convolutional neural networks with Cutout", arXiv:1708.04552, 2017.

    Args:
        side: of the square in pixels, at least 1. Around pixel c it goes from `c - side // 2` on.

    Returns:
        Augmentation; any dtype.

    Raises:
        TypeError: `side` that is not an integer.
        ValueError: `side` below 1; from the augmentation, images that are not `[B, H, W, C]`.

    Example:
        >>> float(cutout(1)(jax.random.key(0), jnp.ones((1, 4, 4, 1))).sum())
        15.0
    """
    side = check_count("cutout", "side", side)

    def augment(key: Key, x: Any) -> Array:
        x = images("cutout", x)
        height, width = x.shape[1:3]
        centers = jax.random.randint(key, (x.shape[0], 2), 0, jnp.array([height, width])[None, :])
        first = centers - side // 2

        def inside(size: int, start: Array) -> Array:
            positions = jnp.arange(size)[None, :]
            return (positions >= start[:, None]) & (positions < start[:, None] + side)

        cut = inside(height, first[:, 0])[:, :, None] & inside(width, first[:, 1])[:, None, :]
        return jnp.where(cut[..., None], jnp.zeros_like(x), x)

    return augment


def chain(*augmentations: Augmentation) -> Augmentation:
    """Apply several augmentations in a row, each with its own key.

    Args:
        *augmentations: at least one.

    Returns:
        Augmentation.

    Raises:
        ValueError: none given.

    Example:
        >>> chain(crop(1), cutout(2))(jax.random.key(0), jnp.ones((2, 4, 4, 1))).shape
        (2, 4, 4, 1)
    """
    if not augmentations:
        raise ValueError("chain: augmentations must be at least one, found none")
    for augmentation in augmentations:
        check_callable("chain", "an augmentation", augmentation)

    def augment(key: Key, x: Any) -> Array:
        for part, own in zip(augmentations, jax.random.split(key, len(augmentations)), strict=True):
            x = part(own, x)
        return x

    return augment
