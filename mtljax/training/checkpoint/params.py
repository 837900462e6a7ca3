"""Only the parameters of a checkpoint, for another run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtljax.banks import Banks, moved, moves_at
from mtljax.training.checkpoint import leaves
from mtljax.training.checkpoint.reading import (
    DamagedCheckpoint,
    kind_of,
    path_of,
    read_facts,
    read_leaves,
    saved_kind,
    steps,
    warn_of,
)
from mtljax.types import Params

PARAMS = "params/"


class RestoredParams(NamedTuple):
    """The result of `restore_params`.

    Attributes:
        params: the given parameters, with the checkpoint's values for leaves in the checkpoint.
        step: the step of the checkpoint.
        taken: names of the leaves from the checkpoint, such as "shared/w" and "tasks/depth/w".
        new: names of the leaves that are not in the checkpoint, which have the given values.
        left: names of the checkpoint's parameters that are not in the given parameters.
    """

    params: Params
    step: int
    taken: list[str]
    new: list[str]
    left: list[str]


def restore_params(
    directory: str | os.PathLike[str],
    params: Params,
    *,
    banks: Mapping[str, Sequence[str]] = {},
    step: int | None = None,
) -> RestoredParams:
    """Read parameters by name from a checkpoint, which may be of another method or optimizer, or have other heads.

        result[name] = checkpoint[name] if name in checkpoint else params[name]

    A leaf's name is its path. The states of method, optimizer and network and the key are not read. To continue the
    same run, call `fit` with its folder.

    Args:
        directory: `checkpoint_dir` of the run that wrote the checkpoint.
        params: parameters of the new model: their structure, and the values of leaves that are not in the checkpoint.
        banks: the new model's `banks`, where it has any. A checkpoint of `fit` holds the names of a bank's tasks, and
            their rows are taken by name.
        step: step of the checkpoint; None (default) for the newest checkpoint that is not damaged.

    Returns:
        `RestoredParams(params, step, taken, new, left)`.

    Raises:
        ValueError: there is no checkpoint that can be read; a leaf of the same name with another shape or dtype; no
            common name; a bank whose tasks are told by `banks` or by the checkpoint alone.
        DamagedCheckpoint, PermissionError: the checkpoint of `step` cannot be read.

    Example:
        >>> import tempfile
        >>> import jax.numpy as jnp
        >>> from mtljax.training import checkpoint, restore_params
        >>> from mtljax.types import MethodState, TrainState
        >>> old = Params(shared={"w": jnp.ones(2)}, tasks={"depth": jnp.ones(1)})
        >>> directory = tempfile.mkdtemp()
        >>> with checkpoint.opened(directory) as folder:
        ...     state = TrainState(jnp.int32(7), old, {}, (), MethodState((), ()), jax.random.key(0))
        ...     checkpoint.save(folder, state)
        >>> new = Params(shared={"w": jnp.zeros(2)}, tasks={"depth": jnp.zeros(1), "edges": jnp.zeros(1)})
        >>> found = restore_params(directory, new)
        >>> found.taken, found.new, found.params.shared["w"].tolist()
        (['shared/w', 'tasks/depth'], ['tasks/edges'], [1.0, 1.0])
    """
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f"restore_params: directory must be the path of a folder, found {directory!r}")
    candidates = list(reversed(steps(directory))) if step is None else [step]
    failed: dict[int, DamagedCheckpoint | PermissionError] = {}
    for number in candidates:
        try:
            found = _read(directory, params, banks, number)
        except (DamagedCheckpoint, PermissionError) as error:
            if step is not None:
                raise
            failed[number] = error
            continue
        for newer, error in failed.items():
            warn_of(directory, newer, error, None, f"; parameters are those of step {number}")
        return found
    raise ValueError(
        f"restore_params: directory must hold a checkpoint that can be read, found {os.fspath(directory)} with "
        f"{f'{sorted(failed)}, which cannot' if failed else 'none'}"
    )


def _read(directory: str | os.PathLike[str], params: Params, banks: Banks, step: int) -> RestoredParams:
    path = path_of(directory, step)
    facts = read_facts(path)
    saved = {name for name in facts["leaves"] if name.startswith(PARAMS)}
    mine = {PARAMS + name: leaf for name, leaf in leaves.named(params).items()}
    taken = {name: leaf for name, leaf in mine.items() if name in saved}
    if not taken and mine:
        raise ValueError(
            f"restore_params: params must have a leaf in common with checkpoint {path}, which holds "
            f"{sorted(saved)[:3]} and the like, found {sorted(mine)[:3]}"
        )
    paths = {PARAMS + leaves.name_of(path): path for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    pair = banks, (facts["run"] or {}).get("banks", {})
    tellers = "banks", f"checkpoint {path}"
    moves = {name: moves_at("restore_params", paths[name], pair, tellers) for name in taken}
    templates = {}
    for name, leaf in taken.items():
        old, rows = facts["leaves"][name]["shape"], moves[name]
        # What is read has as many rows as the checkpoint's bank.
        banked = rows is not None and leaf.shape[:1] == rows.size[1:] and old[:1] == [rows.size[0]]
        templates[name] = jnp.zeros(old[:1] + list(leaf.shape[1:]), leaf.dtype) if banked else leaf
        if kind_of(templates[name]) != saved_kind(facts["leaves"][name]):
            raise ValueError(
                f"restore_params: {name!r} must be {saved_kind(facts['leaves'][name])} as in checkpoint {path}, "
                f"found {kind_of(leaf)}"
            )
    found, values = read_leaves(path, facts, templates), dict(mine)
    told: dict[str, list[str]] = {"taken": [], "new": [], "left": []}
    for name, leaf in mine.items():
        short, rows = name.removeprefix(PARAMS), moves.get(name)
        if name not in found:
            told["new"].append(short)
        elif rows is None:
            values[name] = found[name]
            told["taken"].append(short)
        else:
            values[name] = moved(rows, leaf, found[name])
            told["taken"] += [f"{short} of {task}" for task in rows.common]
            told["new"] += [f"{short} of {task}" for task in rows.fresh]
            told["left"] += [f"{short} of {task}" for task in rows.dropped]
    told["left"] += [name.removeprefix(PARAMS) for name in sorted(saved) if name not in mine]
    restored = jax.tree.structure(params).unflatten([values[name] for name in mine])
    return RestoredParams(restored, step, told["taken"], told["new"], told["left"])
