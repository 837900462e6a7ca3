"""The view `contrastive_pairs`: two augmented copies of every example; and networks that take such pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtljax.checks import check_callable
from mtljax.sharing.frames.network import Network, check_network
from mtljax.types import Array, Key, PyTree


class Pair(NamedTuple):
    """Two views of one example, or the outputs of a network for two views.

    Attributes:
        first: pytree of arrays `[B, ...]`.
        second: pytree of the same structure and shapes.
    """

    first: PyTree
    second: PyTree


def contrastive_pairs(
    first: Callable[[Key, PyTree], PyTree], second: Callable[[Key, PyTree], PyTree] | None = None
) -> Callable[[Key, PyTree], tuple[Pair, Array]]:
    """Recognize the other view of the same example among the views of other examples: `inputs = (t(x), t'(x))`.

    The task's loss is `mtljax.losses.nt_xent` or `info_nce`. The targets say which examples take part: all of them. If
    a mask hides an example, `mtljax.make_losses_fn` hides its target too, and the example is not a negative of others.
    Trunk and head must take pairs: `on_pairs`.

    Chen, Kornblith, Norouzi and Hinton, "A simple framework for contrastive learning of visual representations", ICML
    2020.

    Args:
        first: augmentation `(key, x) -> like x`, such as `chain(crop(2), noise(0.1))`.
        second: augmentation for the second view; None (default) for `first` with another key.

    Returns:
        View `(key, x) -> (Pair, bool [B])`, for any x that the augmentations take.

    Example:
        >>> from mtljax.data.views.augmentation import crop
        >>> inputs, targets = contrastive_pairs(crop(1))(jax.random.key(0), jnp.ones((2, 4, 4, 1)))
        >>> inputs.second.shape, targets.tolist()
        ((2, 4, 4, 1), [True, True])
    """
    check_callable("contrastive_pairs", "first", first)
    second = first if second is None else check_callable("contrastive_pairs", "second", second)

    def view(key: Key, x: PyTree) -> tuple[Pair, Array]:
        left, right = jax.random.split(key)
        pair = Pair(first(left, x), second(right, x))
        return pair, jnp.ones(jax.tree.leaves(pair)[0].shape[0], bool)

    return view


def on_pairs(network: Network) -> Network:
    """A network that also takes pairs: it is called once, with both halves as one batch `[2B, ...]`.

    Batch statistics are over both views together, as in SimCLR. Inputs that are not a `Pair` are passed on as they are.

    Args:
        network: from pytrees of arrays `[B, ...]` to pytrees of arrays `[B, ...]`.

    Returns:
        `Network` that returns a `Pair` for a `Pair`.

    Example:
        >>> double = Network(lambda key, x: ((), ()), lambda w, state, x, *, key=None, train=False: (2 * x, state))
        >>> on_pairs(double).apply((), (), Pair(jnp.ones(1), jnp.zeros(1)))[0]
        Pair(first=Array([2.], dtype=float32), second=Array([0.], dtype=float32))
    """
    check_network("on_pairs", "network", network)

    def init(key: Key, inputs: PyTree) -> tuple[PyTree, PyTree]:
        return network.init(key, _joined(inputs) if isinstance(inputs, Pair) else inputs)

    def apply(
        params: PyTree, state: PyTree, inputs: PyTree, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, PyTree]:
        if not isinstance(inputs, Pair):
            return network.apply(params, state, inputs, key=key, train=train)
        outputs, state = network.apply(params, state, _joined(inputs), key=key, train=train)
        size = jax.tree.leaves(inputs.first)[0].shape[0]
        halves = (
            jax.tree.map(lambda leaf, part=part: leaf[part], outputs) for part in (slice(size), slice(size, None))
        )
        return Pair(*halves), state

    return Network(init, apply)


def _joined(pair: Pair) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), pair.first, pair.second)
