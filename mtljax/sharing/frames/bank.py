"""Banks of heads: one head's network for many tasks of one form."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.banks import group_of, marked
from mtljax.checks import check_indices, check_names
from mtljax.sharing.frames.network import Network, check_heads, key_for
from mtljax.trees import along
from mtljax.types import Array, Key, PyTree, Regularized

Keyed = Callable[..., Any]
OneTask = Callable[[str, PyTree, PyTree, Keyed, PyTree], tuple[Any, PyTree]]
"""`(entry, own parameters, own state, keyed, read) -> (outputs, state)` of one task; `keyed(block, rest)` is a key, see
`key_for`, of the name `block/task` and a rest."""


class Bank(NamedTuple):
    """Many tasks of one form: an entry of `heads` whose network stands for one task, mapped over n of them.

    The entry's parameters and state are those of the network with a leading axis, `[n, *p]`; its outputs are
    `[B, n, ...]`, and so are its targets and masks. The loss is written for one task. Each task starts from values of
    its own, the same as if it were an entry by itself. Python never loops over the tasks of a bank: compiling one of
    500 tasks takes as long as compiling one of 8.

    Attributes:
        network: of one task.
        names: the tasks in their order; other names than those of entries.

    Example:
        >>> import mtljax
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = mtljax.sharing.hard(dense(8), {"assays": Bank(dense(1), ("nr_ar", "nr_er", "sr_p53"))})
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 4)))
        >>> params.tasks["assays"].shape, model.apply(params, state, jnp.ones((2, 4)))[0]["assays"].shape
        ((3, 8, 1), (2, 3, 1))
    """

    network: Network
    names: Sequence[str]


class Heads(NamedTuple):
    """The heads of a model that takes banks.

    Attributes:
        names: of the entries, sorted.
        networks: by entry, the network of one task.
        banks: by entry that is a bank, the names of its tasks.
    """

    names: tuple[str, ...]
    networks: dict[str, Network]
    banks: dict[str, tuple[str, ...]]


def heads_of(where: str, heads: Any) -> Heads:
    """The heads, after checking that each is a `Network` or a `Bank`, and that no two tasks have one name.

    Raises:
        TypeError: an entry of another type, or a name that is not a string.
        ValueError: no entries, a bank without tasks, a name that stands twice.

    Example:
        >>> keep = Network(lambda key, x: ((), ()), lambda params, state, x, *, key=None, train=False: (x, state))
        >>> heads_of("hard", {"assays": Bank(keep, ("a", "depth")), "depth": keep})
        Traceback (most recent call last):
        ...
        ValueError: hard: the names of entries and of the tasks of banks must each stand once, found 'depth' twice
    """
    plain = heads
    if isinstance(heads, Mapping):
        plain = {name: head.network if isinstance(head, Bank) else head for name, head in heads.items()}
    names = check_heads(where, plain)
    banks = {
        name: tuple(check_names(where, f"the names of heads[{name!r}]", heads[name].names))
        for name in names
        if isinstance(heads[name], Bank)
    }
    known = [*names, *(task for tasks in banks.values() for task in tasks)]
    seen: set[str] = set()
    for name in known:
        if name in seen:
            raise ValueError(
                f"{where}: the names of entries and of the tasks of banks must each stand once, found {name!r} twice"
            )
        seen.add(name)
    return Heads(names, {name: plain[name] for name in names}, banks)


def start_entries(
    start: Callable[[str, Keyed, PyTree], tuple[PyTree, PyTree]],
    key: Key,
    names: Sequence[str],
    banks: Mapping[str, tuple[str, ...]],
    read: PyTree,
) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """First parameters and states by entry: `start(entry, keyed, read) -> (own, state)` of one task, mapped over banks.

    Args:
        start: of one task.
        key: the model's.
        names: of the entries.
        banks: the tasks of each entry that is a bank.
        read: what all entries read.
    """
    params, states = {}, {}
    for entry in names:
        tasks = banks.get(entry)
        if tasks is None:
            params[entry], states[entry] = start(entry, _keyed(key, entry), read)
            continue

        def one(index: Array, entry: str = entry, tasks: tuple[str, ...] = tasks) -> tuple[PyTree, PyTree]:
            return start(entry, _keyed_in_bank(key, tasks, index), read)

        params[entry], states[entry] = jax.vmap(one)(jnp.arange(len(tasks)))
    return params, states


def run_entries(
    one: OneTask,
    chosen: Sequence[str],
    own: Mapping[str, PyTree],
    states: Mapping[str, PyTree],
    key: Key | None,
    banks: Mapping[str, tuple[str, ...]],
    read: Callable[[str], PyTree],
    task: Mapping[str, Array] = {},
) -> tuple[dict[str, Any], dict[str, PyTree]]:
    """Outputs of the chosen entries, and the states of all: of one task, or mapped over a bank, then `[B, n, ...]`.

    Args:
        one: of one task.
        chosen: the entries that run.
        own: parameters by entry, `[n, *p]` of a bank.
        states: likewise.
        key: the model's, or None.
        banks: the tasks of each entry that is a bank.
        read: `read(entry)`, what all tasks of the entry read: features and shared parameters.
        task: by bank int `[B]`, the index of the task of the bank that each example is of, for outputs `[B, ...]`. All
            that is read must then be `[B, ...]`. Of other banks, each example is of all tasks.
    """
    outputs, after = {}, dict(states)
    for entry in chosen:
        part = functools.partial(one, entry), own[entry], states[entry], key, entry
        tasks = banks.get(entry)
        if tasks is None:
            outputs[entry], after[entry] = one(entry, own[entry], states[entry], _keyed(key, entry), read(entry))
        elif entry in task:
            outputs[entry], after[entry] = _run_by_example(*part, tasks, read(entry), task[entry])
        else:
            outputs[entry], after[entry] = _run_bank(*part, tasks, read(entry))
    return outputs, after


def _run_bank(
    one: Callable[..., tuple[Any, PyTree]],
    own: PyTree,
    state: PyTree,
    key: Key | None,
    entry: str,
    tasks: tuple[str, ...],
    read: PyTree,
) -> tuple[Any, PyTree]:
    read, axis = marked(read, len(tasks), entry)

    def mapped(own: PyTree, state: PyTree, index: Array, read: PyTree) -> tuple[Any, PyTree]:
        return one(own, state, _keyed_in_bank(key, tasks, index), read)

    rows, group = (own, state, jnp.arange(len(tasks))), group_of(entry)
    if group is not None:
        rows = jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, group.start, group.size), rows)
    outputs, moved = jax.vmap(mapped, in_axes=(0, 0, 0, axis))(rows[0], rows[1], rows[2], read)
    if group is None:
        state = moved
    else:
        outputs = jax.tree.map(lambda leaf: _among(len(tasks), group.start, leaf), outputs)
        state = jax.tree.map(lambda old, new: lax.dynamic_update_slice_in_dim(old, new, group.start, 0), state, moved)
    if isinstance(outputs, Regularized):
        return outputs._replace(outputs=_by_example(outputs.outputs)), state
    return _by_example(outputs), state


def _run_by_example(
    one: Callable[..., tuple[Any, PyTree]],
    own: PyTree,
    state: PyTree,
    key: Key | None,
    entry: str,
    tasks: tuple[str, ...],
    read: PyTree,
    task: Array,
) -> tuple[Any, PyTree]:
    """Outputs `[B, ...]` of a bank, each example's by its own task: parameters are gathered, `[B, *p]`."""
    size = jax.tree.leaves(read)[0].shape[0]
    task = check_indices("apply", f"task[{entry!r}]", task, size, len(tasks))
    if jax.tree.leaves(state):
        raise ValueError(
            f"apply: the network of {entry!r} must have no state where examples are of one task each, since a state "
            f"such as batch statistics is of all examples of a task, found {jax.tree.map(jnp.shape, state)}"
        )
    examples = jnp.arange(size)
    index = jnp.clip(task, 0, len(tasks) - 1)
    read, axis = marked(read, len(tasks), entry)
    if axis is not None:
        group = group_of(entry)
        start, number = (0, len(tasks)) if group is None else (group.start, group.size)
        inside, row = (index >= start) & (index < start + number), jnp.clip(index - start, 0, number - 1)
        # An example of a task outside the group reads features without a derivative.
        read = jax.tree.map(
            lambda leaf: jnp.where(along(inside, leaf[0]), leaf[row, examples], lax.stop_gradient(leaf[0])), read
        )

    def mapped(example: Array, k: Array, own: PyTree, read: PyTree) -> PyTree:
        key_of_task = _keyed_in_bank(key, tasks, k)

        def keyed(block: str, rest: str = "") -> Any:
            return None if key is None else jax.random.fold_in(key_of_task(block, rest), example)

        outputs, _ = one(own, state, keyed, jax.tree.map(lambda leaf: leaf[None], read))
        if isinstance(outputs, Regularized):
            raise ValueError(
                f"apply: the outputs of {entry!r} must have no term of their own where examples are of one task each, "
                "since such a term is of all examples of a task, found mtljax.Regularized"
            )
        return jax.tree.map(lambda leaf: leaf[0], outputs)

    rows = jax.tree.map(lambda leaf: leaf[index], own)
    return jax.vmap(mapped)(examples, index, rows, read), state


def _among(size: int, start: Array, rows: Array) -> Array:
    """Some rows at their place among n, which are 0."""
    return lax.dynamic_update_slice_in_dim(jnp.zeros((size, *rows.shape[1:]), rows.dtype), rows, start, 0)


def _by_example(outputs: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), outputs)


def _keyed(key: Key | None, task: str) -> Keyed:
    return lambda block, rest="": key_for(key, f"{block}/{task}{rest}")


def _keyed_in_bank(key: Key | None, tasks: tuple[str, ...], index: Array) -> Keyed:
    """The keys of the task of that index, as `key_for` makes them of its name."""

    def keyed(block: str, rest: str = "") -> Any:
        if key is None:
            return None
        folded = [zlib.crc32(f"{block}/{task}{rest}".encode()) for task in tasks]
        return jax.random.fold_in(key, jnp.asarray(folded, jnp.uint32)[index])

    return keyed
