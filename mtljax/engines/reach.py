"""Losses that reach another task's parameters, found at trace time.

Only loss k may reach `params.tasks[k]`. A leaf that several losses reach belongs in `params.shared`; otherwise its
gradient would be the sum over those losses. Reach is followed through the derivative, equation by equation.

Reach ends at an equation that stacks arrays: heads stacked into one array `[T, ...]`, or losses stacked into `[T]`, do
not mix tasks, although each later equation reads all tasks. So a loss that reaches another task's parameters only
through a stack, or through a loop or a branch, is not found; with a dict of scalars, each from its own head, every such
loss is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core

from mtljax.types import Params

_STACKING = (
    "concatenate",
    "dynamic_update_slice",
    "gather",
    "pad",
    "scatter",
    "scatter-add",
    "select_and_scatter_add",
    "stack",
)
_CALLS = ("closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "jit", "pjit", "remat2", "checkpoint")


def _reach(jaxpr: Any, outputs: Sequence[int]) -> list[int]:
    """For each input of a jaxpr, the set of outputs that it surely reaches, as bits."""
    reach: dict[Any, int] = {}

    def add(variables: Sequence[Any], bits: Sequence[int]) -> None:
        for var, mine in zip(variables, bits, strict=True):
            if not isinstance(var, core.Literal):
                reach[var] = reach.get(var, 0) | mine

    add(jaxpr.outvars, outputs)
    for eqn in reversed(jaxpr.eqns):
        mine = [reach.get(var, 0) for var in eqn.outvars]
        inner = list(core.jaxprs_in_params(eqn.params))
        if not any(mine) or eqn.primitive.name in _STACKING:
            continue
        if not inner:
            together = 0
            for bits in mine:
                together |= bits
            add(eqn.invars, [together] * len(eqn.invars))
        elif eqn.primitive.name in _CALLS and len(inner) == 1 and len(inner[0].invars) == len(eqn.invars):
            add(eqn.invars, _reach(inner[0], mine))
    return [reach.get(var, 0) for var in jaxpr.invars]


def check_reach(jaxpr: Any, own: Sequence[Sequence[Any]], params: Params) -> None:
    """Raise where a loss surely reaches the parameters of another task.

    Args:
        jaxpr: the derivative, from tangents of all parameters to the T losses.
        own: for each task, the variables of its parameters.
        params: the parameters, for their names.

    Raises:
        ValueError: names the leaf, its task, and the tasks whose losses reach it too.
    """
    names = sorted(params.tasks)
    found = dict(zip(jaxpr.invars, _reach(jaxpr, [1 << k for k in range(len(names))]), strict=True))
    for k, name in enumerate(names):
        paths = jax.tree_util.tree_flatten_with_path(params.tasks[name])[0]
        for (path, _), var in zip(paths, own[k], strict=True):
            others = [names[j] for j in range(len(names)) if j != k and found[var] >> j & 1]
            if others:
                leaf = f"params.tasks[{name!r}]{jax.tree_util.keystr(path)}"
                raise ValueError(
                    f"losses_fn: {leaf} must be reached by the loss of task {name!r} alone, found those of {others} "
                    "too; a parameter that several losses reach belongs into params.shared"
                )
