"""The training step: losses, method and optimizer as one pure function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtljax.banks import Entries, in_order, names_of
from mtljax.checks import (
    check_alone,
    check_axis_name,
    check_callable,
    check_key,
    check_method,
    check_names,
    check_optimizer,
    expect,
)
from mtljax.engines.checks import check_params
from mtljax.engines.types import Engine, check_engine
from mtljax.gradients.step import differentiate
from mtljax.losses.objective import attribute
from mtljax.partition import check_memory, has_tasks, parted, paths_of
from mtljax.training.merging import mean_over_devices, over_devices
from mtljax.training.objective_value import objective, update_with, with_slope
from mtljax.training.penalized import penalized
from mtljax.training.report import report
from mtljax.training.resting import at_paths, can_hold, has_prox, held, moving, scalars_held
from mtljax.types import Array, Aux, Batch, Key, Method, Model, Params, PyTree, TrainState

Init = Callable[..., TrainState]
Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]]


def make_train_step(
    losses_fn: Callable[..., Any],
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    penalty: Callable[[Params], Array] | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    engine: Engine | None = None,
    names: Sequence[str] | None = None,
) -> tuple[Init, Step]:
    """Make a multi-task training step; pure and not jitted.

    One step: losses and their derivative, weights or update from the method, the penalties' gradient added to it, the
    optimizer, and `method.observe` where the method has one (`observe` costs another forward pass).

    Args:
        losses_fn: `(params, state, batch, key, train) -> (losses, mtljax.Aux)`, as `mtljax.make_losses_fn` makes it;
            one of your own returns `(losses, mtljax.Aux(state))`. Its attribute `penalty`, `penalty(params) -> []`
            or None, is part of the objective: the model's, for what `mtljax.make_losses_fn` makes. A wrapper of your
            own keeps it with `functools.wraps`.
        method: how tasks are reconciled.
        optimizer: over `Params`; `optax.partition` may treat shared and task parameters differently. The parameters of
            a task that is not active rest: they stay as they are, weight decay and momentum included, and so does what
            the optimizer keeps at their paths; its counts go on. `training.by_task` gives each task a count of its own.
            Parameters that a penalty's gradient or `penalties.proximal` reaches move all the same, since those are
            part of the objective at every step. With `optax.MultiSteps` or `optax.apply_every` nothing rests, since
            they spend what was gathered at other steps: put them inside `by_task`.
            An optimizer that takes `value`, `grad` or `value_fn` (`optax.contrib.reduce_on_plateau`, `polyak_sgd`,
            `momo`, `lbfgs`, line searches; `obj_fn` of `sophia`) is given the objective with this step's weights,
            `sum_k w_k L_k + penalties` over active tasks, with the w of the metrics held fixed. What it updates is what
            the method decided, which differs from `grad` at heads that the method does not weigh, and in general
            where the method returns an update and no weights. A sum over fewer tasks is another value: a plateau is
            best measured where all tasks are labelled at every step.
        penalty: `penalty(params) -> []`, one more; the function that is the losses' own attribute counts once. All
            are added to the objective after the tasks are reconciled. None (default) for no other.
        axis_name: mapped axis, or axes, of `pmap` or `jax.shard_map`, over which the batch is spread; None (default)
            for `jit`, and for `sharded`, where the compiler spreads the work; `()` where each device of a mapped axis
            is to train on its own, with a seed of its own, say. The state is the same on every device and stays so.
            Batch statistics are averaged over devices; they equal one device's only if the
            network itself computes them over the same axis.
        engine: as in `mtljax.value_and_grad`.
        names: the T tasks in their order, for parameters that are one pytree of any form, and not `Params`. A leaf that
            one loss alone reaches is that task's own, as in `mtljax.value_and_grad`; for a method whose state is like
            the shared parameters give `Params` where there is one. Arrays `[T]` are in the order of names.

    Returns:
        `(init, step)`. `init(key, inputs) -> TrainState` draws a first state of the model that `losses_fn` is of (its
        attribute `model`); `inputs` are those of a batch. `init(params, model_state=(), *, key) -> TrainState` starts
        from parameters at hand, and copies what it is given, so that a step which donates its state leaves the caller's
        arrays alone. `step(state, batch) -> (state, metrics)`; a method that reads more than one batch
        (`methods.auto_lambda`) takes a tuple of batches, of which the first moves the network's state and is what the
        metrics tell of. Metrics are

        * `losses`, `weights`: `mtljax.ByTask`, float32 by task, averaged over devices;
        * `active`: `ByTask` of bool. False for a task that does not take part: one without labels; one whose loss
            or gradient, or the square of it, is not finite (it would stay in an optimizer for ever); one whose loss is
            below `Method.least_loss`;
        * `nonfinite`: `ByTask` of int32, the number of steps without the task for such a loss or gradient, this
            step included;
        * `below`: `ByTask` of bool, whether its loss is below; where the method has a `least_loss`;
        * `residual`: the method's certificate;
        * `penalty`: its value, where there is one; and `penalty_nonfinite`: bool, whether that is not finite or its
          gradient holds entries that are not, which count as 0;
        * `cosines` `[T, T]` and `grad_norms` by task: where a Gramian was built, which makes them free;
        * `tasks`: dict by entry of its metrics; those of a bank are each a `ByTask`.

        A bank of n tasks (`sharing.Bank`) counts as n of the T tasks. Losses of your own may hold an array `[n]` for
        an entry whose parameters are `[n, *p]`, with the names in an attribute `losses_fn.banks`, a dict by entry.

    Raises:
        ValueError, TypeError: from step, at trace time, whatever `mtljax.value_and_grad` raises; an axis that is not
            mapped, or mapped devices without `axis_name`; a model with a penalty that a wrapper of its losses has lost.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> import mtljax
        >>> def losses_fn(params, state, batch, key, train):
        ...     return {k: jnp.sum((params.shared - params.tasks[k]) ** 2) for k in "ab"}, mtljax.Aux(state)
        >>> params = mtljax.Params(jnp.zeros(1), {"a": jnp.ones(1), "b": -jnp.ones(1)})
        >>> init, step = mtljax.training.make_train_step(losses_fn, mtljax.methods.equal(), optax.sgd(0.1))
        >>> state, metrics = step(init(params, key=jax.random.key(0)), None)
        >>> int(state.step), float(metrics["losses"]["a"])
        (1, 1.0)
    """
    check_callable("make_train_step", "losses_fn", losses_fn)
    check_method("make_train_step", "method", method)
    check_optimizer("make_train_step", "optimizer", optimizer)
    if penalty is not None:
        check_callable("make_train_step", "penalty", penalty)
    check_engine("make_train_step", engine)
    check_axis_name("make_train_step", axis_name)
    if names is not None:
        check_names("make_train_step", "names", names)
    given, axis_name = axis_name, axis_name or None
    axis_names = () if axis_name is None else (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    banks = attribute(losses_fn, "banks") or {}
    own = attribute(losses_fn, "penalty")
    if own is not None:
        check_callable("make_train_step", "the attribute 'penalty' of losses_fn", own)
    penalties = [each for each in (own, None if penalty is own else penalty) if each is not None]

    def init(params: Any, model_state: PyTree = (), *, key: Any = None) -> TrainState:
        if key is None and not isinstance(params, Params):
            key, model_key = jax.random.split(check_key("init", "key", params))
            params, model_state = _model(losses_fn).init(model_key, model_state)
        if names is None:
            told = "mtljax.Params, or any pytree where make_train_step is given names="
            expect(isinstance(params, Params), "init", "params", told, params, TypeError)
            check_params("init", params)
        else:
            one = not has_tasks(params)
            expect(one, "make_train_step", "names", "None where parameters are mtljax.Params", names, ValueError)
            paths_of("init", params)
        key = check_key("init", "key", key)
        count, shared = (_num_tasks(params.tasks, banks), params.shared) if names is None else (len(names), params)
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            model_state=model_state,
            opt_state=optimizer.init(params),
            method_state=method.init(count, shared),
            key=key,
            nonfinite=jnp.zeros(count, jnp.int32),
        )
        # The optimizer's state too: some optimizers keep the parameters in it, and no buffer may be donated twice. With
        # a dtype, since a weak type, which no step gives back, would have the second step compiled anew.
        return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf)), state)

    def step(state: TrainState, batch: Batch | dict[str, Batch]) -> tuple[TrainState, dict[str, Any]]:
        expect(isinstance(state, TrainState), "step", "state", "a TrainState, as init makes it", state, TypeError)
        check_alone("make_train_step", given)
        _check_bound(axis_names)
        step_key = jax.random.fold_in(state.key, state.step)
        model_key, method_key = jax.random.split(step_key)
        if axis_name is not None:
            # Dropout differs between devices; the method draws the same numbers on all devices.
            model_key = jax.random.fold_in(model_key, lax.axis_index(axis_name))

        def train_losses(params: Params, model_state: PyTree, batch: Any, key: Key) -> Any:
            found = losses_fn(params, model_state, batch, key, True)
            pair = isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Aux)
            expected = "a function that returns (losses, mtljax.Aux(state))"
            expect(pair, "make_train_step", "losses_fn", expected, found, TypeError)
            return found

        batches = _batches_of(method, batch)
        # The first batch has the step's key, each other batch a key of its own.
        keys = [model_key, *(jax.random.fold_in(model_key, k) for k in range(1, len(batches)))]
        each = [(state.model_state, *pair) for pair in zip(batches, keys, strict=True)]
        args = each[0]
        if names is None:
            check_params("make_train_step", state.params)
        part = parted("make_train_step", train_losses, state.params, args, has_aux=True, names=names)
        check_memory("make_train_step", method, state.method_state, state.params, part)
        params = part.split(state.params)
        found = differentiate(
            part.losses_fn,
            method,
            params,
            state.method_state,
            tuple(each),
            has_aux=True,
            engine=engine,
            key=method_key,
            axis_name=axis_name,
            squared=True,
        )
        aux: Aux = found.aux
        if aux.penalty is not None and not penalties:
            raise ValueError(
                "make_train_step: the model has a penalty, but losses_fn has lost its attribute 'penalty'; wrap the "
                "model's losses with functools.wraps, or give penalty=model.penalty"
            )
        total = penalized([functools.partial(_joined, part.join, each) for each in penalties], params, found.entries)
        grads = part.join(found.grads if total is None else with_slope(found.grads, total.slope))
        moves = moving(params, found.entries, found.active, None if total is None else total.reach)
        moves = moves if part.layout is None else at_paths(part.layout, state.params, moves)
        offered = objective(part, method, found, args, total, axis_name)
        if has_prox(state.opt_state):
            offered["before_prox"] = functools.partial(held, moves)
        updates, opt_state = update_with(optimizer, grads, state.opt_state, state.params, offered)
        opt_state = scalars_held(found.active.any(), opt_state, state.opt_state)
        if can_hold(state.opt_state):
            opt_state = held(moves, opt_state, state.opt_state)
            updates = updates if has_prox(state.opt_state) else held(moves, updates)
        moved: Any = optax.apply_updates(state.params, updates)
        method_state = found.method_state
        if method.observe is not None:
            after = losses_fn(moved, *args, True)[0]
            losses = over_devices(in_order(after, part.names).astype(jnp.float32), found.share, axis_name)
            method_state = method.observe(losses, method_state)
        new = TrainState(
            step=state.step + 1,
            params=moved,
            model_state=mean_over_devices(aux.state, state.model_state, axis_name, found.entries.banks),
            opt_state=opt_state,
            method_state=method_state,
            key=state.key,
            nonfinite=state.nonfinite + found.nonfinite,
        )
        told = names_of(part.names, _known(banks, found.entries))
        return new, report(told, found, new, aux, total, axis_name, method.least_loss)

    step.__dict__.update(axis_names=axis_names)
    return init, step


def _model(losses_fn: Callable[..., Any]) -> Model:
    model = attribute(losses_fn, "model")
    if not isinstance(model, Model):
        raise ValueError(
            "init: losses_fn must be of a model, as mtljax.make_losses_fn makes it, where init(key, inputs) is to draw "
            "the parameters; of other losses give init(params, model_state, key=key)"
        )
    return model


def _joined(join: Callable[[Params], PyTree], penalty: Callable[[Any], Array], params: Params) -> Array:
    return penalty(join(params))


def _batches_of(method: Method, batch: Any) -> tuple[Any, ...]:
    """The batches of a step: one, or a tuple of as many as the method reads."""
    if method.num_batches == 1:
        return (batch,)
    expected = f"a tuple of {method.num_batches} batches, as many as {method.name} reads"
    expect(type(batch) is tuple and len(batch) == method.num_batches, "step", "batch", expected, batch, ValueError)
    return batch


def _check_bound(axis_names: tuple[str, ...]) -> None:
    for name in axis_names:
        try:
            lax.axis_size(name)
        except NameError:
            raise ValueError(
                f"make_train_step: axis_name must be a mapped axis, found {name!r}, which is not mapped here: run the "
                f"step with training.pmap(step, axis_name={name!r}) or in jax.shard_map; for training.jit and "
                "training.sharded make it without axis_name"
            ) from None


def _num_tasks(tasks: Mapping[str, Any], banks: Mapping[str, Sequence[str]]) -> int:
    """T: an entry that is a bank counts as many tasks as it has."""
    return sum(len(banks[name]) if name in banks else 1 for name in tasks)


def _known(banks: Mapping[str, Sequence[str]], entries: Entries) -> dict[str, tuple[str, ...]]:
    """The names of each bank's tasks; numbers where nobody gave names."""
    found = {}
    for name, size in zip(entries.names, entries.sizes, strict=True):
        if size is not None:
            numbers = tuple(f"{name}/{k}" for k in range(size))
            found[name] = tuple(banks.get(name, numbers))
            fits = len(found[name]) == size
            expect(
                fits, "make_train_step", f"losses_fn.banks[{name!r}]", f"{size} names", list(found[name]), ValueError
            )
    return found
