"""Classes of unequal size: weights, focal loss, logit adjustment and resampling, for each task by itself.

What these need to know about a task's classes are its counts, which `class_counts` takes from the labels of the
training split. The losses are what `Task.loss` takes; `sampling_weights` is for `mtljax.data.batches(weights=...)`.
"""

from mtljax.imbalance.losses import (
    class_weighted,
    logit_adjusted,
    sigmoid_focal,
    sigmoid_logit_adjusted,
    softmax_focal,
)
from mtljax.imbalance.weights import class_counts, effective_number, inverse_frequency, sampling_weights

__all__ = [
    "class_counts",
    "class_weighted",
    "effective_number",
    "inverse_frequency",
    "logit_adjusted",
    "sampling_weights",
    "sigmoid_focal",
    "sigmoid_logit_adjusted",
    "softmax_focal",
]
