"""The common model of the architectures with one column of stages per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtljax.checks import check_count, expect
from mtljax.sharing.frames.inputs import input_of
from mtljax.sharing.frames.model import checked_model
from mtljax.sharing.frames.network import Network, check_heads, check_networks, is_sequence, key_for, selected
from mtljax.types import Array, Key, Model, Params, PyTree, TaskInputs


class Unit(NamedTuple):
    """A block that fuses the columns after a stage.

    `columns` and `fused` are dicts of features by task name; all columns have the same structure, shapes and dtypes.

    Attributes:
        init: `init(key, columns) -> (params, state)`.
        apply: `apply(params, state, columns, wanted, *, key, train) -> (fused, state)`; `wanted` are the names of the
            columns to return, which are the keys of `fused`.
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[dict[str, PyTree], PyTree]]


def column_model(
    where: str,
    stages: Sequence[Network],
    heads: Mapping[str, Network],
    unit: Unit,
    *,
    after: Sequence[int] | None = None,
    penalty: Callable[[Params], Array] | None = None,
) -> Model:
    """One column of stages per task, units that fuse the columns, and one head per column.

        h_k^l = stage_l(g_k^(l-1); w_k^l),   g^l = unit_l(h_1^l, ..., h_T^l),   outputs_k = head_k(g_k^1, ..., g_k^L)

    `g^l = h^l` after a stage without a unit, and `g_k^0` are the inputs of task k. `Params.shared` is
    `{"columns": {k: one entry per stage}, "units": one entry per stage}`; an entry of `"units"` is `()` after a stage
    without a unit. The state is `{"columns": ..., "units": ..., "tasks": {k: ...}}`. Up to the last unit, all columns
    run; after it, only the columns of the requested tasks run.

    Initial values are those of T single-task networks: `init` runs each column by itself, without the units. Columns
    that read the same inputs start equal, so channel c is the same feature in all of them, and dropout drops the same
    units in them. With `TaskInputs` each column starts from its own inputs, with the same keys.

    Args:
        where: the public function that calls this one; messages start with its name.
        stages: at least one network; each reads the output of the one before.
        heads: by task name, network from the tuple of the column's fused features, one entry per stage.
        unit: the block after a stage; it has its own parameters after each stage.
        after: positions of the stages that a unit follows; None for all.
        penalty: `Model.penalty`.

    Returns:
        `Model` whose `encode` and `decode` are None.
    """
    names, stages = check_heads(where, heads), check_networks(where, "stages", stages)
    positions = _check_after(where, after, len(stages))
    last = max(positions, default=-1)

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        def column(x: PyTree) -> list[tuple[PyTree, PyTree, PyTree]]:
            found = []
            for position, stage in enumerate(stages):
                params, state = stage.init(key_for(key, f"stage/{position}"), x)
                x, _ = stage.apply(params, state, x)
                found.append((params, state, x))
            return found

        if isinstance(inputs, TaskInputs):
            columns = {name: column(input_of(inputs, name)) for name in names}
        else:
            columns = dict.fromkeys(names, column(inputs))

        def entry(name: str, which: int) -> tuple[PyTree, ...]:
            # Copies, because a step that donates its state must not get one buffer twice.
            return tuple(jax.tree.map(jnp.copy, stage[which]) for stage in columns[name])

        units: list[tuple[PyTree, PyTree]] = [((), ())] * len(stages)
        for position in positions:
            features = {name: columns[name][position][2] for name in names}
            _check_columns(where, position, features)
            units[position] = unit.init(key_for(key, f"unit/{position}"), features)
        params, states = {}, {}
        for name in names:
            layers = tuple(features for _, _, features in columns[name])
            params[name], states[name] = heads[name].init(key_for(key, f"task/{name}"), layers)
        shared = {"columns": {name: entry(name, 0) for name in names}, "units": tuple(own for own, _ in units)}
        state = {
            "columns": {name: entry(name, 1) for name in names},
            "units": tuple(state for _, state in units),
            "tasks": states,
        }
        return Params(shared=shared, tasks=params), state

    def apply(
        params: Params,
        state: PyTree,
        inputs: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], PyTree]:
        chosen = selected(names, tasks)

        def needed(position: int) -> tuple[str, ...]:
            return names if position <= last else chosen

        columns = {name: list(states) for name, states in state["columns"].items()}
        units, heads_state = list(state["units"]), dict(state["tasks"])
        features = {name: input_of(inputs, name) for name in needed(0)}
        layers: dict[str, list[PyTree]] = {name: [] for name in chosen}
        for position, stage in enumerate(stages):
            own_key = key_for(key, f"stage/{position}")
            for name in needed(position):
                features[name], columns[name][position] = stage.apply(
                    params.shared["columns"][name][position],
                    columns[name][position],
                    features[name],
                    key=own_key,
                    train=train,
                )
            if position in positions:
                _check_columns(where, position, features)
                features, units[position] = unit.apply(
                    params.shared["units"][position],
                    units[position],
                    features,
                    needed(position + 1),
                    key=key_for(key, f"unit/{position}"),
                    train=train,
                )
            for name in chosen:
                layers[name].append(features[name])
        outputs = {}
        for name in chosen:
            outputs[name], heads_state[name] = heads[name].apply(
                params.tasks[name],
                heads_state[name],
                tuple(layers[name]),
                key=key_for(key, f"task/{name}"),
                train=train,
            )
        columns = {name: tuple(states) for name, states in columns.items()}
        return outputs, {"columns": columns, "units": tuple(units), "tasks": heads_state}

    return checked_model(names, init, apply, penalty=penalty)


