"""Parameters as one pytree of any form: which leaves are shared, and which task owns each of the others.

A step works on `Params(shared, tasks)`. Parameters may also be one pytree, such as Flax's: `parted` splits it before
the step and joins the gradients after the step. A leaf that only one task's loss reaches is that task's own; a leaf
that several losses reach is shared. The program of the losses tells which losses reach a leaf, or the caller says it.
"""

from mtljax.partition.layout import (
    Layout,
    Own,
    has_tasks,
    join,
    keys_of,
    layout_of,
    paths_of,
    shared_of,
    split,
)
from mtljax.partition.one_pytree import Parted, check_memory, parted

__all__ = [
    "Layout",
    "Own",
    "Parted",
    "check_memory",
    "has_tasks",
    "join",
    "keys_of",
    "layout_of",
    "parted",
    "paths_of",
    "shared_of",
    "split",
]
