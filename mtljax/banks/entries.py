"""The entries of the tasks, and the order of the T tasks in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import trees
from mtljax.types import Array, PyTree


class Entries(NamedTuple):
    """What `params.tasks` and losses hold: single tasks, and banks of many tasks of one form.

    The T tasks are in the order of their entries, which is the sorted order of names; the tasks of a bank are in place,
    in the bank's own order.

    Attributes:
        names: of the entries, sorted.
        sizes: None for a single task, n for a bank of n tasks.

    Example:
        >>> entries = Entries(("assays", "depth"), (3, None))
        >>> entries.num_tasks, entries.places()
        (4, [slice(0, 3, None), 3])
    """

    names: tuple[str, ...]
    sizes: tuple[int | None, ...]

    @property
    def num_tasks(self) -> int:
        """T, the number of tasks of all entries."""
        return sum(1 if size is None else size for size in self.sizes)

    @property
    def banks(self) -> dict[str, int]:
        """The number of tasks of each bank, by entry."""
        return {name: size for name, size in zip(self.names, self.sizes, strict=True) if size is not None}

    @property
    def banked(self) -> bool:
        """Whether any entry is a bank."""
        return any(size is not None for size in self.sizes)

    def places(self) -> list[int | slice]:
        """Where each entry's tasks are among the T tasks."""
        places: list[int | slice] = []
        start = 0
        for size in self.sizes:
            places.append(start if size is None else slice(start, start + size))
            start += 1 if size is None else size
        return places

    def parts(self, values: Array) -> list[Array]:
        """Values by task, `[T, ...]`, as one array per entry: `[...]` of a single task, `[n, ...]` of a bank.

        Example:
            >>> [part.tolist() for part in Entries(("assays", "depth"), (2, None)).parts(jnp.arange(3))]
            [[0, 1], 2]
        """
        return [values[place] for place in self.places()]

    def joined(self, parts: Sequence[Any]) -> Array:
        """The inverse of `parts`: values `[T, ...]` of one array per entry.

        Example:
            >>> Entries(("assays", "depth"), (2, None)).joined([jnp.array([0, 1]), jnp.array(2)]).tolist()
            [0, 1, 2]
        """
        if not self.banked:
            return jnp.stack([jnp.asarray(part) for part in parts])
        rows = [part if size is not None else part[None] for part, size in zip(parts, self.sizes, strict=True)]
        return jnp.concatenate(rows)


def entries_of(names: Sequence[str], losses: Sequence[Array]) -> Entries:
    """The entries of losses: a scalar of a single task, `[n]` of a bank of n tasks.

    Example:
        >>> entries_of(["assays", "depth"], [jnp.ones(3), jnp.ones(())]).sizes
        (3, None)
    """
    return Entries(tuple(names), tuple(loss.shape[0] if loss.ndim else None for loss in losses))


def in_order(losses: Array | Mapping[str, Array], names: Sequence[str] | None = None) -> Array:
    """Losses as `[T]`: of a dict by entry, in the order of `names`; None for the sorted order of its own.

    Example:
        >>> in_order({"b": jnp.array(3.0), "a": jnp.array([1.0, 2.0])}).tolist()
        [1.0, 2.0, 3.0]
    """
    if not isinstance(losses, Mapping):
        return losses
    names = sorted(losses) if names is None else names
    parts = [jnp.asarray(losses[name]) for name in names]
    return entries_of(names, parts).joined(parts)


def rows_scaled(factor: Array, tree: PyTree) -> PyTree:
    """A tree times a factor: one number, or one number for each row of leaves `[n, *p]`, in the leaves' dtypes.

    Example:
        >>> rows_scaled(jnp.array([1.0, 2.0]), jnp.ones((2, 1))).tolist()
        [[1.0], [2.0]]
    """
    return jax.vmap(trees.scale)(factor, tree) if factor.ndim else trees.scale(factor, tree)
