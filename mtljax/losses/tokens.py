"""Losses and metrics of sequences with one label per token and with padding.

The labels say which tokens have one: a token without a label has `PADDING` (-1); a token whose true label is not one of
the classes has `UNSEEN` (-2). Every other label outside 0 to C - 1 is a mistake, treated as in `mtljax.losses`.

Each function returns a value per token, and the weight 1 or 0 of each token. With `l_bt` the value of token t of
sentence b, the mean over the batch is the one of published losses and accuracies, in which all words have equal weight:

    sum_b sum_t w_bt l_bt / sum_b sum_t w_bt

`Batch.mask` multiplies these weights. With the mask `1 / n_b`, float `[B]` and n_b the number of labelled tokens of
sentence b, the mean is the one over sentences, in which a word in a short sentence counts for more. A task whose labels
are all `PADDING` needs no mask: its weights sum to 0, so it is inactive.
"""

from __future__ import annotations

import jax.numpy as jnp
import optax

from mtljax.checks import check_labels
from mtljax.types import Array

PADDING = -1  # label of padding, and of tokens without a label
UNSEEN = -2  # label of a token whose true label is not one of the classes


def token_cross_entropy(outputs: Array, targets: Array) -> tuple[Array, Array]:
    """Cross-entropy of one label per token, over labelled tokens.

    `loss_bt = logsumexp(z_bt) - z_bt[y_bt]` and `w_bt = 1` where `y_bt >= 0`, and 0 elsewhere.

    Args:
        outputs: logits `[B, ..., C]`, floating.
        targets: labels `[B, ...]`, signed integer, from -2 to C - 1.

    Returns:
        `(elements, weights)` like the targets: elements in nats, float32 at least, NaN for a traced label out of range;
        weights bool. Logits at tokens without a label have no effect, even if they are NaN.

    Raises:
        TypeError: logits that are not floating or labels that are not signed integers.
        ValueError: shapes that do not match, no axis of tokens, or a concrete label out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from mtljax.losses import masked_loss
        >>> labels = jnp.array([[3, 0, -1], [1, -1, -1]])
        >>> elements, weights = token_cross_entropy(jnp.zeros([2, 3, 4]), labels)
        >>> weights.tolist()
        [[True, True, False], [True, False, False]]
        >>> [f"{each:.3f}" for each in masked_loss(token_cross_entropy, jnp.zeros([2, 3, 4]), labels)]
        ['1.386', '3.000']
    """
    outputs, labels, known = _checked("token_cross_entropy", outputs, targets)
    labeled = jnp.asarray(targets) >= 0
    # Replaced before the loss, not multiplied by zero after it, since the derivative at a NaN is NaN.
    outputs = jnp.where(labeled[..., None], outputs, 0)
    values = optax.losses.softmax_cross_entropy_with_integer_labels(outputs, labels)
    return jnp.where(known, values, jnp.nan), labeled | ~known


def token_accuracy(outputs: Array, targets: Array) -> tuple[Array, Array]:
    """Accuracy over tokens: whether the largest logit is that of the token's label.

    `value_bt = [argmax z_bt = y_bt]` and `w_bt = 1` where `y_bt != PADDING`, and 0 elsewhere. A token with label
    `UNSEEN` counts and is never right.

    Args:
        outputs: as for `token_cross_entropy`.
        targets: likewise.

    Returns:
        `(elements, weights)` like the targets: elements 1 or 0, NaN at a NaN logit of a token that counts or at a
        traced label out of range; weights bool.

    Raises:
        TypeError, ValueError: as `token_cross_entropy`.

    Example:
        >>> import jax.numpy as jnp
        >>> logits = jnp.array([[[0.0, 1.0], [2.0, 1.0], [5.0, 0.0]]])
        >>> elements, weights = token_accuracy(logits, jnp.array([[1, 1, -1]]))
        >>> elements[0, :2].tolist(), weights.tolist()
        ([1.0, 0.0], [[True, True, False]])
    """
    outputs, _, known = _checked("token_accuracy", outputs, targets)
    targets = jnp.asarray(targets)
    right = (jnp.argmax(outputs, -1) == targets).astype(outputs.dtype)
    counted = targets != PADDING
    sound = known & ~(counted & jnp.isnan(outputs).any(-1))
    return jnp.where(sound, right, jnp.nan), counted


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


def _checked(caller: str, outputs: Array, targets: Array) -> tuple[Array, Array, Array]:
    """Logits `[B, ..., C]`, labels `[B, ...]` with 0 where out of range, and a bool mask of labels in range."""
    found = check_labels(caller, outputs, targets, least=UNSEEN)
    labels = jnp.asarray(targets)
    if not jnp.issubdtype(labels.dtype, jnp.signedinteger):
        raise TypeError(f"{caller}: targets must be signed integer labels, found {labels.dtype}")
    if labels.ndim < 2:
        raise ValueError(f"{caller}: targets must be [B, ...] with an axis of tokens, found {list(labels.shape)}")
    return found
