"""The losses as one linear map, cut between the trunk and the heads.

`jax.linearize` gives the forward pass once and the map from parameter tangents to loss tangents as a flat list of
linear equations. An equation that more than one loss reaches belongs to the trunk, one that a single loss reaches to
that task's head. The values that run from trunk to heads are the shared representation. Cutting there

* differentiates every head exactly once, whatever number of rows is pulled through the trunk afterwards;
* keeps tasks structurally apart: a NaN in one head never meets another task's cotangent, not even multiplied by 0;
* leaves the trunk as one function of stacked cotangents, which can be mapped, unrolled, chunked or pulled just once.

A loss function that mixes its tasks before it returns them (an array `[T]` made by one stacked operation) cannot be
cut. Then the losses themselves are the boundary and the heads are pulled with the trunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from mtljax.engines.checks import as_scalars, check_params, split_aux
from mtljax.engines.factors import factors_of
from mtljax.engines.reach import check_reach
from mtljax.types import Array, Params, PyTree

Cotangents = list[Array | None]
"""One entry a boundary value; None where the task does not read it."""

Factors = dict[str, list[tuple[Array, ...]]]

_CONVOLUTIONS = ("conv_general_dilated",)
_WITHOUT_FORWARD_RULE = ("custom_lin",)


class Linearized(NamedTuple):
    """Losses at a point, and their derivative in two pieces.

    Attributes:
        losses: tuple of T scalars in task order.
        aux: what the loss function returned beside them (None without `has_aux`).
        restore: puts T scalars into the form in which the loss function returns losses.
        head: `head(k, seed) -> cotangents at the boundary` of seed times loss k, its parameters left out.
        heads: `heads(seeds) -> (list of T cotangents, dict of own gradients, dict of factors)`, all heads, each pulled
            once. A task's factors are a list of its leaves, each as the two arrays whose product it is, or alone.
        pull: `pull(cotangents, one entry per boundary value) -> gradient like shared`.
        push: `push(tangents like shared) -> tangents at the boundary`.
        push_heads: `push_heads(tangents at the boundary) -> tuple of T loss tangents`.
        separate: whether the map was cut.
        direct: for each boundary value, whether it is a shared parameter itself, read by a head without a trunk
            between (as all are where every task has inputs of its own).
        trunk: number of equations between shared parameters and boundary.
        convolutional: whether the trunk holds a convolution.
        products: multiplications in the trunk's matrix products; over the number of parameters, how often each is used.
        forward: whether `push` can run (not where a `jax.custom_vjp` has no forward rule).
    """

    losses: tuple[Array, ...]
    aux: Any
    restore: Callable[[tuple[Array, ...]], Any]
    head: Callable[[int, Array], Cotangents]
    heads: Callable[[Sequence[Array]], tuple[list[Cotangents], dict[str, PyTree], Factors]]
    pull: Callable[[Sequence[Array]], PyTree]
    push: Callable[[PyTree], list[Array]]
    push_heads: Callable[[Sequence[Array]], tuple[Array, ...]]
    separate: bool
    direct: tuple[bool, ...]
    trunk: int
    convolutional: bool
    products: int
    forward: bool


def _reached_by(eqns: Sequence[Any], outvars: Sequence[Any]) -> tuple[list[int], dict[Any, int]]:
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


def _evaluate(eqns: Sequence[Any], env: dict[Any, Any], outs: Sequence[Any]) -> list[Any]:
    """Run some equations of a jaxpr where the variables they read are given."""
    computed = {var for eqn in eqns for var in eqn.outvars}
    wanted = [var for eqn in eqns for var in eqn.invars] + list(outs)
    free = dict.fromkeys(var for var in wanted if not isinstance(var, core.Literal) and var not in computed)
    info = core.DebugInfo("mtljax", "part of linearised losses", ("tangent",) * len(free), ("tangent",) * len(outs))
    part = core.Jaxpr((), list(free), list(outs), list(eqns), core.no_effects, info)
    # From jax 0.12 on every jaxpr is a closed one; the name exists but is not declared.
    closed = core.ClosedJaxpr(part, ())  # pyright: ignore[reportPrivateImportUsage]
    return list(core.jaxpr_as_fun(closed)(*(env[var] for var in free)))


def _holds(eqns: Sequence[Any], names: Sequence[str]) -> bool:
    return any(
        eqn.primitive.name in names or any(_holds(inner.eqns, names) for inner in core.jaxprs_in_params(eqn.params))
        for eqn in eqns
    )


def _products(eqns: Sequence[Any]) -> int:
    total = 0
    for eqn in eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            total += math.prod(eqn.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
        total += sum(_products(inner.eqns) for inner in core.jaxprs_in_params(eqn.params))
    return total


def _transpose(fun: Callable[..., Any], inputs: Sequence[Any], seeds: Any) -> tuple[Any, ...]:
    """Pull `seeds` back through a linear function of the variables `inputs`; empty where there are none."""
    return tuple(jax.linear_transpose(fun, *(var.aval for var in inputs))(seeds)) if inputs else ()


def _cut(jaxpr: Any, constants: dict[Any, Any], params: Params, bits: Sequence[int]) -> dict[str, Any]:
    """The pieces of `Linearized` for a map whose heads are apart."""
    names = sorted(params.tasks)
    shared_leaves, shared_structure = jax.tree.flatten(params.shared)
    shared_vars = list(jaxpr.invars[: len(shared_leaves)])
    own = _own_variables(jaxpr, params)
    private = [[eqn for eqn, mine in zip(jaxpr.eqns, bits, strict=True) if mine == 1 << k] for k in range(len(names))]
    trunk = [eqn for eqn, mine in zip(jaxpr.eqns, bits, strict=True) if mine & (mine - 1)]

    provided = set(shared_vars) | {var for eqn in trunk for var in eqn.outvars}
    reads: list[list[Any]] = []
    for k, eqns in enumerate(private):
        wanted = [var for eqn in eqns for var in eqn.invars] + [jaxpr.outvars[k]]
        variables = [var for var in wanted if not isinstance(var, core.Literal)]
        reads.append(list(dict.fromkeys(var for var in variables if var in provided)))
    boundary = list(dict.fromkeys(var for variables in reads for var in variables))
    place = {var: index for index, var in enumerate(boundary)}

    own_leaves = [jax.tree.leaves(params.tasks[name]) for name in names]
    at_rest = [
        {var: jnp.zeros_like(leaf) for var, leaf in zip(variables, leaves, strict=True)}
        for variables, leaves in zip(own, own_leaves, strict=True)
    ]

    def run_head(k: int, inputs: Sequence[Any], values: Sequence[Array]) -> Array:
        env = {**constants, **at_rest[k], **dict(zip(inputs, values, strict=True))}
        return _evaluate(private[k], env, [jaxpr.outvars[k]])[0]

    def pull_head(k: int, seed: Array, inputs: Sequence[Any]) -> tuple[Any, ...]:
        return _transpose(lambda *values: run_head(k, inputs, values), inputs, seed)

    def at_boundary(k: int, values: Sequence[Array]) -> Cotangents:
        cotangents: Cotangents = [None] * len(boundary)
        for var, value in zip(reads[k], values, strict=True):
            cotangents[place[var]] = value
        return cotangents

    def head(k: int, seed: Array) -> Cotangents:
        return at_boundary(k, pull_head(k, seed, reads[k]))

    def heads(seeds: Sequence[Array]) -> tuple[list[Cotangents], dict[str, PyTree], Factors]:
        cotangents, gradients, factors = [], {}, {}
        for k, (name, seed) in enumerate(zip(names, seeds, strict=True)):
            closed = jax.make_jaxpr(lambda seed, k=k: pull_head(k, seed, reads[k] + own[k]))(seed)
            part, given = closed.jaxpr, [*closed.consts, seed]
            pairs = factors_of(part.eqns, part.outvars[len(reads[k]) :])
            env = dict(zip([*part.constvars, *part.invars], given, strict=True))
            pulled = _evaluate(part.eqns, env, [*part.outvars, *(var for pair in pairs for var in pair)])
            rest = iter(pulled[len(part.outvars) :])
            cotangents.append(at_boundary(k, pulled[: len(reads[k])]))
            leaves = pulled[len(reads[k]) : len(part.outvars)]
            gradients[name] = jax.tree.unflatten(jax.tree.structure(params.tasks[name]), leaves)
            factors[name] = [tuple(next(rest) for _ in pair) for pair in pairs]
        return cotangents, gradients, factors

    def push_heads(tangents: Sequence[Array]) -> tuple[Array, ...]:
        return tuple(run_head(k, each, [tangents[place[var]] for var in each]) for k, each in enumerate(reads))

    def run_trunk(*values: Array) -> list[Array]:
        return _evaluate(trunk, {**constants, **dict(zip(shared_vars, values, strict=True))}, boundary)

    def pull(cotangents: Sequence[Array]) -> PyTree:
        if not boundary:
            return jax.tree.map(jnp.zeros_like, params.shared)
        return jax.tree.unflatten(shared_structure, _transpose(run_trunk, shared_vars, list(cotangents)))

    return {
        "head": head,
        "heads": heads,
        "pull": pull,
        "push": lambda shared: run_trunk(*jax.tree.leaves(shared)),
        "push_heads": push_heads,
        "separate": True,
        "direct": tuple(var in set(shared_vars) for var in boundary),
        "trunk": len(trunk),
        "convolutional": _holds(trunk, _CONVOLUTIONS),
        "products": _products(trunk),
    }


def _uncut(tangent_map: Callable[..., Any], jaxpr: Any, params: Params) -> dict[str, Any]:
    """The pieces of `Linearized` with the losses themselves as the boundary."""
    num_tasks = len(params.tasks)
    no_shared = jax.tree.map(jnp.zeros_like, params.shared)
    no_tasks = jax.tree.map(jnp.zeros_like, params.tasks)

    def head(k: int, seed: Array) -> Cotangents:
        return [seed if k == j else None for j in range(num_tasks)]

    def heads(seeds: Sequence[Array]) -> tuple[list[Cotangents], dict[str, PyTree], Factors]:
        # Entry k of the parameters is reached by loss k alone, so one pull of all seeds gives every own gradient.
        (own,) = jax.linear_transpose(lambda tasks: tangent_map(no_shared, tasks), params.tasks)(tuple(seeds))
        factors = {name: [(leaf,) for leaf in jax.tree.leaves(own[name])] for name in own}
        return [head(k, seed) for k, seed in enumerate(seeds)], own, factors

    def pull(cotangents: Sequence[Array]) -> PyTree:
        (shared,) = jax.linear_transpose(lambda shared: tangent_map(shared, no_tasks), params.shared)(tuple(cotangents))
        return shared

    return {
        "head": head,
        "heads": heads,
        "pull": pull,
        "push": lambda shared: list(tangent_map(shared, no_tasks)),
        "push_heads": tuple,
        "separate": False,
        "direct": (False,) * num_tasks,
        "trunk": len(jaxpr.eqns),
        "convolutional": _holds(jaxpr.eqns, _CONVOLUTIONS),
        "products": _products(jaxpr.eqns),
    }


def _own_variables(jaxpr: Any, params: Params) -> list[list[Any]]:
    start = len(jax.tree.leaves(params.shared))
    own = []
    for name in sorted(params.tasks):
        stop = start + len(jax.tree.leaves(params.tasks[name]))
        own.append(list(jaxpr.invars[start:stop]))
        start = stop
    return own


def linearize(losses_fn: Callable[..., Any], params: Params, args: tuple[Any, ...], has_aux: bool) -> Linearized:
    """Run the forward pass once and cut its derivative at the shared representation.

    Args:
        losses_fn: `losses_fn(params, *args)` returning losses, or `(losses, aux)` with `has_aux`; losses are a dict of
            scalars by task or an array `[T]`.
        params: where; all leaves floating.
        args: passed on.
        has_aux: see `losses_fn`.

    Returns:
        `Linearized`.

    Raises:
        ValueError: tasks of losses and params differ, a loss is not a scalar, or a loss reaches another task's
            parameters (see `mtljax.engines.reach` for what cannot be told).
        TypeError: a parameter leaf is not floating.
    """
    check_params("value_and_grad", params)
    names = sorted(params.tasks)

    by_name: list[bool] = []

    def forward(shared: PyTree, tasks: dict[str, PyTree]) -> tuple[tuple[Array, ...], Any]:
        out = losses_fn(Params(shared, tasks), *args)
        losses, aux = split_aux(out, has_aux)
        by_name.append(isinstance(losses, dict))
        return as_scalars(losses, names), aux

    losses, tangent_map, aux = jax.linearize(forward, params.shared, params.tasks, has_aux=True)
    closed = jax.make_jaxpr(tangent_map)(params.shared, params.tasks)
    jaxpr = closed.jaxpr
    bits, reach = _reached_by(jaxpr.eqns, jaxpr.outvars)
    own = _own_variables(jaxpr, params)
    if all(reach.get(var, 0) & ~(1 << k) == 0 for k, variables in enumerate(own) for var in variables):
        pieces = _cut(jaxpr, dict(zip(jaxpr.constvars, closed.consts, strict=True)), params, bits)
    else:
        check_reach(jaxpr, own, params)
        pieces = _uncut(tangent_map, jaxpr, params)

    def restore(values: tuple[Array, ...]) -> Any:
        return dict(zip(names, values, strict=True)) if by_name[0] else jnp.stack(values)

    forward_rules = not _holds(jaxpr.eqns, _WITHOUT_FORWARD_RULE)
    return Linearized(losses=losses, aux=aux, restore=restore, forward=forward_rules, **pieces)
