"""A single network as a pair of pure functions; task names, keys and checks for every architecture."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard, overload

import jax

from mtljax.checks import check_callable, check_names, expect, found
from mtljax.types import Key, PyTree


class Network(NamedTuple):
    """A network as two pure functions: a trunk, a head, or a whole single-task network.

    Attributes:
        init: `init(key, inputs) -> (params, state)`; `inputs` is an example `[B, ...]` whose values may be used.
            `state` holds what is not a parameter, such as batch statistics; it is `()` if there is none.
        apply: `apply(params, state, inputs, *, key=None, train=False) -> (outputs, state)`. `key` is for dropout, and
            may be None if nothing is drawn. The returned state has the structure of the given state.

    Example:
        >>> import jax.numpy as jnp
        >>> double = Network(
        ...     init=lambda key, inputs: ((), ()),
        ...     apply=lambda params, state, inputs, *, key=None, train=False: (2 * inputs, state),
        ... )
        >>> params, state = double.init(jax.random.key(0), jnp.ones(3))
        >>> double.apply(params, state, jnp.ones(3))[0]
        Array([2., 2., 2.], dtype=float32)
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[Any, PyTree]]


@overload
def key_for(key: Key, name: str) -> Key: ...
@overload
def key_for(key: None, name: str) -> None: ...
def key_for(key: Key | None, name: str) -> Key | None:
    """One key per name; None stays None.

    The key depends on `key` and the name alone. So a head's initial values and its dropout do not depend on which other
    tasks there are or run.

    Example:
        >>> bool(key_for(jax.random.key(0), "depth") == key_for(jax.random.key(0), "normals"))
        False
    """
    return None if key is None else jax.random.fold_in(key, zlib.crc32(name.encode()))


def task_names(where: str, names: Iterable[str], *, what: str = "tasks") -> tuple[str, ...]:
    """The names in task order, which is their sorted order.

    Args:
        where: the public function that calls this one; the message starts with its name.
        names: task names, each once.
        what: the argument's name.

    Raises:
        TypeError: `names` is one string, or an entry is not a string.
        ValueError: there are no names, or one is repeated.

    Example:
        >>> task_names("soft", ["b", "a"])
        ('a', 'b')
    """
    if isinstance(names, str):
        raise TypeError(f"{where}: {what} must be a sequence of strings, found {names!r}; write ({names!r},)")
    return tuple(sorted(check_names(where, what, list(names) if isinstance(names, Mapping) else names)))


def check_network(where: str, what: str, value: Any, *, expected: str = "a Network") -> Network:
    """The network, after checking that it is a `Network`; for a Flax module, the message names the adapter.

    Example:
        >>> check_network("hard", "trunk", None)
        Traceback (most recent call last):
        ...
        TypeError: hard: trunk must be a Network, found None
    """
    if not isinstance(value, Network):
        raise TypeError(f"{where}: {what} must be {expected}, found {found(value)}{_adapter(value)}")
    for part, function in zip(Network._fields, value, strict=True):
        check_callable(where, f"{what}.{part}", function)
    return value


def check_networks(where: str, what: str, value: Any, *, count: int | None = None) -> tuple[Network, ...]:
    """The networks as a tuple, after checking that each is a `Network`.

    Args:
        where: the public function that calls this one; the message starts with its name.
        what: the argument's name.
        value: a sequence of `Network`.
        count: how many there must be; None for at least one.

    Raises:
        TypeError: one network in place of a sequence, or an entry that is not a `Network`.
        ValueError: not as many as expected.

    Example:
        >>> check_networks("film", "stages", ())
        Traceback (most recent call last):
        ...
        ValueError: film: stages must hold at least one Network, found 0
    """
    if not is_sequence(value):
        advice = "; write (network,)" if isinstance(value, Network) else _adapter(value)
        raise TypeError(f"{where}: {what} must be a sequence of Network, found {found(value)}{advice}")
    networks = tuple(check_network(where, f"{what}[{position}]", network) for position, network in enumerate(value))
    if len(networks) != count and not (count is None and networks):
        expected = "at least one" if count is None else count
        raise ValueError(f"{where}: {what} must hold {expected} Network, found {len(networks)}")
    return networks


def check_heads(where: str, heads: Any, *, what: str = "heads") -> tuple[str, ...]:
    """The names of the heads in task order, after checking that each head is a `Network`.

    Example:
        >>> check_heads("hard", {})
        Traceback (most recent call last):
        ...
        ValueError: hard: heads must hold at least one Network by task name, found none
    """
    if not isinstance(heads, Mapping):
        raise TypeError(
            f"{where}: {what} must be a dict of Network by task name, found {found(heads)}{_adapter(heads)}"
        )
    if not heads:
        raise ValueError(f"{where}: {what} must hold at least one Network by task name, found none")
    names = task_names(where, heads, what=f"the names of {what}")
    for name in names:
        check_network(where, f"{what}[{name!r}]", heads[name])
    return names


def check_entries(where: str, what: str, value: Any, names: tuple[str, ...]) -> None:
    """Check that the value is a dict with one entry per task.

    Example:
        >>> check_entries("hierarchical", "layers", {"a": 0}, ("a", "b"))
        Traceback (most recent call last):
        ...
        ValueError: hierarchical: layers must be for the tasks ['a', 'b'], found ['a']
    """
    expect(isinstance(value, Mapping), where, what, f"a dict by task, for {list(names)}", value, TypeError)
    if set(value) != set(names):
        raise ValueError(f"{where}: {what} must be for the tasks {list(names)}, found {sorted(value, key=str)}")


def is_sequence(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether the value is a sequence such as a list; strings and named tuples such as `Network` do not count.

    Example:
        >>> is_sequence([]), is_sequence("ab"), is_sequence(Network(print, print))
        (True, False, False)
    """
    return isinstance(value, Sequence) and not isinstance(value, str) and not hasattr(value, "_fields")


def _adapter(value: Any) -> str:
    """The advice for a Flax module or its class: which adapter to call; empty for anything else."""
    kind = value if isinstance(value, type) else type(value)
    modules = {base.__module__ for base in kind.__mro__}
    if any(module.startswith("flax.linen") for module in modules):
        return f", a linen module; write from_linen({kind.__name__}(...))"
    if any(module.startswith("flax.nnx") for module in modules):
        return f", an NNX module; write from_nnx(lambda rngs: {kind.__name__}(..., rngs=rngs))"
    return ""


def selected(known: tuple[str, ...], tasks: Iterable[str] | None) -> tuple[str, ...]:
    """The tasks that `apply(tasks=...)` requests, in task order; None requests all.

    Raises:
        TypeError: `tasks` is one string, or not a sequence.
        ValueError: the model does not have a task; the message names that task and those of the model.

    Example:
        >>> selected(("depth", "normals"), ("edges",))
        Traceback (most recent call last):
        ...
        ValueError: apply: tasks must be of the model's ['depth', 'normals'], found 'edges'
    """
    if tasks is None:
        return known
    if isinstance(tasks, str):
        raise TypeError(f"apply: tasks must be a sequence of names, found the string {tasks!r}; write ({tasks!r},)")
    if not isinstance(tasks, Iterable):
        raise TypeError(f"apply: tasks must be a sequence of names, found {found(tasks)}")
    tasks = tuple(tasks)
    for task in tasks:
        if task not in known:
            raise ValueError(f"apply: tasks must be of the model's {list(known)}, found {task!r}")
    return tuple(name for name in known if name in tasks)
