"""The view `next_sentence`: pairs of sentences, some of which do not follow each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.checks import check_number
from mtljax.data.views.tokens import Text, check_padding, like, read
from mtljax.types import Array, Key


def next_sentence(
    *, negatives: float = 0.5, padding: int | None = 0
) -> Callable[[Key, tuple[Any, Any]], tuple[tuple[Any, Any], Array, Array]]:
    """Predict whether the second sentence follows the first; with some probability it is replaced.

    The replacement is the second sentence of another example of the batch, uniformly drawn. If it equals the sentence
    that follows, token by token, the label says that it follows.

    Devlin, Chang, Lee and Toutanova, "BERT: pre-training of deep bidirectional transformers for language
    understanding", NAACL 2019.

    Departures: their negatives come from the whole corpus, not from the batch.

    Args:
        negatives: probability that the second sentence is replaced, between 0 and 1.
        padding: the padding id; None if texts come with lengths.

    Returns:
        View `(key, (first, second)) -> ((first, second), labels int32 [B], mask bool [B])` of tokens `[B, L]` or
        `Text` each; in x, `second[i]` follows `first[i]`. The label is 1 if the returned second sentence follows, else
        0. The mask is False if one of the returned sentences is empty. At the end of a document, where no sentence
        follows, mask the example in the batch.

    Raises:
        TypeError: (by the view) inputs that are not a pair; as `tokens.read`.
        ValueError: a probability outside 0 to 1; from the view, fewer than two examples, or unequal numbers of first
            and second sentences; as `tokens.read`.

    Example:
        >>> first, second = jnp.array([[1], [2]]), jnp.array([[3], [4]])
        >>> inputs, labels, mask = next_sentence()(jax.random.key(1), (first, second))
        >>> [[int(a), int(b), int(y)] for a, b, y in zip(inputs[0][:, 0], inputs[1][:, 0], labels)]
        [[1, 3, 1], [2, 3, 0]]
    """
    negatives = check_number("next_sentence", "negatives", negatives, above=0, below=1)
    check_padding("next_sentence", padding)

    def view(key: Key, x: tuple[Any, Any]) -> tuple[tuple[Any, Any], Array, Array]:
        if isinstance(x, Text) or not isinstance(x, tuple) or len(x) != 2:
            raise TypeError(f"next_sentence: the inputs must be a pair (first, second), found {type(x).__name__}")
        first, second = x
        _, before = read("next_sentence", first, padding)
        tokens, after = read("next_sentence", second, padding)
        size = tokens.shape[0]
        if size < 2 or before.shape[0] != size:
            raise ValueError(
                "next_sentence: the inputs must be two or more pairs, "
                f"found {before.shape[0]} first and {size} second sentences"
            )
        swap, which = jax.random.split(key)
        swapped = jax.random.bernoulli(swap, negatives, (size,))
        other = (jnp.arange(size) + jax.random.randint(which, (size,), 1, size)) % size
        other = jnp.where(swapped, other, jnp.arange(size))
        shown, shown_after = tokens[other], after[other]
        same = ((shown == tokens) | ~after) & (shown_after == after)
        mask = before.any(1) & shown_after.any(1)
        second = like(second, shown)
        if isinstance(second, Text):
            second = second._replace(lengths=jnp.asarray(second.lengths)[other])
        return (first, second), same.all(1).astype(jnp.int32), mask

    return view
