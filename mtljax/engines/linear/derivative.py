"""The losses as one linear map, cut between the trunk and the heads.

`jax.linearize` gives the forward pass once and the map from parameter tangents to loss tangents as a flat list of
linear equations. An equation that more than one loss reaches belongs to the trunk, one that a single loss reaches to
that task's head. The values that run from trunk to heads are the shared representation. Cutting there

* differentiates every head exactly once, whatever number of rows is pulled through the trunk afterwards;
* keeps tasks structurally apart: a NaN in one head never meets another task's cotangent, not even multiplied by 0;
* leaves the trunk as one function of stacked cotangents, which can be mapped, unrolled, chunked or pulled just once.

An entry of the tasks may be a bank of n tasks, whose loss is an array `[n]` (`mtljax.banks`). Its head is pulled with n
seeds at once; the trunk ends at the features that the bank reads, though no other loss may reach them.

A loss function that mixes its tasks before it returns them (an array `[T]` made by one stacked operation) cannot be
cut. Then the losses themselves are the boundary and the heads are pulled with the trunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.banks import Group, entries_of, keep_apart
from mtljax.engines.checks import by_entry, check_banks, split_aux
from mtljax.engines.linear.equations import WITHOUT_FORWARD_RULE, holds, reached_by
from mtljax.engines.linear.pieces import cut_pieces, own_variables, uncut_pieces
from mtljax.engines.linear.types import Linearized
from mtljax.engines.reach import check_reach
from mtljax.types import Array, Params, PyTree


def linearize(
    losses_fn: Callable[..., Any], params: Params, args: tuple[Any, ...], has_aux: bool, *, apart: Group | bool = True
) -> Linearized:
    """Run the forward pass once and cut its derivative at the shared representation.

    Args:
        losses_fn: `losses_fn(params, *args)` returning losses, or `(losses, aux)` with `has_aux`; losses are a dict by
            entry, a scalar or `[n]` each, or an array `[T]` of single tasks.
        params: where; all leaves floating.
        args: passed on.
        has_aux: see `losses_fn`.
        apart: whether the tasks of banks are kept apart, for each task's own cotangent; else they are summed. A group
            of tasks of one bank is kept apart, and its other tasks do not run, so that their losses say nothing.

    Returns:
        `Linearized`.

    Raises:
        ValueError: tasks of losses and params differ, a loss is not a scalar or `[n]`, a bank's parameters do not lead
            with n, or a loss reaches another task's parameters (see `mtljax.engines.reach` for what cannot be told).
        TypeError: a loss is not floating.
    """
    names = sorted(params.tasks)

    by_name: list[bool] = []

    def forward(shared: PyTree, tasks: dict[str, PyTree]) -> tuple[tuple[Array, ...], Any]:
        out = losses_fn(Params(shared, tasks), *args)
        losses, aux = split_aux(out, has_aux)
        by_name.append(isinstance(losses, Mapping))
        return by_entry(losses, names), aux

    with keep_apart(apart):
        losses, tangent_map, aux = jax.linearize(forward, params.shared, params.tasks, has_aux=True)
    entries = entries_of(names, losses)
    check_banks(entries, params)
    closed = jax.make_jaxpr(tangent_map)(params.shared, params.tasks)
    jaxpr = closed.jaxpr
    bits, reach = reached_by(jaxpr.eqns, jaxpr.outvars)
    own = own_variables(jaxpr, params)
    if all(reach.get(var, 0) & ~(1 << e) == 0 for e, variables in enumerate(own) for var in variables):
        constants = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        pieces = cut_pieces(jaxpr, constants, params, bits, entries, apart)
    else:
        check_reach(jaxpr, own, params)
        pieces = uncut_pieces(tangent_map, jaxpr, params, entries, apart)

    def restore(values: Sequence[Array]) -> Any:
        return dict(zip(names, values, strict=True)) if by_name[0] else jnp.stack(values)

    forward_rules = not holds(jaxpr.eqns, WITHOUT_FORWARD_RULE)
    return Linearized(
        entries=entries, losses=losses, aux=aux, restore=restore, apart=apart, forward=forward_rules, **pieces
    )
