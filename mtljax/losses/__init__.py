"""Losses of examples, tokens, pairs and rare classes; `make_losses_fn` makes the first function of a step, judge."""

from mtljax.losses.class_weights import class_counts, effective_number, inverse_frequency, sampling_weights
from mtljax.losses.contrastive import info_nce, negative_sampling, nt_xent
from mtljax.losses.imbalanced import (
    class_weighted,
    logit_adjusted,
    sigmoid_focal,
    sigmoid_logit_adjusted,
    softmax_focal,
)
from mtljax.losses.masked import masked_loss, masked_mean
from mtljax.losses.per_example import (
    Loss,
    absolute_error,
    binary_cross_entropy,
    huber,
    softmax_cross_entropy,
    squared_error,
)
from mtljax.losses.tokens import PADDING, UNSEEN, has_tokens, token_accuracy, token_cross_entropy

__all__ = [
    "PADDING",
    "UNSEEN",
    "Loss",
    "absolute_error",
    "binary_cross_entropy",
    "class_counts",
    "class_weighted",
    "effective_number",
    "has_tokens",
    "huber",
    "info_nce",
    "inverse_frequency",
    "logit_adjusted",
    "masked_loss",
    "masked_mean",
    "negative_sampling",
    "nt_xent",
    "sampling_weights",
    "sigmoid_focal",
    "sigmoid_logit_adjusted",
    "softmax_cross_entropy",
    "softmax_focal",
    "squared_error",
    "token_accuracy",
    "token_cross_entropy",
]
