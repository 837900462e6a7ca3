"""The tasks of banks as entries of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.checks import check_names, expect
from mtljax.types import Batch


def single_tasks(batch: Batch, banks: Mapping[str, Sequence[str]]) -> Batch:
    """A batch in which each task of a bank is an entry of its own, for networks that take no banks.

    Targets `[N, n, ...]` of a bank become n entries `[N, ...]`, and so does its mask; a mask `[N]` is that of all n.
    NumPy arrays become views. Other entries stay.

    Args:
        batch: a batch, or a whole split.
        banks: by entry, the names of its tasks in their order, as from `data.banks`.

    Returns:
        The batch with these targets and masks.

    Raises:
        TypeError: a batch that is not a `Batch`, `banks` that is not a dict, names that are not strings.
        ValueError: a bank that is not among the targets or has another number of tasks; a name that stands twice.

    Example:
        >>> import numpy as np
        >>> batch = Batch(np.zeros(2), {"assays": np.array([[1, 0], [0, 1]])}, {"assays": np.array([True, False])})
        >>> found = single_tasks(batch, {"assays": ("nr_ar", "nr_er")})
        >>> found.targets["nr_er"].tolist(), found.mask["nr_er"].tolist()
        ([0, 1], [True, False])
    """
    expect(isinstance(batch, Batch), "single_tasks", "batch", "a mtljax.Batch", batch, TypeError)
    expect(isinstance(banks, Mapping), "single_tasks", "banks", "a dict of names by entry", banks, TypeError)
    targets, mask = dict(batch.targets), dict(batch.mask)
    for entry, tasks in banks.items():
        names = check_names("single_tasks", f"banks[{entry!r}]", tasks)
        if entry not in batch.targets:
            raise ValueError(f"single_tasks: banks must be of the targets {sorted(batch.targets)}, found {entry!r}")
        whole, weights = targets.pop(entry), mask.pop(entry, None)
        for leaf in jax.tree.leaves(whole):
            if jnp.ndim(leaf) < 2 or leaf.shape[1] != len(names):
                raise ValueError(
                    f"single_tasks: targets[{entry!r}] must be [N, {len(names)}, ...], found {list(jnp.shape(leaf))}"
                )
        taken = [name for name in names if name in targets]
        if taken:
            raise ValueError(f"single_tasks: names of tasks must each stand once, found {taken[0]!r} twice")
        for index, name in enumerate(names):
            targets[name] = jax.tree.map(lambda leaf, index=index: leaf[:, index], whole)
            if weights is not None:
                mask[name] = _own(weights, index)
    return batch._replace(targets=targets, mask=mask)


def _own(weights: Any, index: int) -> Any:
    return weights if jnp.ndim(weights) == 1 else weights[:, index]
