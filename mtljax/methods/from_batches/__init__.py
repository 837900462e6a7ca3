"""Methods that read batches of their own: three learn loss weights from a validation batch, one reads sharpness."""

from mtljax.methods.from_batches.auto_lambda import auto_lambda
from mtljax.methods.from_batches.common import Bilevel, BilevelState
from mtljax.methods.from_batches.forum import forum
from mtljax.methods.from_batches.moml import moml
from mtljax.methods.from_batches.task_sharpness import FlatState, fs_mtl

__all__ = ["Bilevel", "BilevelState", "FlatState", "auto_lambda", "forum", "fs_mtl", "moml"]
