"""A step on one pytree of parameters: losses as a function of `Params`, and gradients in the pytree's form."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.checks import check_names, expect
from mtljax.engines.checks import by_entry, check_params, split_aux
from mtljax.partition.dependence import reach
from mtljax.partition.layout import Layout, Own, has_tasks, join, keys_of, owners_of, paths_of, split
from mtljax.types import Method, MethodState, Params, PyTree


class Parted(NamedTuple):
    """One pytree of parameters as `Params`, and back.

    Attributes:
        names: the T tasks, in task order.
        losses_fn: the loss function as one of `Params`, returning a dict of losses.
        split: from a pytree like the parameters to `Params`.
        join: from `Params` to a pytree like the parameters.
        restore: from a dict of T values, as `losses_fn` returns losses, to what the caller's function returns.
        layout: of the caller's parameters; None where they are `Params` with tasks.
    """

    names: list[str]
    losses_fn: Callable[..., Any]
    split: Callable[[PyTree], Params]
    join: Callable[[Params], PyTree]
    restore: Callable[[Any], Any]
    layout: Layout | None


def parted(
    where: str,
    losses_fn: Callable[..., Any],
    params: PyTree,
    args: tuple[Any, ...],
    *,
    has_aux: bool = False,
    names: Sequence[str] | None = None,
    own: Own | None = None,
) -> Parted:
    """Splits parameters by task. `Params` with tasks are what they are.

    Args:
        where: the public function asking, which opens the message.
        losses_fn: `losses_fn(params, *args)` returning losses (dict of scalars by task, or array `[T]` in the order of
            `names`), or `(losses, aux)` with `has_aux`.
        params: any pytree of floating arrays.
        args: the rest of what `losses_fn` takes.
        has_aux: see `losses_fn`.
        names: the tasks in their order; None for those of the losses in sorted order, or "0", "1", ... of an array.
        own: who owns what; None for what the losses tell. What they reach is never understated: a leaf behind an array
            in which several losses or heads stand, behind a loop or a branch, counts as shared. It may be owned all the
            same where `own` says so.

    Raises:
        TypeError: a leaf that is not floating; names or own of another type.
        ValueError: `Params` with tasks given with `names` or `own`; losses of other tasks than `names`; an owner that
            is not a task; a path at which nothing begins; a leaf with two owners, or that the loss of another task
            surely reaches.

    Example:
        >>> tree = {"trunk": jnp.ones(2), "depth": jnp.ones(2), "edges": jnp.ones(2)}
        >>> losses_fn = lambda p: {k: jnp.sum(p["trunk"] * p[k]) for k in ("edges", "depth")}
        >>> params = parted("value_and_grad", losses_fn, tree, ()).split(tree)
        >>> {k: len(own) for k, own in params.tasks.items()}, params.shared["depth"] is None
        ({'depth': 1, 'edges': 1}, True)
    """
    if has_tasks(params):
        check_params(where, params)
        for what, given in (("names", names), ("own", own)):
            told = "None where parameters are mtljax.Params, whose tasks tell it"
            expect(given is None, where, what, told, given, ValueError)
        return Parted(sorted(params.tasks), losses_fn, _same, _same, _same, None)
    if names is not None:
        names = check_names(where, "names", names)
    paths = paths_of(where, params)
    own = {} if own is None and isinstance(params, Params) else own
    if own == {} and names is not None:
        owners = owners_of(where, {}, paths, names)
    else:
        names, jaxpr = _traced(where, losses_fn, params, args, has_aux, names)
        losses = [1 << k for k in range(len(names))]
        if own is None:
            found = reach(jaxpr, losses)
            owners = [bits.bit_length() - 1 if bits and not bits & (bits - 1) else None for bits in found]
        else:
            owners = owners_of(where, own, paths, names)
            _check_alone(reach(jaxpr, losses, surely=True), names, owners, paths)
    layout = Layout(names, owners, paths, jax.tree.structure(params))
    keys, arrays = keys_of(names), []

    def of_params(parts: Params, *args: Any) -> Any:
        losses, aux = split_aux(losses_fn(join(layout, parts), *args), has_aux)
        arrays.append(not isinstance(losses, Mapping))
        by_key = dict(zip(keys, by_entry(losses, layout.names, banks=False, where=where), strict=True))
        return (by_key, aux) if has_aux else by_key

    def restore(by_key: Any) -> Any:
        values = [by_key[key] for key in keys]
        return jnp.stack(values) if arrays[-1] else dict(zip(layout.names, values, strict=True))

    return Parted(names, of_params, functools.partial(split, layout), functools.partial(join, layout), restore, layout)


def check_memory(where: str, method: Method, state: MethodState, params: PyTree, part: Parted) -> None:
    """Raises where a method's state is like all parameters, though some of them are of one task alone."""
    if part.layout is None:
        return
    paths = [path for path, owner in zip(part.layout.paths, part.layout.owners, strict=True) if owner is not None]
    if not paths or not isinstance(state, MethodState) or not jax.tree.leaves(state.inner):
        return

    def shapes(inner: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: tuple(leaf.shape), inner)

    def made_for(shared: PyTree) -> PyTree:
        return shapes(jax.eval_shape(lambda: method.init(len(part.names), shared)).inner)

    found_shapes = shapes(state.inner)
    if found_shapes != made_for(part.split(params).shared) and found_shapes == made_for(params):
        raise ValueError(
            f"{where}: the state of {method.name} must be made for the shared parameters, found one made for all, of "
            f"which one loss alone reaches {paths[:3]}; give own= to what makes the state, such as mtljax.carry, and "
            "here (own={}: all are shared), or take mtljax.Params"
        )


def _same(value: Any) -> Any:
    return value


def _names_of(losses: Any) -> list[str]:
    """The tasks of losses that nobody named."""
    if isinstance(losses, Mapping):
        return check_names("losses_fn", "the names of losses", sorted(losses, key=str))
    vector = isinstance(losses, jax.Array | np.ndarray) and losses.ndim == 1 and losses.shape[0] > 0
    expect(vector, "losses_fn", "losses", "a dict of scalars by task, or an array [T]", losses, TypeError)
    return [str(k) for k in range(losses.shape[0])]


def _traced(
    where: str,
    losses_fn: Callable[..., Any],
    params: PyTree,
    args: tuple[Any, ...],
    has_aux: bool,
    given: Sequence[str] | None,
) -> tuple[list[str], Any]:
    """The names of the losses, and the program from the leaves of the parameters to the losses in that order."""
    names: list[str] = []

    def scalars(params: PyTree) -> Any:
        losses, _ = split_aux(losses_fn(params, *args), has_aux)
        names.extend(given or _names_of(losses))
        return by_entry(losses, names, banks=False, where=where)

    jaxpr = jax.make_jaxpr(scalars)(params).jaxpr
    return names, jaxpr


def _check_alone(found: Sequence[int], names: list[str], owners: Sequence[int | None], paths: Sequence[str]) -> None:
    """Raises where a loss surely reaches what another task owns."""
    for bits, owner, path in zip(found, owners, paths, strict=True):
        others = [name for k, name in enumerate(names) if k != owner and bits >> k & 1]
        if owner is not None and others:
            raise ValueError(
                f"losses_fn: own must give {path!r} to a task whose loss alone reaches it, found it given to "
                f"{names[owner]!r} and reached by the losses of {others} too"
            )
