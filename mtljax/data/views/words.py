"""The views of word2vec, on words and their neighbours: `cbow` and `skip_gram`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.checks import check_count, check_flag, check_number
from mtljax.data.views.tokens import IGNORED, check_padding, read
from mtljax.types import Array, Key


class Context(NamedTuple):
    """The words around each word.

    Attributes:
        tokens: int `[B, L, 2W]`, from the farthest on the left to the farthest on the right; 0 where there is no word.
        present: bool `[B, L, 2W]`, True where there is a word.
    """

    tokens: Array
    present: Array


class WordPairs(NamedTuple):
    """Words with their candidate neighbours.

    Attributes:
        centers: int `[B, P]`, the words.
        candidates: int `[B, P, 1 + K]`, a neighbour and K negatives per word. A pair that does not exist is zeros.
    """

    centers: Array
    candidates: Array


def cbow(window: int, *, shrink: bool = True, padding: int | None = 0) -> Callable[..., tuple[Context, Array, Array]]:
    """Predict each word from the words around it, independent of their order (continuous bag of words).

    The network averages the embeddings of the words that are `present`, and returns logits `[B, L, vocabulary]`.

    Mikolov, Chen, Corrado and Dean, "Efficient estimation of word representations in vector space", ICLR workshop 2013.

    Departures: frequent words are not subsampled; do so when you prepare the data.

    Args:
        window: W, the largest distance of a neighbour.
        shrink: whether each word's window is uniform over 1 to W, so that near words count more (default, as in the
            authors' code); False uses W for every word.
        padding: the padding id; None if texts come with lengths.

    Returns:
        View `(key, x) -> (Context, labels int32 [B, L], mask bool [B])` of tokens `[B, L]` or `Text`; the label is -1
        at padding and at words without a neighbour, the mask False for rows without labels.

    Raises:
        TypeError, ValueError: a window that is not a positive integer; from the view, as `tokens.read`.

    Example:
        >>> inputs, labels, mask = cbow(1)(jax.random.key(0), jnp.array([[5, 7, 6, 0]]))
        >>> inputs.tokens.tolist(), labels.tolist()
        ([[[0, 7], [5, 6], [7, 0], [0, 0]]], [[5, 7, 6, -1]])
    """
    window = check_count("cbow", "window", window)
    check_flag("cbow", "shrink", shrink)
    check_padding("cbow", padding)

    def view(key: Key, x: Any) -> tuple[Context, Array, Array]:
        tokens, present = read("cbow", x, padding)
        context = _neighbors(key, tokens, present, window, shrink)
        labels = jnp.where(context.present.any(2), tokens.astype(jnp.int32), IGNORED)
        return context, labels, (labels != IGNORED).any(1)

    return view


def skip_gram(
    window: int,
    negatives: int,
    counts: Any,
    *,
    power: float = 0.75,
    shrink: bool = True,
    padding: int | None = 0,
) -> Callable[..., tuple[WordPairs, Array, Array]]:
    """Distinguish the words around a word from random words (skip-gram with negative sampling).

    The view makes all pairs of a word and a neighbour within the window, `P = L * 2W` places, and draws K negatives
    per pair from

        p(w) = counts_w^0.75 / sum_v counts_v^0.75

    The network returns one score per candidate, `[B, P, 1 + K]`. The loss is `mtljax.losses.negative_sampling`. A
    negative that equals the neighbour does not count, as in the authors' code.

    Mikolov, Sutskever, Chen, Corrado and Dean, "Distributed representations of words and phrases and their
    compositionality", NeurIPS 2013.

    Departures: frequent words are not subsampled.

    Args:
        window: W, the largest distance of a neighbour.
        negatives: K, at least 1.
        counts: number of occurrences per id, `[vocabulary]`, not traced: numbers from 0; that of `padding` counts as 0.
        power: the exponent, from 0; with 0 all ids that occur are equally probable.
        shrink: as for `cbow`.
        padding: the padding id; None if texts come with lengths.

    Returns:
        View `(key, x) -> (WordPairs, targets int32 [B, P, 1 + K], mask bool [B])` of tokens `[B, L]` or `Text`. Targets
        are 1 for the neighbour, 0 for negatives, -1 for candidates that do not count. The mask is False for rows
        without pairs. Draws invert a cumulative distribution in float32: ids rarer than 1e-7 may never be drawn.

    Raises:
        TypeError: arguments that should be integers; from the view, as `tokens.read`, or ids of a type too small for
            the vocabulary.
        ValueError: a window or number below 1; a power that is negative or not finite; counts that are negative, not
            finite, not `[vocabulary]`, or none positive; from the view, as `tokens.read`.

    Example:
        >>> view = skip_gram(1, 2, [0, 1, 1, 4])
        >>> inputs, targets, mask = view(jax.random.key(0), jnp.array([[1, 2, 0]]))
        >>> inputs.centers.tolist(), inputs.candidates[0, :, 0].tolist(), targets[0, :, 0].tolist()
        ([[0, 1, 2, 0, 0, 0]], [0, 2, 1, 0, 0, 0], [-1, 1, 1, -1, -1, -1])
    """
    window, negatives = check_count("skip_gram", "window", window), check_count("skip_gram", "negatives", negatives)
    check_padding("skip_gram", padding)
    check_number("skip_gram", "power", power, least=0)
    check_flag("skip_gram", "shrink", shrink)
    table = _cumulative(counts, power, padding)

    def view(key: Key, x: Any) -> tuple[WordPairs, Array, Array]:
        tokens, present = read("skip_gram", x, padding)
        if len(table) - 1 > jnp.iinfo(tokens.dtype).max:
            raise TypeError(f"skip_gram: {tokens.dtype} cannot hold ids up to {len(table) - 1}")
        near, drawn = jax.random.split(key)
        context = _neighbors(near, tokens, present, window, shrink)
        shape = (tokens.shape[0], tokens.shape[1] * 2 * window)
        there, true = context.present.reshape(shape)[..., None], context.tokens.reshape(shape)[..., None]
        centers = jnp.where(there[..., 0], tokens.repeat(2 * window, axis=1), 0)
        draws = jax.random.uniform(drawn, (*shape, negatives))
        false = jnp.searchsorted(jnp.asarray(table), draws, side="right").astype(tokens.dtype)
        candidates = jnp.concatenate([true, jnp.where(there, false, 0)], axis=2)
        right = jnp.concatenate([jnp.ones_like(there), jnp.zeros(false.shape, bool)], axis=2)
        counted = there & (right | (candidates != true))
        targets = jnp.where(counted, right.astype(jnp.int32), IGNORED)
        return WordPairs(centers, candidates), targets, there.any((1, 2))

    return view


def _neighbors(key: Key, tokens: Array, present: Array, window: int, shrink: bool) -> Context:
    """The words at distances up to W on both sides, within the row."""
    length = tokens.shape[1]
    offsets = np.concatenate([np.arange(-window, 0), np.arange(1, window + 1)])
    places = np.arange(length)[:, None] + offsets[None, :]
    inside, places = (places >= 0) & (places < length), places.clip(0, length - 1)
    there = jnp.asarray(inside)[None] & present[:, :, None] & present[:, places]
    if shrink:
        reach = jax.random.randint(key, tokens.shape, 1, window + 1)
        there = there & (np.abs(offsets)[None, None, :] <= reach[:, :, None])
    return Context(jnp.where(there, tokens[:, places], 0), there)


def _cumulative(counts: Any, power: float, padding: int | None) -> np.ndarray:
    """The upper end of each id's interval in [0, 1); the last end is larger, so that every draw finds an id."""
    counts = np.array(check_number("skip_gram", "counts", counts, least=0, shape=("vocabulary",)), np.float64)
    if padding is not None and 0 <= padding < len(counts):
        counts[padding] = 0
    if not counts.any():
        raise ValueError("skip_gram: counts must be positive for at least one token that is not padding")
    weights = np.where(counts > 0, (counts / counts.max()) ** power, 0)
    ends = (weights.cumsum() / weights.sum()).astype(np.float32)
    ends[np.flatnonzero(weights)[-1] :] = 2
    return ends
