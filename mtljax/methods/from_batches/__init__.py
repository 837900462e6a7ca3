"""Methods that read batches: the losses themselves, differentiated at more than one point or on more than one batch."""

from mtljax.methods.from_batches.auto_lambda import auto_lambda
from mtljax.methods.from_batches.forum import forum
from mtljax.methods.from_batches.moml import moml
from mtljax.methods.from_batches.sampled import sampled
from mtljax.methods.from_batches.task_sharpness import fs_mtl

__all__ = ["auto_lambda", "forum", "fs_mtl", "moml", "sampled"]
