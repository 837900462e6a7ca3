"""Values by task as one array, with the tasks' names beside it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from mtljax.types import Array

Names = tuple[tuple[str, tuple[str, ...] | None], ...]
"""By entry in their order: its name, and None for a single task or the names of a bank's tasks."""


@functools.partial(jax.tree_util.register_dataclass, data_fields=["array"], meta_fields=["names"])
@dataclasses.dataclass(frozen=True, eq=False)
class ByTask(Mapping[str, Array]):
    """Values by task: one array `[..., T]` that reads like a dict.

    It is a pytree of one leaf, and passes through `jit`, `vmap`, `scan`, `grad` and `cond`: a dict of 600 scalars would
    cost more than a millisecond per call. Keys are the entries of the tasks: `found["depth"]` is `[...]`, and
    `found["assays"]` of a bank is `[..., n]`. A task of a bank is found by its own name, too.

    Attributes:
        array: `[..., T]`, in task order.
        names: static; by entry in their order, its name and None, or the names of a bank's tasks.

    Example:
        >>> import jax.numpy as jnp
        >>> losses = ByTask(jnp.array([0.5, 1.5, 2.5]), (("assays", ("nr_ar", "nr_er")), ("depth", None)))
        >>> float(losses["depth"]), losses["assays"].tolist(), float(losses["nr_er"])
        (2.5, [0.5, 1.5], 1.5)
        >>> {name: float(value) for name, value in losses.by_name().items()}
        {'nr_ar': 0.5, 'nr_er': 1.5, 'depth': 2.5}
    """

    array: Any
    names: Names

    def __getitem__(self, name: str) -> Array:
        found = _places(self.names).get(name)
        if found is None:
            raise KeyError(name)
        return self.array[..., found]

    def __iter__(self) -> Iterator[str]:
        return (entry for entry, _ in self.names)

    def __len__(self) -> int:
        return len(self.names)

    def by_name(self) -> dict[str, Array]:
        """A dict of T values `[...]` by the tasks' own names, for tables."""
        tasks = [task for entry, bank in self.names for task in ((entry,) if bank is None else bank)]
        return {task: self.array[..., k] for k, task in enumerate(tasks)}


def names_of(entries: Sequence[str], banks: Mapping[str, tuple[str, ...]]) -> Names:
    """Names of the tasks, from the entries in their order and the tasks of those that are banks.

    Example:
        >>> names_of(["assays", "depth"], {"assays": ("nr_ar", "nr_er")})
        (('assays', ('nr_ar', 'nr_er')), ('depth', None))
    """
    return tuple((entry, tuple(banks[entry]) if entry in banks else None) for entry in entries)


@functools.lru_cache(maxsize=64)
def _places(names: Names) -> dict[str, int | slice]:
    places: dict[str, int | slice] = {}
    start = 0
    for entry, bank in names:
        size = 1 if bank is None else len(bank)
        places[entry] = start if bank is None else slice(start, start + size)
        places |= {task: start + k for k, task in enumerate(bank or ())}
        start += size
    return places
