"""Losses and metrics of sequences with one label per token and with padding.

`Batch.mask` says which examples have labels. The labels say which tokens have one: a token without a label has
`PADDING` (-1); a token whose true label is not one of the classes has `UNSEEN` (-2). Every other label outside 0 to
C - 1 is a mistake, treated as in `mtljax.losses`.

Sentences differ in length, so there are two means. Let `l_bt` be the loss of token t of sentence b, `n_b` the number of
labelled tokens of the sentence, and B the number of sentences with labelled tokens.

    mean over sentences   1/B sum_b 1/n_b sum_t l_bt          a word in a short sentence counts for more
    mean over tokens      sum_b sum_t l_bt / sum_b n_b        all words have equal weight, as in published accuracies

A loss returns one value per example, `[B]`, and the library averages these values. The mean over tokens therefore needs
a constant, the mean number of labelled tokens per sentence `n = sum_b n_b / B` of the split. The mean over examples of
`1/n sum_t l_bt` is exactly the mean over the tokens of the split; over a batch it is an unbiased estimate.
"""

from __future__ import annotations

import jax.numpy as jnp
import optax

from mtljax.checks import check_labels, check_number
from mtljax.losses.per_example import Loss
from mtljax.types import Array

PADDING = -1  # label of padding, and of tokens without a label
UNSEEN = -2  # label of a token whose true label is not one of the classes


def token_cross_entropy(tokens_per_example: float | None = None) -> Loss:
    """Make the cross-entropy of one label per token, in nats, over labelled tokens.

    `loss_b = 1/n sum_t (logsumexp(z_bt) - z_bt[y_bt])` over the tokens t with `y_bt >= 0`; n is their number `n_b`,
    or `tokens_per_example`. An example without labelled tokens has loss 0 with derivative 0. Mask such examples, else
    the mean over examples counts them.

    Args:
        tokens_per_example: mean number of labelled tokens per example of the split, positive; the mean over examples is
            then a mean over tokens. None (default) for the mean over each example's own tokens.

    Returns:
        Loss `(outputs [B, ..., C], targets [B, ...]) -> [B]`, of logits and integer labels from -2 to C - 1; float32 at
        least. It raises TypeError for logits that are not floating or labels that are not signed integers, ValueError
        for shapes that do not match and for concrete labels out of range. A traced label out of range makes the
        example's loss NaN. Logits at tokens without a label have no effect, even if they are NaN.

    Raises:
        ValueError: `tokens_per_example` that is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = token_cross_entropy()
        >>> [f"{value:.3f}" for value in loss(jnp.zeros([2, 3, 4]), jnp.array([[3, 0, -1], [1, -1, -1]]))]
        ['1.386', '1.386']
        >>> loss = token_cross_entropy(tokens_per_example=1.5)
        >>> [f"{value:.3f}" for value in loss(jnp.zeros([2, 3, 4]), jnp.array([[3, 0, -1], [1, -1, -1]]))]
        ['1.848', '0.924']
    """
    _check_rate("token_cross_entropy", tokens_per_example)

    def loss(outputs: Array, targets: Array) -> Array:
        outputs, labels, known = _checked("token_cross_entropy", outputs, targets)
        labeled = jnp.asarray(targets) >= 0
        # Replaced before the loss, not multiplied by zero after it, since the derivative at a NaN is NaN.
        outputs = jnp.where(labeled[..., None], outputs, 0)
        values = optax.losses.softmax_cross_entropy_with_integer_labels(outputs, labels)
        return _mean(jnp.where(known, values, jnp.nan), labeled | ~known, tokens_per_example)

    return loss


def token_accuracy(tokens_per_example: float | None = None) -> Loss:
    """Make the accuracy over tokens: the share of tokens whose largest logit is that of their label.

    `value_b = 1/n sum_t [argmax z_bt = y_bt]` over the tokens t with `y_bt != PADDING`; n is their number or
    `tokens_per_example`, as in `token_cross_entropy`. A token with label `UNSEEN` counts and is never right. An example
    with a NaN logit at a token that counts, or with a traced label out of range, has value NaN.

    Args:
        tokens_per_example: as in `token_cross_entropy`, but counting every label except `PADDING`.

    Returns:
        Metric `(outputs [B, ..., C], targets [B, ...]) -> [B]`; it raises as `token_cross_entropy`'s loss.

    Raises:
        ValueError: `tokens_per_example` that is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> logits = jnp.array([[[0.0, 1.0], [2.0, 1.0], [5.0, 0.0]]])
        >>> token_accuracy()(logits, jnp.array([[1, 1, -1]])).tolist()
        [0.5]
    """
    _check_rate("token_accuracy", tokens_per_example)

    def metric(outputs: Array, targets: Array) -> Array:
        outputs, _, known = _checked("token_accuracy", outputs, targets)
        targets = jnp.asarray(targets)
        right = (jnp.argmax(outputs, -1) == targets).astype(outputs.dtype)
        sound = known & ~jnp.isnan(outputs).any(-1)
        return _mean(jnp.where(sound, right, jnp.nan), targets != PADDING, tokens_per_example)

    return metric


def has_tokens(targets: Array) -> Array:
    """The mask of examples with at least one labelled token.

    Args:
        targets: labels `[B, ...]`, integer.

    Returns:
        bool `[B]`, False where all labels of an example are `PADDING`.

    Raises:
        TypeError: labels that are not integers.
        ValueError: no axis of tokens.

    Example:
        >>> import jax.numpy as jnp
        >>> has_tokens(jnp.array([[2, -1], [-1, -1]])).tolist()
        [True, False]
    """
    targets = jnp.asarray(targets)
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise TypeError(f"has_tokens: targets must be integer class labels, found {targets.dtype}")
    if targets.ndim < 2:
        raise ValueError(f"has_tokens: targets must be [B, ...] with an axis of tokens, found {list(targets.shape)}")
    return jnp.any(targets != PADDING, axis=tuple(range(1, targets.ndim)))


def _check_rate(caller: str, tokens_per_example: float | None) -> None:
    if tokens_per_example is not None:
        check_number(caller, "tokens_per_example", tokens_per_example, above=0)


def _checked(caller: str, outputs: Array, targets: Array) -> tuple[Array, Array, Array]:
    """Logits `[B, ..., C]`, labels `[B, ...]` with 0 where out of range, and a bool mask of labels in range."""
    found = check_labels(caller, outputs, targets, least=UNSEEN)
    labels = jnp.asarray(targets)
    if not jnp.issubdtype(labels.dtype, jnp.signedinteger):
        raise TypeError(f"{caller}: targets must be signed integer labels, found {labels.dtype}")
    if labels.ndim < 2:
        raise ValueError(f"{caller}: targets must be [B, ...] with an axis of tokens, found {list(labels.shape)}")
    return found


def _mean(values: Array, counted: Array, tokens_per_example: float | None) -> Array:
    """The sum over all axes except the first, divided by the number of tokens."""
    axes = tuple(range(1, values.ndim))
    total = jnp.sum(jnp.where(counted, values, 0), axis=axes)
    if tokens_per_example is not None:
        return total / tokens_per_example
    return total / jnp.maximum(jnp.sum(counted, axis=axes), 1).astype(total.dtype)
