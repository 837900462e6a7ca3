"""Which losses reach a parameter: dependence read off a program, without running it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend import core

_LOOPS = ("scan", "while")
_FLAT = ("ceil", "floor", "round", "sign", "stop_gradient")
"""Functions whose derivative is 0."""
_STACKS = ("concatenate", "dynamic_update_slice", "gather", "pad", "scatter", "scatter-add", "stack")
"""What may put arrays beside one another without mixing them."""


def reach(jaxpr: Any, outputs: Sequence[int], *, surely: bool = False) -> list[int]:
    """For each input of a program, the set of outputs with a derivative by it, as bits.

    Args:
        jaxpr: the program.
        outputs: bits of each output.
        surely: whether to leave out what may be reached or not, where it would be taken in else.
    """
    reached: dict[Any, int] = {}

    def add(variables: Sequence[Any], bits: Sequence[int]) -> None:
        for var, mine in zip(variables, bits, strict=True):
            if not isinstance(var, core.Literal) and jnp.issubdtype(getattr(var.aval, "dtype", float), jnp.inexact):
                reached[var] = reached.get(var, 0) | mine

    add(jaxpr.outvars, outputs)
    for eqn in reversed(jaxpr.eqns):
        mine = [reached.get(var, 0) for var in eqn.outvars]
        if not any(mine) or eqn.primitive.name in _FLAT or (surely and eqn.primitive.name in _STACKS):
            continue
        inner = list(core.jaxprs_in_params(eqn.params))
        if len(inner) == 1 and _is_call(inner[0], eqn) and not (surely and eqn.primitive.name.startswith("custom")):
            add(eqn.invars, reach(inner[0], mine, surely=surely))
        elif not inner or not surely:
            add(eqn.invars, [functools.reduce(operator.or_, mine)] * len(eqn.invars))
    return [reached.get(var, 0) for var in jaxpr.invars]


def _is_call(inner: Any, eqn: Any) -> bool:
    """Whether the equation runs the program in it once, on its own inputs."""
    fits = len(inner.invars) == len(eqn.invars) and len(inner.outvars) == len(eqn.outvars)
    return fits and eqn.primitive.name not in _LOOPS
