"""The view `rotation`: images turned by quarter turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.data.views.common import images
from mtljax.types import Array, Key


def rotation() -> Callable[[Key, Any], tuple[Array, Array]]:
    """Predict how an image was turned: `inputs = rot90(x, k)`, `targets = k`, k uniform over 0, 1, 2, 3.

    Class k means k quarter turns counter-clockwise, as `jnp.rot90` turns the axes H and W.

    Gidaris, Singh and Komodakis, "Unsupervised representation learning by predicting image rotations", ICLR 2018.

    Departures: they show all four rotations of every image in one batch. Here each image gets one random rotation per
    step.

    Returns:
        View `(key, x [B, N, N, C]) -> (inputs like x, targets int32 [B])`, 4 classes; any dtype.

    Raises:
        ValueError: (by the view) images that are not `[B, H, W, C]`, or images that are not square.

    Example:
        >>> x = jnp.arange(4).reshape(1, 2, 2, 1)
        >>> inputs, targets = rotation()(jax.random.key(0), x)
        >>> bool((inputs == jnp.rot90(x, int(targets[0]), axes=(1, 2))).all())
        True
    """

    def view(key: Key, x: Any) -> tuple[Array, Array]:
        x = images("rotation", x)
        if x.shape[1] != x.shape[2]:
            raise ValueError(f"rotation: the inputs must be square images, found {x.shape[1]} by {x.shape[2]}")
        turns = jax.random.randint(key, (x.shape[0],), 0, 4, jnp.int32)
        # An optional half turn and an optional quarter turn: two selections. Picking one of four copies needs three.
        half, quarter = (turns >= 2)[:, None, None, None], (turns % 2 == 1)[:, None, None, None]
        x = jnp.where(half, x[:, ::-1, ::-1], x)
        return jnp.where(quarter, jnp.rot90(x, axes=(1, 2)), x), turns

    return view
