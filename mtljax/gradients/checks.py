"""Whether a method's state and mask are for as many tasks as there are losses."""

from __future__ import annotations

from mtljax.banks import Entries
from mtljax.methods.common import check_active
from mtljax.types import Array, Method, MethodState


def check_tasks(method: Method, state: MethodState, active: Array | None, entries: Entries) -> None:
    """Raises where a method's state, or the mask, is made for another number of tasks.

    Example:
        >>> import mtljax
        >>> method = mtljax.methods.mgda()
        >>> check_tasks(method, method.init(2), None, Entries(("assays", "depth"), (3, None)))
        Traceback (most recent call last):
        ...
        ValueError: mgda was initialised for 2 tasks but losses are of 4, by entry {'assays': 3, 'depth': 1}
    """
    if state.weights.shape != (entries.num_tasks,):
        sizes = {name: 1 if size is None else size for name, size in zip(entries.names, entries.sizes, strict=True)}
        losses = f"losses are of {entries.num_tasks}, by entry {sizes}"
        told = losses if entries.banked else f"params.tasks has {list(entries.names)}"
        raise ValueError(f"{method.name} was initialised for {state.weights.shape[0]} tasks but {told}")
    check_active(method.name, active, entries.num_tasks)
