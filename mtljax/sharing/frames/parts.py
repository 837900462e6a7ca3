"""Which parts of a network stand in `Params.shared` and which in `Params.tasks`, by the losses that reach them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from mtljax.types import Params, PyTree


class Filing(NamedTuple):
    """The place of each part of a network in `Params`.

    Attributes:
        tasks: all task names.
        owner: by part, the task whose loss alone reaches it, or None if several losses do.

    Example:
        >>> filing = file_parts(("a", "b"), {"trunk": {"a", "b"}, "head/a": {"a"}, "head/b": {"b"}})
        >>> params = filing.params({"trunk": 0, "head/a": 1, "head/b": 2})
        >>> params
        Params(shared={'trunk': 0}, tasks={'a': {'head/a': 1}, 'b': {'head/b': 2}})
        >>> filing.find(params, "head/b")
        2
    """

    tasks: tuple[str, ...]
    owner: dict[str, str | None]

    def params(self, parts: Mapping[str, PyTree]) -> Params:
        """`Params` of the parts' parameters."""
        shared, own = {}, {name: {} for name in self.tasks}
        for part, value in parts.items():
            task = self.owner[part]
            (shared if task is None else own[task])[part] = value
        return Params(shared=shared, tasks=own)

    def find(self, params: Params, part: str) -> PyTree:
        """The parameters of one part."""
        task = self.owner[part]
        return params.shared[part] if task is None else params.tasks[task][part]


def file_parts(tasks: tuple[str, ...], reached_by: Mapping[str, Collection[str]]) -> Filing:
    """The place of each part: under its task if one loss alone reaches it, otherwise in `Params.shared`.

    Args:
        tasks: all task names.
        reached_by: by part, the tasks whose losses reach it; at least one.

    Example:
        >>> file_parts(("a", "b"), {"low": {"a", "b"}, "high": {"b"}}).owner
        {'low': None, 'high': 'b'}
    """
    return Filing(tasks, {part: next(iter(by)) if len(by) == 1 else None for part, by in reached_by.items()})
