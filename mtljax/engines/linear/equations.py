"""Equations of a jaxpr: what they reach, what they read, and how to run or transpose some of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

CONVOLUTIONS = ("conv_general_dilated",)
WITHOUT_FORWARD_RULE = ("custom_lin",)


def reached_by(eqns: Sequence[Any], outvars: Sequence[Any]) -> tuple[list[int], dict[Any, int]]:
    """For each equation and variable, the set of outputs that it reaches, as bits."""
    reach: dict[Any, int] = {}
    for bit, var in enumerate(outvars):
        if not isinstance(var, core.Literal):
            reach[var] = reach.get(var, 0) | 1 << bit
    bits = [0] * len(eqns)
    for index in range(len(eqns) - 1, -1, -1):
        mine = 0
        for var in eqns[index].outvars:
            mine |= reach.get(var, 0)
        bits[index] = mine
        if mine:
            for var in eqns[index].invars:
                if not isinstance(var, core.Literal):
                    reach[var] = reach.get(var, 0) | mine
    return bits, reach


def evaluate(eqns: Sequence[Any], env: dict[Any, Any], outs: Sequence[Any]) -> list[Any]:
    """Run some equations of a jaxpr where the variables they read are given."""
    computed = {var for eqn in eqns for var in eqn.outvars}
    wanted = [var for eqn in eqns for var in eqn.invars] + list(outs)
    free = dict.fromkeys(var for var in wanted if not isinstance(var, core.Literal) and var not in computed)
    info = core.DebugInfo("mtljax", "part of linearised losses", ("tangent",) * len(free), ("tangent",) * len(outs))
    part = core.Jaxpr((), list(free), list(outs), list(eqns), core.no_effects, info)
    # From jax 0.12 on every jaxpr is a closed one; the name exists but is not declared.
    closed = core.ClosedJaxpr(part, ())  # pyright: ignore[reportPrivateImportUsage]
    return list(core.jaxpr_as_fun(closed)(*(env[var] for var in free)))


def holds(eqns: Sequence[Any], names: Sequence[str]) -> bool:
    """Whether any of the equations, or of those inside them, is of a primitive of these names."""
    return any(
        eqn.primitive.name in names or any(holds(inner.eqns, names) for inner in core.jaxprs_in_params(eqn.params))
        for eqn in eqns
    )


def products_of(eqns: Sequence[Any]) -> int:
    """The number of multiplications in the matrix products of the equations, and of those inside them."""
    total = 0
    for eqn in eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            total += math.prod(eqn.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
        total += sum(products_of(inner.eqns) for inner in core.jaxprs_in_params(eqn.params))
    return total


def transpose(fun: Callable[..., Any], inputs: Sequence[Any], seeds: Any) -> tuple[Any, ...]:
    """Pull `seeds` back through a linear function of the variables `inputs`; empty where there are none."""
    return tuple(jax.linear_transpose(fun, *(var.aval for var in inputs))(seeds)) if inputs else ()


def variables_of(eqns: Sequence[Any], *more: Any) -> dict[Any, None]:
    """The variables that equations read, and some more, without literals."""
    read = [var for eqn in eqns for var in eqn.invars] + list(more)
    return dict.fromkeys(var for var in read if not isinstance(var, core.Literal))


def upstream(eqns: Sequence[Any], ends: Sequence[Any]) -> set[int]:
    """The equations, by id, from which some others follow."""
    wanted, found = set(variables_of(ends)), set()
    for eqn in reversed(eqns):
        if any(var in wanted for var in eqn.outvars):
            found.add(id(eqn))
            wanted |= set(variables_of([eqn]))
    return found
