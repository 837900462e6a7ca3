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

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from mtljax.banks import Entries, is_mark, keep_apart
from mtljax.engines.checks import by_entry, check_banks, check_params, split_aux
from mtljax.engines.factors import factors_of
from mtljax.engines.reach import check_reach
from mtljax.types import Array, Params, PyTree

Cotangents = list[Array | None]
"""One entry per boundary value; None where the entry of the tasks does not read it. Of a bank that is kept apart they
have a leading axis `[n]`, else they are summed over its tasks."""

Factors = dict[str, list[tuple[Array, ...]]]

_CONVOLUTIONS = ("conv_general_dilated",)
_WITHOUT_FORWARD_RULE = ("custom_lin",)


class Linearized(NamedTuple):
    """Losses at a point, and their derivative in two pieces.

    Attributes:
        entries: of the tasks, with the sizes of banks.
        losses: by entry, a scalar or `[n]` each.
        aux: what the loss function returned beside them (None without `has_aux`).
        restore: puts losses by entry into the form in which the loss function returns them.
        head: `head(e, seed) -> cotangents at the boundary` of seed, `[]` or `[n]`, times loss e, its parameters left
            out.
        heads: `heads(seeds) -> (list of cotangents, dict of own gradients, dict of factors)`, all heads, each pulled
            once. An entry's factors are a list of its leaves, each as the two arrays whose product it is, or alone.
        pull: `pull(cotangents, one entry per boundary value) -> gradient like shared`.
        push: `push(tangents like shared) -> tangents at the boundary`.
        push_heads: `push_heads(tangents at the boundary) -> loss tangents by entry`.
        apart: whether the tasks of banks are kept apart.
        separate: whether the map was cut.
        direct: for each boundary value, whether it is a shared parameter itself, read by a head without a trunk
            between (as all are where every task has inputs of its own).
        trunk: number of equations between shared parameters and boundary.
        convolutional: whether the trunk holds a convolution.
        products: multiplications in the trunk's matrix products; over the number of parameters, how often each is used.
        forward: whether `push` can run (not where a `jax.custom_vjp` has no forward rule).
    """

    entries: Entries
    losses: tuple[Array, ...]
    aux: Any
    restore: Callable[[Sequence[Array]], Any]
    head: Callable[[int, Array], Cotangents]
    heads: Callable[[Sequence[Array]], tuple[list[Cotangents], dict[str, PyTree], Factors]]
    pull: Callable[[Sequence[Array]], PyTree]
    push: Callable[[PyTree], list[Array]]
    push_heads: Callable[[Sequence[Array]], tuple[Array, ...]]
    apart: bool
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


class _Head(NamedTuple):
    """The equations of one entry.

    Attributes:
        eqns: from what the head reads to its loss.
        reads: the boundary's variables that it reads.
        marks: of a bank, the equations that make its features of these; empty where there are none.
        out: the variable of its loss.
    """

    eqns: list[Any]
    reads: list[Any]
    marks: list[Any]
    out: Any


def _variables(eqns: Sequence[Any], *more: Any) -> dict[Any, None]:
    """The variables that equations read, and some more, without literals."""
    read = [var for eqn in eqns for var in eqn.invars] + list(more)
    return dict.fromkeys(var for var in read if not isinstance(var, core.Literal))


def _parted(
    jaxpr: Any, shared: Sequence[Any], own: Sequence[Sequence[Any]], bits: Sequence[int], entries: Entries
) -> tuple[list[Any], list[_Head]]:
    """The trunk's equations, and the heads. A bank begins at its marks, if all that it reads is marked."""
    private = [[eqn for eqn, mine in zip(jaxpr.eqns, bits, strict=True) if mine == 1 << e] for e in range(len(bits))]
    in_trunk = {id(eqn) for eqn, mine in zip(jaxpr.eqns, bits, strict=True) if mine & (mine - 1)}
    found: list[tuple[list[Any], list[Any]]] = []
    for e, size in enumerate(entries.sizes):
        eqns, marks = private[e], []
        if size is not None:
            marks = [eqn for eqn in eqns if is_mark(eqn)]
            before = _upstream(eqns, marks)
            after = [eqn for eqn in eqns if id(eqn) not in before and eqn not in marks]
            made = set(shared) | {var for eqn in jaxpr.eqns if id(eqn) in in_trunk | before for var in eqn.outvars}
            early = _variables([eqn for eqn in eqns if id(eqn) in before], *(mark.invars[0] for mark in marks))
            if marks and not made & set(_variables(after, jaxpr.outvars[e])) and not set(own[e]) & set(early):
                in_trunk |= before
                eqns = after
            else:
                marks = []
        found.append((eqns, marks))
    trunk = [eqn for eqn in jaxpr.eqns if id(eqn) in in_trunk]
    provided = set(shared) | {var for eqn in trunk for var in eqn.outvars}
    heads = []
    for out, (eqns, marks) in zip(jaxpr.outvars, found, strict=True):
        reads = [eqn.invars[0] for eqn in marks] or [var for var in _variables(eqns, out) if var in provided]
        heads.append(_Head(eqns, reads, marks, out))
    return trunk, heads


