"""Checkpoints that restore to the bit: atomic, checked, and written while training goes on.

Orbax writes each checkpoint into a temporary folder and renames it when it is complete, so a killed process leaves
either a whole checkpoint or none. Orbax does not notice a flipped bit in an array, so a CRC-32 of every leaf, and of
everything else that is read, is stored beside the arrays and compared.

A checkpoint is a folder `mtljax_<step>`, and an ordinary Orbax checkpoint that can be read without mtljax. Its item
`state` holds the arrays by path, such as `params/shared/w`, where "~" and "/" in a name are written "~0" and "~1";
typed PRNG keys are stored as their key data. Its item `facts` is JSON: shape, dtype, weak type and CRC-32 of each leaf,
where the input pipeline stood, what the run is, and the record that was logged at that step.

Nothing in the folder is touched whose name does not begin with "mtljax", nor a folder `mtljax_<step>` that holds
something else than the two items. Among several processes the first one writes what is the same on all; each writes its
own part of an array that is spread over them.
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
