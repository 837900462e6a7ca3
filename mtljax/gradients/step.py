"""One step from losses to gradients: which tasks take part, what is read, what the method answers, what is pulled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import engines, participation, trees
from mtljax.banks import rows_scaled
from mtljax.checks import expect
from mtljax.engines.cut import Cut, cut_heads, reduction
from mtljax.engines.linear import linearize
from mtljax.engines.types import Engine, check_rows, check_serves
from mtljax.gradients.batches import on_batches
from mtljax.gradients.checks import check_tasks
from mtljax.gradients.result import Gradients
from mtljax.methods.apply import weigh
from mtljax.methods.rows import widened
from mtljax.methods.wrappers import preference
from mtljax.sweeps import throughout
from mtljax.types import Array, Aux, Key, Method, MethodState, Params, PyTree


def differentiate(
    losses_fn: Callable[..., Any],
    method: Method,
    params: Params,
    method_state: MethodState,
    batches: tuple[tuple[Any, ...], ...],
    *,
    has_aux: bool,
    engine: Engine | None = None,
    key: Key | None = None,
    active: Array | None = None,
    extra: Mapping[str, Array] = {},
    axis_name: str | tuple[str, ...] | None = None,
    squared: bool = False,
) -> Gradients:
    """`value_and_grad` with all its results as `Gradients`, also across devices.

    With `axis_name` each device holds a part of the batch. A task's loss over all devices is
    `L_k = sum_d (n_dk / n_k) L_dk` with n the sums of weights, so that labels spread unevenly over devices change
    nothing; gradients and Gramians are reduced first and reconciled after, so all devices decide alike.

    Args:
        losses_fn: as in `value_and_task_grads`.
        method: how tasks are reconciled.
        params: parameters, the same on every device.
        method_state: the method's state, likewise.
        batches: for each batch that the method reads, the rest of what `losses_fn` takes.
        has_aux: whether `losses_fn` returns `(losses, aux)`. Where aux is `mtljax.Aux`, its sums of weights, its
            priors and its extra arrays are used.
        engine: as in `value_and_grad`.
        key: the same on every device, so that stochastic methods draw alike.
        active: bool `[T]` or None.
        extra: arrays `[T]` by name for the method, the same on every device.
        axis_name: mapped axis, or axes, of `jax.pmap` or `jax.shard_map`.
        squared: whether a loss or gradient whose square is not finite counts as one that is not; True where an
            optimizer follows.

    Returns:
        `Gradients`.

    Raises:
        ValueError, TypeError: where losses, params, active and method disagree, naming what was found.
    """
    expect(isinstance(method_state, MethodState), method.name, "state", "a mtljax.MethodState", method_state, TypeError)
    if method.reads == "batches":
        told = {"key": key, **extra}
        return on_batches(losses_fn, method, params, method_state, batches, told, active, has_aux, axis_name, squared)
    reduce = reduction(axis_name)
    params = varying(params, axis_name)
    told_apart = functools.partial(linearize, losses_fn, params, batches[0], has_aux)
    linear = told_apart(apart=method.reads != "losses")
    entries = linear.entries
    check_tasks(method, method_state, active, entries)
    known = linear.aux if isinstance(linear.aux, Aux) else Aux()
    who = participation.present(
        entries.joined(widened(linear.losses)),
        weight_sum=known.weight_sum,
        active=active,
        reduce=reduce,
        method=method,
        squared=squared,
    )
    if known.prior is not None:
        method = preference(method, known.prior)
    told = {"losses": who.clean, "key": key, "weight_sum": who.weight_sum, **extra}
    for name, each in known.extra.items():
        here = jnp.where(who.share > 0, who.share * each, 0.0)
        told[name] = here if reduce is None else reduce(here)

    weights, asked = None, method_state
    seeds = who.share
    if method.reads == "losses":
        weights, asked = weigh(method, who.clean, method_state, active=who.active, **told)
        seeds = who.share * weights if method.weigh_tasks else who.share
    cut = cut_heads(
        linear,
        seeds,
        params.shared,
        who.active,
        reduce=reduce,
        squared=squared,
        weights=None if method.weigh_tasks else weights,
        apart=lambda group: told_apart(apart=group),
    )
    if weights is not None:
        # The other tasks keep their weights; what the method's state holds of the bad task does not change.
        state = participation.held(asked, method_state, cut.active | ~who.active)
        state = state._replace(weights=jnp.where(cut.active, state.weights, 0.0))
        answer = Answer(cut.pull(None if method.weigh_tasks else weights), state, cut.active)
    elif method.pick is not None:
        answer = _of_one_row(cut, method, method_state, told)
    else:
        chosen = engine or engines.choose(method, linear, params.shared, backend=jax.default_backend()).engine
        assert chosen is not None
        check_serves(chosen, method)
        answer = _of_evidence(chosen, cut, method, method_state, told)

    own = cut.own
    if method.weigh_tasks and weights is None and method.pick is None:
        parts = zip(sorted(own), entries.parts(answer.state.weights), strict=True)
        own = {name: rows_scaled(weights, own[name]) for name, weights in parts}
    own = {name: cut.reduce(own[name]) for name in sorted(own)}
    present = answer.active
    nonfinite = who.asked & ~present
    if not linear.separate:
        # A NaN of one task may have reached the others; then no task takes part. Checked if a task was left out.
        update = (answer.shared, participation.own_gradients(own, present, entries=entries))
        everyone = throughout(~nonfinite.any())
        present &= lax.cond(everyone, lambda: jnp.array(True), lambda: ~nonfinite.any() | trees.all_finite(update))
    return Gradients(
        losses=who.losses,
        aux=linear.aux,
        grads=Params(
            participation.guarded(answer.shared, present.any(), squared=squared),
            participation.own_gradients(own, present, entries=entries, squared=squared),
        ),
        method_state=participation.unless_void(answer.state, method_state, present),
        active=present,
        nonfinite=nonfinite,
        share=who.share,
        gramian=answer.gramian,
        scale=answer.scale,
        entries=entries,
        restore=lambda values: linear.restore(entries.parts(values)),
    )


class Answer(NamedTuple):
    """The method's answer to its evidence.

    Attributes:
        shared: gradient like the shared parameters, reduced over devices.
        state: the method's new state; `state.weights [T]` holds the weights.
        active: bool `[T]`, the tasks that took part.
        gramian: float32 `[T, T]`, of the rows times `scale`; None where none was built.
        scale: float32 `[]`; None likewise.
    """

    shared: PyTree
    state: MethodState
    active: Array
    gramian: Array | None = None
    scale: Array | None = None


def _of_one_row(cut: Cut, method: Method, state: MethodState, told: dict[str, Any]) -> Answer:
    """The method picks a task and reads its row: one backward pass."""
    assert method.pick is not None
    picked = jnp.arange(cut.active.size) == method.pick(state, active=cut.active)
    row = cut.pull(tasks=cut.active & picked)
    # A NaN of the trunk would stay in the method's state; then no task takes part.
    active = cut.active & participation.sound([row], squared=cut.squared)[0]
    return Answer(*method.update(row, state, active=active, **told), active)


def _of_evidence(engine: Engine, cut: Cut, method: Method, state: MethodState, told: dict[str, Any]) -> Answer:
    """The engine reads, the method answers, the engine pulls. A method that is not due answers without evidence."""

    def read(state: MethodState) -> tuple[PyTree, PyTree, Answer]:
        evidence, kept, active, scale = engine.read(cut, method.reads)
        if scale is None:
            check_rows(engine, method, state, evidence, cut.shared)
            answer, state = method.update(evidence, state, active=active, **told)
            return answer, kept, Answer((), state, active)
        answer, state = method.update(evidence, state, active=active, scale=scale, **told)
        return answer, kept, Answer((), state, active, evidence, scale)

    if method.due is None or method.reuse is None:
        answer, kept, found = read(state)
        return found._replace(shared=engine.pull(cut._replace(active=found.active), method.reads, answer, kept))

    reuse = method.reuse

    def due(state: MethodState) -> tuple[MethodState, Array]:
        _, _, found = read(state)
        return found.state, found.active

    def rest(state: MethodState) -> tuple[MethodState, Array]:
        return reuse(state, active=cut.active)[1], cut.active

    # The pull stays outside the condition: inside, XLA:CPU would run convolutions on one thread.
    state, active = lax.cond(method.due(state), due, rest, state)
    return Answer(cut.pull(state.weights, active), state, active)


def varying(params: Params, axis_name: str | tuple[str, ...] | None) -> Params:
    """Without the cast, differentiation sums over devices by itself; the sums here make gradients N times too large."""
    return params if axis_name is None else lax.pcast(params, axis_name, to="varying")
