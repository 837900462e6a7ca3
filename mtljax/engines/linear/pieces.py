"""The pieces of a derivative: of a map that was cut between trunk and heads, and of one that cannot be cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.banks import Entries, Group, is_apart
from mtljax.engines.factors import factors_of
from mtljax.engines.linear.equations import CONVOLUTIONS, evaluate, holds, products_of, transpose
from mtljax.engines.linear.heads import parted
from mtljax.engines.linear.types import Cotangents, Factors
from mtljax.types import Array, Params, PyTree


def cut_pieces(
    jaxpr: Any, constants: dict[Any, Any], params: Params, bits: Sequence[int], entries: Entries, apart: Group | bool
) -> Any:
    """The pieces of `Linearized` for a map whose heads are apart."""
    names = entries.names
    shared_leaves, shared_structure = jax.tree.flatten(params.shared)
    shared_vars = list(jaxpr.invars[: len(shared_leaves)])
    own = own_variables(jaxpr, params)
    trunk, parts = parted(jaxpr, shared_vars, own, bits, entries)
    boundary = list(dict.fromkeys(var for part in parts for var in part.reads))
    place = {var: index for index, var in enumerate(boundary)}

    own_leaves = [jax.tree.leaves(params.tasks[name]) for name in names]
    at_rest = [
        {var: jnp.zeros_like(leaf) for var, leaf in zip(variables, leaves, strict=True)}
        for variables, leaves in zip(own, own_leaves, strict=True)
    ]

    def run_head(e: int, inputs: Sequence[Any], values: Sequence[Array], marks: Sequence[Any] = ()) -> Array:
        env = {**constants, **at_rest[e], **dict(zip(inputs, values, strict=True))}
        return evaluate([*marks, *parts[e].eqns], env, [parts[e].out])[0]

    def pull_head(e: int, seed: Array, inputs: Sequence[Any]) -> tuple[Any, ...]:
        return transpose(lambda *values: run_head(e, inputs, values), inputs, seed)

    def inputs_of(e: int) -> list[Any]:
        """What a head is pulled to: of a bank the marked features, whose first axis is that of its tasks, or 1."""
        return [mark.outvars[0] for mark in parts[e].marks] or parts[e].reads

    def at_boundary(e: int, values: Sequence[Array]) -> Cotangents:
        cotangents: Cotangents = [None] * len(boundary)
        for var, value in zip(parts[e].reads, values, strict=True):
            if parts[e].marks and not is_apart(apart, names[e]):
                value = value[0]
            known = cotangents[place[var]]
            cotangents[place[var]] = value if known is None else known + value
        return cotangents

    def one_by_one(e: int, seed: Array) -> list[Array]:
        """The cotangents `[n, ...]` of a bank that is not marked: n pulls."""
        return list(jax.vmap(lambda one: pull_head(e, one, parts[e].reads))(jnp.diag(seed)))

    def head(e: int, seed: Array) -> Cotangents:
        if is_apart(apart, names[e]) and entries.sizes[e] is not None and not parts[e].marks:
            return at_boundary(e, one_by_one(e, seed))
        return at_boundary(e, pull_head(e, seed, inputs_of(e)))

    def heads(seeds: Sequence[Array]) -> tuple[list[Cotangents], dict[str, PyTree], Factors]:
        cotangents, gradients, factors = [], {}, {}
        for e, (name, seed) in enumerate(zip(names, seeds, strict=True)):
            repeated = is_apart(apart, name) and entries.sizes[e] is not None and not parts[e].marks
            inputs = [] if repeated else inputs_of(e)
            closed = jax.make_jaxpr(lambda seed, e=e, inputs=inputs: pull_head(e, seed, inputs + own[e]))(seed)
            part, given = closed.jaxpr, [*closed.consts, seed]
            pairs = factors_of(part.eqns, part.outvars[len(inputs) :])
            env = dict(zip([*part.constvars, *part.invars], given, strict=True))
            pulled = evaluate(part.eqns, env, [*part.outvars, *(var for pair in pairs for var in pair)])
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
        return evaluate(trunk, {**constants, **dict(zip(shared_vars, values, strict=True))}, boundary)

    def pull(cotangents: Sequence[Array]) -> PyTree:
        if not boundary:
            return jax.tree.map(jnp.zeros_like, params.shared)
        return jax.tree.unflatten(shared_structure, transpose(run_trunk, shared_vars, list(cotangents)))

    return {
        "head": head,
        "heads": heads,
        "pull": pull,
        "push": lambda shared: run_trunk(*jax.tree.leaves(shared)),
        "push_heads": push_heads,
        "marked": tuple(bool(part.marks) for part in parts),
        "separate": True,
        "direct": tuple(var in set(shared_vars) for var in boundary),
        "trunk": len(trunk),
        "convolutional": holds(trunk, CONVOLUTIONS),
        "products": products_of(trunk),
    }


def uncut_pieces(
    tangent_map: Callable[..., Any], jaxpr: Any, params: Params, entries: Entries, apart: Group | bool
) -> dict[str, Any]:
    """The pieces of `Linearized` with the losses themselves as the boundary."""
    number = len(entries.names)
    no_shared = jax.tree.map(jnp.zeros_like, params.shared)
    no_tasks = jax.tree.map(jnp.zeros_like, params.tasks)

    def head(e: int, seed: Array) -> Cotangents:
        own = jnp.diag(seed) if is_apart(apart, entries.names[e]) and entries.sizes[e] is not None else seed
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
        "marked": (False,) * number,
        "separate": False,
        "direct": (False,) * number,
        "trunk": len(jaxpr.eqns),
        "convolutional": holds(jaxpr.eqns, CONVOLUTIONS),
        "products": products_of(jaxpr.eqns),
    }


def own_variables(jaxpr: Any, params: Params) -> list[list[Any]]:
    """The variables of each entry's own parameters, among the inputs of the derivative."""
    start = len(jax.tree.leaves(params.shared))
    own = []
    for name in sorted(params.tasks):
        stop = start + len(jax.tree.leaves(params.tasks[name]))
        own.append(list(jaxpr.invars[start:stop]))
        start = stop
    return own
