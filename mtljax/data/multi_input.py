"""Examples of one task each, as a batch for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mtljax.checks import check_names, expect
from mtljax.types import Batch


def multi_input(batch: Batch, banks: Mapping[str, Sequence[str]]) -> dict[str, Batch]:
    """A batch whose examples are of one task each (`Batch.task`) as a dict of batches by task.

    Each task gets its own examples, in their order; an example of no task, with an index below 0, is left out. It is
    the form that `data.mix` and `convex.pad` read.

    Args:
        batch: a batch, or a whole split, with `task` for one bank and no other targets.
        banks: the names of the bank's tasks in their order, by the bank's name, as from `data.banks`.

    Returns:
        Dict by task of `Batch`, in the order of the names; a task without examples has arrays of length 0.

    Raises:
        TypeError: a batch that is not a `Batch`, `banks` that is not a dict, names that are not strings.
        ValueError: `banks` and `batch.task` that are not of one bank, the only target; an index beyond the names.

    Example:
        >>> batch = Batch(np.arange(3), {"schools": np.array([4.0, 5.0, 6.0])}, task={"schools": np.array([1, 0, 1])})
        >>> found = multi_input(batch, {"schools": ("north", "south")})
        >>> found["south"].inputs.tolist(), found["south"].targets["south"].tolist()
        ([0, 2], [4.0, 6.0])
    """
    expect(isinstance(batch, Batch), "multi_input", "batch", "a mtljax.Batch", batch, TypeError)
    expect(isinstance(banks, Mapping), "multi_input", "banks", "a dict of names by bank", banks, TypeError)
    if len(banks) != 1 or not list(banks) == list(batch.task) == list(batch.targets):
        raise ValueError(
            f"multi_input: banks, task and targets must be of one bank, found {list(banks)}, {list(batch.task)} and "
            f"{list(batch.targets)}"
        )
    ((entry, tasks),) = banks.items()
    names = check_names("multi_input", f"banks[{entry!r}]", tasks)
    index = np.asarray(batch.task[entry])
    if len(index) and index.max() >= len(names):
        raise ValueError(
            f"multi_input: task[{entry!r}] must be below {len(names)}, the number of names, found {index.max()}"
        )
    found = {}
    for number, name in enumerate(names):
        rows = np.flatnonzero(index == number)

        def own(tree: Any, rows: np.ndarray = rows) -> Any:
            return jax.tree.map(lambda leaf: leaf[rows], tree)

        mask = {name: own(batch.mask[entry])} if entry in batch.mask else {}
        found[name] = Batch(own(batch.inputs), {name: own(batch.targets[entry])}, mask)
    return found
