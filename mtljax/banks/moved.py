"""Rows of banks that move by the names of their tasks, from one model to another."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mtljax.types import Array

Banks = Mapping[str, Sequence[str]]
"""By entry that is a bank, the names of its tasks in their order; `Model.banks`."""


class Moves(NamedTuple):
    """Which rows of a bank move, from an old model to a new one.

    Attributes:
        size: n of the old bank, and of the new one.
        rows: the rows of the common tasks, in the old bank and in the new one.
        common: the names of these tasks.
        fresh: tasks of the new bank alone.
        dropped: tasks of the old bank alone.

    Example:
        >>> moves_of(("nr_ar", "nr_er"), ("sr_p53", "nr_ar"))
        Moves(size=(2, 2), rows=([0], [1]), common=['nr_ar'], fresh=['sr_p53'], dropped=['nr_er'])
    """

    size: tuple[int, int]
    rows: tuple[list[int], list[int]]
    common: list[str]
    fresh: list[str]
    dropped: list[str]


def moves_of(old: Sequence[str], new: Sequence[str]) -> Moves:
    """The rows of the tasks that both banks have.

    Example:
        >>> moves_of(("nr_ar", "nr_er"), ("nr_er", "sr_p53", "nr_ar")).rows
        ([1, 0], [0, 2])
    """
    common = [task for task in new if task in set(old)]
    rows = [list(old).index(task) for task in common], [list(new).index(task) for task in common]
    fresh, dropped = [task for task in new if task not in set(old)], [task for task in old if task not in set(new)]
    return Moves((len(old), len(new)), rows, common, fresh, dropped)


def moved(moves: Moves, new: Any, old: Any) -> Array | np.ndarray:
    """A leaf `[n, ...]` of the new bank, with the rows of common tasks from the old one.

    Example:
        >>> moved(moves_of("ab", "ca"), jnp.array([0.0, 0.0]), jnp.array([1.0, 2.0])).tolist()
        [0.0, 1.0]
    """
    if moves.rows == (list(range(moves.size[0])), list(range(moves.size[1]))):
        return old
    if not moves.fresh:
        return jnp.asarray(old)[np.asarray(moves.rows[0], np.int32)]
    before, after = (np.asarray(rows, np.int32) for rows in moves.rows)
    return jnp.asarray(new).at[after].set(jnp.asarray(old)[before])


def bank_of(path: tuple[Any, ...], banks: tuple[Banks, Banks]) -> str | None:
    """The bank whose leaf is at a path, which holds `tasks` and the bank's name.

    Example:
        >>> from jax.tree_util import DictKey, GetAttrKey
        >>> path = (GetAttrKey("tasks"), DictKey("assays"), DictKey("kernel"))
        >>> bank_of(path, ({"assays": ("nr_ar",)}, {}))
        'assays'
    """
    keys = [getattr(key, "name", getattr(key, "key", None)) for key in path]
    pairs = [name for part, name in itertools.pairwise(keys) if part == "tasks"]
    return next((name for name in pairs if name in banks[0] or name in banks[1]), None)


def moves_at(where: str, path: tuple[Any, ...], banks: tuple[Banks, Banks], tellers: tuple[str, str]) -> Moves | None:
    """Which rows of the leaf at a path move; None if it is not a bank's.

    Args:
        where: the public function's name, which opens the message.
        path: of the leaf.
        banks: of the new model and of the old one.
        tellers: what tells the tasks of the new banks, and of the old ones; for the message.

    Raises:
        ValueError: a bank whose tasks are told for one of the models alone.

    Example:
        >>> from jax.tree_util import DictKey, GetAttrKey
        >>> path, banks = (GetAttrKey("tasks"), DictKey("assays")), ({"assays": ("nr_ar",)}, {})
        >>> moves_at("restore_params", path, banks, ("banks", "the checkpoint"))
        Traceback (most recent call last):
        ...
        ValueError: restore_params: the checkpoint must tell the tasks of the bank 'assays', found {}
    """
    bank = bank_of(path, banks)
    if bank is None:
        return None
    for teller, known in zip(tellers, banks, strict=True):
        if bank not in known:
            raise ValueError(f"{where}: {teller} must tell the tasks of the bank {bank!r}, found {dict(known)}")
    new, old = banks
    return moves_of(old[bank], new[bank])
