"""Wrappers: each takes a `Method` and returns a `Method`."""

from mtljax.methods.wrappers.ema import cr_mogm, ema
from mtljax.methods.wrappers.every import every
from mtljax.methods.wrappers.log_losses import log_losses
from mtljax.methods.wrappers.normalize import normalize
from mtljax.methods.wrappers.per_group import by_layer, by_leaf, per_group
from mtljax.methods.wrappers.preference import preference
from mtljax.methods.wrappers.rescale import clip, mean_norm, rescale, sum_norm
from mtljax.methods.wrappers.warmup import warmup

__all__ = [
    "by_layer",
    "by_leaf",
    "clip",
    "cr_mogm",
    "ema",
    "every",
    "log_losses",
    "mean_norm",
    "normalize",
    "per_group",
    "preference",
    "rescale",
    "sum_norm",
    "warmup",
]