def _upstream(eqns: Sequence[Any], ends: Sequence[Any]) -> set[int]:
    """The equations, by id, from which some others follow."""
    wanted, found = set(_variables(ends)), set()
    for eqn in reversed(eqns):
        if any(var in wanted for var in eqn.outvars):
            found.add(id(eqn))
            wanted |= set(_variables([eqn]))
    return found


def _cut(
    jaxpr: Any, constants: dict[Any, Any], params: Params, bits: Sequence[int], entries: Entries, apart: bool
) -> Any:
    """The pieces of `Linearized` for a map whose heads are apart."""
    names = entries.names
    shared_leaves, shared_structure = jax.tree.flatten(params.shared)
    shared_vars = list(jaxpr.invars[: len(shared_leaves)])
    own = _own_variables(jaxpr, params)
    trunk, parts = _parted(jaxpr, shared_vars, own, bits, entries)
    boundary = list(dict.fromkeys(var for part in parts for var in part.reads))
    place = {var: index for index, var in enumerate(boundary)}

    own_leaves = [jax.tree.leaves(params.tasks[name]) for name in names]
    at_rest = [
        {var: jnp.zeros_like(leaf) for var, leaf in zip(variables, leaves, strict=True)}
        for variables, leaves in zip(own, own_leaves, strict=True)
    ]

    def run_head(e: int, inputs: Sequence[Any], values: Sequence[Array], marks: Sequence[Any] = ()) -> Array:
        env = {**constants, **at_rest[e], **dict(zip(inputs, values, strict=True))}
        return _evaluate([*marks, *parts[e].eqns], env, [parts[e].out])[0]

    def pull_head(e: int, seed: Array, inputs: Sequence[Any]) -> tuple[Any, ...]:
        return _transpose(lambda *values: run_head(e, inputs, values), inputs, seed)

    def inputs_of(e: int) -> list[Any]:
        """What a head is pulled to: of a bank the marked features, whose first axis is that of its tasks, or 1."""
        return [mark.outvars[0] for mark in parts[e].marks] or parts[e].reads

    def at_boundary(e: int, values: Sequence[Array]) -> Cotangents:
        cotangents: Cotangents = [None] * len(boundary)
        for var, value in zip(parts[e].reads, values, strict=True):
            if parts[e].marks and not apart:
                value = value[0]
            known = cotangents[place[var]]
            cotangents[place[var]] = value if known is None else known + value
        return cotangents

    def one_by_one(e: int, seed: Array) -> list[Array]:
        """The cotangents `[n, ...]` of a bank that is not marked: n pulls."""
        return list(jax.vmap(lambda one: pull_head(e, one, parts[e].reads))(jnp.diag(seed)))

    def head(e: int, seed: Array) -> Cotangents:
        if apart and entries.sizes[e] is not None and not parts[e].marks:
            return at_boundary(e, one_by_one(e, seed))
        return at_boundary(e, pull_head(e, seed, inputs_of(e)))

    def heads(seeds: Sequence[Array]) -> tuple[list[Cotangents], dict[str, PyTree], Factors]:
        cotangents, gradients, factors = [], {}, {}
        for e, (name, seed) in enumerate(zip(names, seeds, strict=True)):
            repeated = apart and entries.sizes[e] is not None and not parts[e].marks
            inputs = [] if repeated else inputs_of(e)
            closed = jax.make_jaxpr(lambda seed, e=e, inputs=inputs: pull_head(e, seed, inputs + own[e]))(seed)
            part, given = closed.jaxpr, [*closed.consts, seed]
            pairs = factors_of(part.eqns, part.outvars[len(inputs) :])
            env = dict(zip([*part.constvars, *part.invars], given, strict=True))
            pulled = _evaluate(part.eqns, env, [*part.outvars, *(var for pair in pairs for var in pair)])
            rest = iter(pulled[len(part.outvars) :])
            cotangents.append(at_boundary(e, one_by_one(e, seed) if repeated else pulled[: len(inputs)]))
            leaves = pulled[len(inputs) : len(part.outvars)]
            gradients[name] = jax.tree.unflatten(jax.tree.structure(params.tasks[name]), leaves)
            factors[name] = [tuple(next(rest) for _ in pair) for pair in pairs]
        return cotangents, gradients, factors

    def push_heads(tangents: Sequence[Array]) -> tuple[Array, ...]:
        return tuple(
            run_head(e, part.reads, [tangents[place[var]] for var in part.reads], part.marks)
            for e, part in enumerate(parts)
        )

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