def read_last(head: Network) -> Network:
    """A head of `column_model` that reads only the last features of its column.

    Example:
        >>> head = Network(lambda key, x: (x, ()), lambda params, state, x, *, key=None, train=False: (x, state))
        >>> read_last(head).apply((), (), ("first", "last"))[0]
        'last'
    """
    return Network(
        init=lambda key, layers: head.init(key, layers[-1]),
        apply=lambda params, state, layers, *, key=None, train=False: head.apply(
            params, state, layers[-1], key=key, train=train
        ),
    )


def check_alike(what: str, found: Mapping[str, PyTree]) -> None:
    """Check that features which are to be added have the same structure, shapes and dtypes.

    The check happens at trace time, so it costs nothing in a compiled step.

    Args:
        what: start of the message.
        found: the features; the keys say which they are, for the message.

    Raises:
        TypeError: an array is not of a floating-point type.
        ValueError: there are no arrays, or structures, shapes or dtypes differ.

    Example:
        >>> check_alike("sluice: layers differ", {"after stage 0": jnp.ones((2, 3)), "after stage 1": jnp.ones((2, 4))})
        Traceback (most recent call last):
        ...
        ValueError: sluice: layers differ: features are float32 (2, 3) after stage 0 but float32 (2, 4) after stage 1
    """
    known = {
        label: {
            f"features{jax.tree_util.keystr(path)}": f"{jnp.result_type(leaf).name} {jnp.shape(leaf)}"
            for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        }
        for label, tree in found.items()
    }
    (first, leaves), *others = known.items()
    if not leaves:
        raise ValueError(f"{what}: features {first} must hold arrays, found none")
    for other, theirs in others:
        for leaf in [*leaves, *theirs]:
            if leaves.get(leaf) != theirs.get(leaf):
                raise ValueError(
                    f"{what}: {leaf} are {leaves.get(leaf, 'absent')} {first} but {theirs.get(leaf, 'absent')} {other}"
                )
    for leaf, shape in leaves.items():
        if not shape.startswith(("float", "bfloat")):
            raise TypeError(f"{what}: {leaf} {first} must be of a floating-point type, found {shape}")


def _check_after(where: str, after: Sequence[int] | None, count: int) -> tuple[int, ...]:
    if after is None:
        return tuple(range(count))
    expect(is_sequence(after), where, "after", "a sequence of integers", after, TypeError)
    positions = {check_count(where, f"after[{i}]", found, least=0, most=count - 1) for i, found in enumerate(after)}
    expect(len(positions) == len(after), where, "after", "positions that differ", after, ValueError)
    return tuple(sorted(positions))


def _check_columns(where: str, position: int, features: Mapping[str, PyTree]) -> None:
    check_alike(
        f"{where}: a unit fuses columns that differ after stage {position}",
        {f"for task {name!r}": each for name, each in features.items()},
    )
