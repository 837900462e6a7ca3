"""Parameters as one pytree, of whatever form: which leaves tasks share, and which each task owns.

What makes a step reads `Params(shared, tasks)`. Whoever has one pytree, such as Flax's, gives it as it is: `parted`
splits it before the step and joins the gradients after it. A leaf that the loss of one task alone reaches is that
task's own, a leaf that several losses reach is shared. Which losses reach a leaf is read off the program of the losses,
or the caller says it.
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