def _uncut(
    tangent_map: Callable[..., Any], jaxpr: Any, params: Params, entries: Entries, apart: bool
) -> dict[str, Any]:
    """The pieces of `Linearized` with the losses themselves as the boundary."""
    number = len(entries.names)
    no_shared = jax.tree.map(jnp.zeros_like, params.shared)
    no_tasks = jax.tree.map(jnp.zeros_like, params.tasks)

    def head(e: int, seed: Array) -> Cotangents:
        own = jnp.diag(seed) if apart and entries.sizes[e] is not None else seed
        return [own if e == j else None for j in range(number)]

    def heads(seeds: Sequence[Array]) -> tuple[list[Cotangents], dict[str, PyTree], Factors]:
        # Entry e of the parameters is reached by loss e alone, so one pull of all seeds gives every own gradient.
        (own,) = jax.linear_transpose(lambda tasks: tangent_map(no_shared, tasks), params.tasks)(tuple(seeds))
        factors = {name: [(leaf,) for leaf in jax.tree.leaves(own[name])] for name in own}
        return [head(e, seed) for e, seed in enumerate(seeds)], own, factors

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
        "direct": (False,) * number,
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


def linearize(
    losses_fn: Callable[..., Any], params: Params, args: tuple[Any, ...], has_aux: bool, *, apart: bool = True
) -> Linearized:
    """Run the forward pass once and cut its derivative at the shared representation.

    Args:
        losses_fn: `losses_fn(params, *args)` returning losses, or `(losses, aux)` with `has_aux`; losses are a dict by
            entry, a scalar or `[n]` each, or an array `[T]` of single tasks.
        params: where; all leaves floating.
        args: passed on.
        has_aux: see `losses_fn`.
        apart: whether the tasks of a bank are kept apart, for each task's own cotangent; else they are summed.

    Returns:
        `Linearized`.

    Raises:
        ValueError: tasks of losses and params differ, a loss is not a scalar or `[n]`, a bank's parameters do not lead
            with n, or a loss reaches another task's parameters (see `mtljax.engines.reach` for what cannot be told).
        TypeError: a parameter leaf is not floating.
    """
    check_params("value_and_grad", params)
    names = sorted(params.tasks)

    by_name: list[bool] = []

    def forward(shared: PyTree, tasks: dict[str, PyTree]) -> tuple[tuple[Array, ...], Any]:
        out = losses_fn(Params(shared, tasks), *args)
        losses, aux = split_aux(out, has_aux)
        by_name.append(isinstance(losses, dict))
        return by_entry(losses, names), aux

    with keep_apart() if apart else contextlib.nullcontext():
        losses, tangent_map, aux = jax.linearize(forward, params.shared, params.tasks, has_aux=True)
    entries = Entries(tuple(names), tuple(loss.shape[0] if loss.ndim else None for loss in losses))
    check_banks(entries, params)
    closed = jax.make_jaxpr(tangent_map)(params.shared, params.tasks)
    jaxpr = closed.jaxpr
    bits, reach = _reached_by(jaxpr.eqns, jaxpr.outvars)
    own = _own_variables(jaxpr, params)
    if all(reach.get(var, 0) & ~(1 << e) == 0 for e, variables in enumerate(own) for var in variables):
        constants = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        pieces = _cut(jaxpr, constants, params, bits, entries, apart)
    else:
        check_reach(jaxpr, own, params)
        pieces = _uncut(tangent_map, jaxpr, params, entries, apart)

    def restore(values: Sequence[Array]) -> Any:
        return dict(zip(names, values, strict=True)) if by_name[0] else jnp.stack(values)

    forward_rules = not _holds(jaxpr.eqns, _WITHOUT_FORWARD_RULE)
    return Linearized(
        entries=entries, losses=losses, aux=aux, restore=restore, apart=apart, forward=forward_rules, **pieces
    )
