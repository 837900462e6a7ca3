"""Gradients by a method that reads batches: it differentiates the losses itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from mtljax import participation
from mtljax.banks import entries_of
from mtljax.engines.checks import by_entry, check_banks, split_aux
from mtljax.gradients.checks import check_tasks
from mtljax.gradients.result import Gradients
from mtljax.methods.rows import widened
from mtljax.types import Array, Aux, Batches, Method, MethodState, Params


def on_batches(
    losses_fn: Callable[..., Any],
    method: Method,
    params: Params,
    state: MethodState,
    batches: tuple[tuple[Any, ...], ...],
    told: dict[str, Any],
    active: Array | None,
    has_aux: bool,
    axis_name: str | tuple[str, ...] | None,
    squared: bool,
) -> Gradients:
    """The method differentiates the losses itself. What is reported is of the first batch."""
    if axis_name is not None:
        raise ValueError(
            f"value_and_grad: {method.name} reads batches, and would decide on each device by that device's alone; run "
            "the step with training.sharded, made without axis_name"
        )
    names = sorted(params.tasks)
    found = [split_aux(losses_fn(params, *each), has_aux) for each in batches]
    known = [aux if isinstance(aux, Aux) else Aux() for _, aux in found]
    first = by_entry(found[0][0], names)
    entries = entries_of(names, first)
    check_banks(entries, params)
    check_tasks(method, state, active, entries)
    who = participation.present(
        entries.joined(widened(first)),
        weight_sum=known[0].weight_sum,
        active=active,
        method=method,
        squared=squared,
    )
    asked = jnp.ones(entries.num_tasks, bool) if active is None else active
    labeled = [asked if each.weight_sum is None else asked & (each.weight_sum > 0) for each in known[1:]]
    prior = None if known[0].prior is None else entries.parts(known[0].prior)

    def losses_at(params: Params, index: int) -> dict[str, Array]:
        losses = by_entry(split_aux(losses_fn(params, *batches[index]), has_aux)[0], names)
        weighed = losses if prior is None else [loss * prior[e].astype(loss.dtype) for e, loss in enumerate(losses)]
        return dict(zip(names, weighed, strict=True))

    evidence = Batches(losses_at, params, jnp.stack([who.active, *labeled]))
    told = {"weight_sum": who.weight_sum, **told, "losses": who.clean, **known[0].extra}
    (grads, present), after = method.update(evidence, state, active=who.active, **told)

    def restore(values: Array) -> Any:
        return dict(zip(names, entries.parts(values), strict=True)) if isinstance(found[0][0], dict) else values

    return Gradients(
        losses=who.losses,
        aux=found[0][1],
        grads=Params(
            participation.guarded(grads.shared, present.any(), squared=squared),
            participation.own_gradients(grads.tasks, present, entries=entries, squared=squared),
        ),
        method_state=participation.unless_void(after, state, present),
        active=present,
        nonfinite=functools.reduce(jnp.logical_and, labeled, who.asked) & ~present,
        share=who.share,
        gramian=None,
        scale=None,
        entries=entries,
        restore=restore,
    )


def batches_of(method: Method, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], ...]:
    """The arguments of the loss function for each batch that the method reads."""
    if method.num_batches == 1:
        return (args,)
    if len(args) != method.num_batches or not all(type(each) is tuple for each in args):
        raise ValueError(
            f"value_and_grad: {method.name} reads {method.num_batches} batches, so give as many tuples of the loss "
            f"function's arguments, found {[type(each).__name__ for each in args]}"
        )
    return args
