"""From losses and a method to gradients: the step's third and fourth function in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import engines, participation, trees
from mtljax.checks import check_alone, check_axis_name, check_callable, check_flag, check_method, expect
from mtljax.engines.checks import check_params, with_aux
from mtljax.engines.cotangents import merged, seeds_for
from mtljax.engines.full import jacobian
from mtljax.engines.linear import Linearised, linearise
from mtljax.engines.types import Engine, Outcome, Problem, check_engine
from mtljax.methods.apply import begun, ended, weigh
from mtljax.methods.common import check_active
from mtljax.methods.wrappers import preference
from mtljax.sweeps import throughout
from mtljax.types import Array, Key, Method, MethodState, Params, PyTree, Unobserved


class Evidence(NamedTuple):
    """What a loss function knows about its own losses, besides their values.

    Attributes:
        examples: `[T]`, how many labelled examples each loss averages; a task with none is inactive. None: all alike.
        prior: `[T]`, static preferences; multiplies the weights that a method returns, and the rows that a method
            without weights reads. None: all 1.
        extra: arrays `[T]` by name, which the method gets as keyword arguments; averaged over devices as losses are.
    """

    examples: Array | None = None
    prior: Array | None = None
    extra: Mapping[str, Array] = {}


class Gradients(NamedTuple):
    """Everything one differentiation yields.

    Attributes:
        losses: float32 `[T]`, averaged over devices; non-finite where they were.
        aux: what the loss function returned beside them (this device's own).
        grads: `Params`, reduced over devices.
        method_state: the method's new state.
        active: bool `[T]`, the tasks that took part.
        nonfinite: bool `[T]`, the tasks left out because their loss or their gradient was NaN or infinite.
        share: `[T]`, this device's share of each task's examples (1 on one device).
        gramian: `[T, T]` where one was built, of gradients times `scale`; else None.
        scale: float32 `[]`, a power of two, 1 for gradients of ordinary size; None where no Gramian was built.
        restore: puts T scalars into the form in which `losses_fn` returns losses.
    """

    losses: Array
    aux: Any
    grads: Params
    method_state: MethodState
    active: Array
    nonfinite: Array
    share: Array
    gramian: Array | None
    scale: Array | None
    restore: Callable[[tuple[Array, ...]], Any]


def value_and_task_grads(
    losses_fn: Callable[..., Any], *, has_aux: bool = False, axis_name: str | tuple[str, ...] | None = None
) -> Callable[..., Any]:
    """Losses, and every task's own gradient.

    `grads.shared` holds the Jacobian, leaves `[T, *p]` with row k = dL_k / d shared, and `grads.tasks[k]` holds
    dL_k / d tasks[k]. One forward pass, one pass through the heads, T passes through the trunk.

    Args:
        losses_fn: `losses_fn(params, *args)` returning losses (dict of scalars by task, or array `[T]` in sorted order
            of names), or `(losses, aux)` with `has_aux`.
        has_aux: see `losses_fn`.
        axis_name: as in `value_and_grad`.

    Returns:
        `f(params, *args) -> (losses, grads)`, or `((losses, aux), grads)` with `has_aux`; losses as `losses_fn`
        returned them. Unlike `value_and_grad` it shows NaN as NaN.

    Raises:
        ValueError, TypeError: from f, at trace time, where losses and params disagree (see `engines`).

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> losses_fn = lambda params: {k: jnp.sum(params.shared * params.tasks[k]) for k in "ab"}
        >>> params = mtljax.Params(jnp.ones(2), {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0, 4.0])})
        >>> losses, grads = mtljax.value_and_task_grads(losses_fn)(params)
        >>> print(grads.shared)
        [[1. 2.]
         [3. 4.]]
        >>> print(grads.tasks["a"])
        [1. 1.]
    """
    check_callable("value_and_task_grads", "losses_fn", losses_fn)
    check_flag("value_and_task_grads", "has_aux", has_aux)

    def f(params: Params, *args: Any) -> tuple[Any, Params]:
        linear = linearise(losses_fn, _varying(params, axis_name), args, has_aux)
        everyone = jnp.ones(len(linear.losses), bool)

        def reduce(tree: PyTree) -> PyTree:
            return tree if axis_name is None else lax.psum(tree, axis_name)

        share = 1.0 if axis_name is None else 1.0 / lax.axis_size(axis_name)
        seeds = seeds_for(linear, jnp.full(everyone.shape, share))
        cotangents, own, _ = linear.heads(seeds)
        problem = Problem(linear, cotangents, seeds, params.shared, _vector(linear), everyone, None, {}, reduce)
        losses = linear.losses if axis_name is None else lax.pmean(linear.losses, axis_name)
        values = with_aux(linear.restore(losses), linear.aux, has_aux)
        return values, Params(jacobian(problem), reduce(own))

    return f


def value_and_grad(
    losses_fn: Callable[..., Any],
    method: Method,
    *,
    has_aux: bool = False,
    engine: Engine | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Callable[..., Any]:
    """Losses, and the gradient that a method makes of them: `jax.value_and_grad` for many tasks.

    Args:
        losses_fn: as in `value_and_task_grads`.
        method: how tasks are reconciled, for example `mtljax.methods.upgrad()`.
        has_aux: whether `losses_fn` returns `(losses, aux)`.
        engine: how much Jacobian is built; None (default) for the cheapest exact engine the method allows
            (`engines.choose`; `engines.explain` tells which). A method that reads losses needs none, nor does one that
            reads one task's gradient a step.
        axis_name: mapped axis, or axes, of your own `jax.pmap` or `jax.shard_map` around f; None (default) without one.
            It is wanted there: each device has a part of the batch, and without it each decides by its own losses, so
            that the devices' parameters drift apart: an error. With it, losses and gradients are means over the
            devices, the same on all of them. Give every device the same state and key. `()` where each device is to go
            its own way, with a seed of its own, say. `jax.vmap` needs no name.

    Returns:
        `f(params, method_state, *args, key=None, active=None, **extra) -> (losses, grads, method_state)`, or
        `((losses, aux), grads, method_state)` with `has_aux`.
        `key` is for stochastic methods. `active` is bool `[T]`: a task that is not active is as good as absent. Extra
        arrays `[T]` are for the methods that take them, such as `kpi` of `methods.dynamic_task_priority`.
        A method with `observe` (`famo`) learns from the losses after the step: its state is then an `Unobserved`,
        of which `mtljax.observe(method, losses, state)` makes the one for the next step. Without that call the next
        step is an error.
        A task whose loss or gradient is not finite is inactive for that step; `losses` shows the former, a weight of 0
        both. Task-specific gradients are each task's own, times its weight where `method.weigh_tasks`, and zero for an
        inactive task.

    Raises:
        ValueError, TypeError: from f, at trace time, naming what disagrees.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> losses_fn = lambda params: {k: jnp.sum((params.shared - params.tasks[k]) ** 2) for k in "ab"}
        >>> params = mtljax.Params(jnp.zeros(2), {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.0, 1.0])})
        >>> method = mtljax.methods.mgda()
        >>> losses, grads, state = mtljax.value_and_grad(losses_fn, method)(params, method.init(2))
        >>> print(grads.shared, state.weights)
        [-1. -1.] [0.5 0.5]
    """
    check_callable("value_and_grad", "losses_fn", losses_fn)
    check_method("value_and_grad", "method", method)
    check_flag("value_and_grad", "has_aux", has_aux)
    check_engine("value_and_grad", engine)
    check_axis_name("value_and_grad", axis_name)
    given, axis_name = axis_name, axis_name or None

    def f(
        params: Params,
        method_state: MethodState | Unobserved,
        *args: Any,
        key: Key | None = None,
        active: Array | None = None,
        **extra: Array,
    ) -> tuple[Any, Params, MethodState | Unobserved]:
        check_alone("value_and_grad", given)
        result = differentiate(
            losses_fn,
            method,
            params,
            begun("value_and_grad", method, method_state),
            args,
            has_aux=has_aux,
            engine=engine,
            key=key,
            active=active,
            extra=extra,
            axis_name=axis_name,
        )
        values = with_aux(result.restore(tuple(result.losses)), result.aux, has_aux)
        return values, result.grads, ended(method, result.method_state)

    return f


def differentiate(
    losses_fn: Callable[..., Any],
    method: Method,
    params: Params,
    method_state: MethodState,
    args: tuple[Any, ...],
    *,
    has_aux: bool,
    engine: Engine | None = None,
    key: Key | None = None,
    active: Array | None = None,
    evidence: Callable[[Any], Evidence] | None = None,
    extra: Mapping[str, Array] = {},
    axis_name: str | tuple[str, ...] | None = None,
    squared: bool = False,
) -> Gradients:
    """`value_and_grad` with everything it knows, and across devices.

    With `axis_name` each device holds a part of the batch. A task's loss over all devices is
    `L_k = sum_d (n_dk / n_k) L_dk` with n the numbers of labelled examples, so that labels spread unevenly over devices
    change nothing; gradients and Gramians are reduced first and reconciled after, so all devices decide alike.

    Args:
        losses_fn: as in `value_and_task_grads`.
        method: how tasks are reconciled.
        params: parameters, the same on every device.
        method_state: the method's state, likewise.
        args: the rest of what `losses_fn` takes.
        has_aux: whether `losses_fn` returns `(losses, aux)`.
        engine: as in `value_and_grad`.
        key: the same on every device, so that stochastic methods draw alike.
        active: bool `[T]` or None.
        evidence: reads `Evidence` off aux; None for no counts and no priors.
        extra: arrays `[T]` by name for the method, the same on every device.
        axis_name: mapped axis, or axes, of `jax.pmap` or `jax.shard_map`.
        squared: whether a loss or gradient whose square is not finite counts as one that is not; True where an
            optimizer follows.

    Returns:
        `Gradients`.

    Raises:
        ValueError, TypeError: where losses, params, active and method disagree, naming what was found.
    """
    check_params("value_and_grad", params)
    expect(isinstance(method_state, MethodState), method.name, "state", "a mtljax.MethodState", method_state, TypeError)
    if method_state.weights.shape != (len(params.tasks),):
        raise ValueError(
            f"{method.name} was initialised for {method_state.weights.shape[0]} tasks but params.tasks has "
            f"{sorted(params.tasks)}"
        )
    check_active(method.name, active, len(params.tasks))

    params = _varying(params, axis_name)
    linear = linearise(losses_fn, params, args, has_aux)
    known = Evidence() if evidence is None else evidence(linear.aux)

    def reduce(tree: PyTree) -> PyTree:
        return tree if axis_name is None else lax.psum(tree, axis_name)

    spread = None if axis_name is None else reduce
    who = participation.present(
        _vector(linear), examples=known.examples, active=active, reduce=spread, method=method, squared=squared
    )
    share = who.share
    if known.prior is not None:
        method = preference(method, known.prior)
    extra = {
        **extra,
        **{name: reduce(jnp.where(share > 0, share * each, 0.0)) for name, each in known.extra.items()},
    }
    told = {"losses": who.clean, "key": key, **extra}

    weights, state, seeded = None, method_state, share
    if method.reads == "losses":
        weights, state = weigh(method, who.clean, method_state, active=who.active, **told)
        seeded = share * weights if method.weigh_tasks else share
    seeds = seeds_for(linear, seeded)
    cotangents, own, factors = linear.heads(seeds)
    named = list(zip(cotangents, sorted(own), strict=True))
    pulled = [(each, own[name]) for each, name in named]
    known_by = [[(leaf,) for leaf in jax.tree.leaves(each)] + factors[name] for each, name in named]
    present = who.active & participation.sound(pulled, spread, squared=squared, factors=known_by)

    if weights is not None:
        # The others keep the weights that they have beside it; what the method keeps of it stays as it was.
        state = participation.held(state, method_state, present | ~who.active)
        state = state._replace(weights=jnp.where(present, state.weights, 0.0))
        total = merged(cotangents, present, None if method.weigh_tasks else weights)
        outcome = Outcome(reduce(linear.pull(total)), state, present)
    elif method.pick is not None:
        picked = jnp.arange(present.size) == method.pick(method_state, active=present)
        row = reduce(linear.pull(merged(cotangents, present & picked)))
        # A NaN of the trunk would stay in what the method keeps of this row: then nobody takes part.
        present = present & participation.sound([row], squared=squared)[0]
        shared, state = method.update(row, method_state, active=present, **told)
        outcome = Outcome(shared, state, present)
    else:
        problem = Problem(linear, cotangents, seeds, params.shared, who.clean, present, key, extra, reduce, squared)
        if engine is None:
            engine = engines.choose(method, linear, params.shared, backend=jax.default_backend()).engine
            assert engine is not None
        outcome = _solve(engine, problem, method, method_state)
        if method.weigh_tasks:
            own = {name: trees.scale(outcome.state.weights[k], own[name]) for k, name in enumerate(sorted(own))}
    own = {name: reduce(own[name]) for name in sorted(own)}
    nonfinite = who.asked & ~outcome.active
    if not linear.separate:
        # A NaN of one task has met the others: then nobody takes part. Looked for where a task was left out.
        update = (outcome.shared, participation.own_gradients(own, outcome.active))
        everyone = throughout(~nonfinite.any())
        unharmed = lax.cond(everyone, lambda: jnp.array(True), lambda: ~nonfinite.any() | trees.all_finite(update))
        outcome = outcome._replace(active=outcome.active & unharmed)
    return Gradients(
        losses=who.losses,
        aux=linear.aux,
        grads=Params(
            participation.guarded(outcome.shared, outcome.active.any(), squared=squared),
            participation.own_gradients(own, outcome.active, squared=squared),
        ),
        method_state=participation.unless_void(outcome.state, method_state, outcome.active),
        active=outcome.active,
        nonfinite=nonfinite,
        share=share,
        gramian=outcome.gramian,
        scale=outcome.scale,
        restore=linear.restore,
    )


def _varying(params: Params, axis_name: str | tuple[str, ...] | None) -> Params:
    """Without the cast, differentiation sums over devices by itself; the sums here make gradients N times too large."""
    return params if axis_name is None else lax.pcast(params, axis_name, to="varying")


def _solve(engine: Engine, problem: Problem, method: Method, state: MethodState) -> Outcome:
    """Run the engine where the method is due, else use the weights it keeps."""
    if method.due is None or method.reuse is None:
        return engine.solve(problem, method, state)
    reuse = method.reuse

    def solve(state: MethodState) -> tuple[MethodState, Array]:
        outcome = engine.solve(problem, method, state)
        return outcome.state, outcome.active

    def again(state: MethodState) -> tuple[MethodState, Array]:
        return reuse(state, active=problem.active)[1], problem.active

    # The pull stays outside the condition: inside, XLA:CPU would run convolutions on one thread.
    state, active = lax.cond(method.due(state), solve, again, state)
    total = merged(problem.cotangents, active, state.weights)
    return Outcome(problem.reduce(problem.linear.pull(total)), state, active)


def _vector(linear: Linearised) -> Array:
    return jnp.stack([loss.astype(trees.accumulator(loss.dtype)) for loss in linear.losses])
