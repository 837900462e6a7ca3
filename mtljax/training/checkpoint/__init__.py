"""Checkpoints that restore to the bit: atomic, checked, and written while training goes on.

Orbax writes each checkpoint into a temporary folder and renames it when it is complete. So a killed process leaves a
complete checkpoint or none. Orbax does not detect a flipped bit in an array. Therefore a CRC-32 of every leaf, and of
everything else that is read, is stored beside the arrays and compared.

A checkpoint is a folder `mtljax_<step>`, and an ordinary Orbax checkpoint that can be read without mtljax. Its item
`state` holds the arrays by path, such as `params/shared/w`; "~" and "/" in a name are written "~0" and "~1"; typed PRNG
keys are stored as their key data. Its item `facts` is JSON: shape, dtype, weak type and CRC-32 of each leaf, the
position of the input pipeline, the identity of the run, and the record that was logged at that step.

Files whose names do not begin with "mtljax" are never changed, nor a folder `mtljax_<step>` without one of the two
items. Of several processes, the first one writes the values that are the same on all; each process writes its own part
of a distributed array.
"""

from mtljax.training.checkpoint.params import RestoredParams, restore_params
from mtljax.training.checkpoint.reading import Checkpoint, DamagedCheckpoint, restore, steps
from mtljax.training.checkpoint.writing import Folder, opened, resume, save, wait

__all__ = [
    "Checkpoint",
    "DamagedCheckpoint",
    "Folder",
    "RestoredParams",
    "opened",
    "restore",
    "restore_params",
    "resume",
    "save",
    "steps",
    "wait",
]
