"""Training in stages, which may change tasks, method and optimizer and carry the parameters over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtljax.checks import check_callable, check_count, check_flag, check_key, check_method, check_optimizer, found
from mtljax.sharing.surgery.edit import carry_over, matched
from mtljax.training import checkpoint as checkpoints
from mtljax.training.loop import FitResult, fit
from mtljax.training.parallel import jit
from mtljax.training.step import Step, make_train_step
from mtljax.types import Array, Key, Method, Model, Params, PyTree, TrainState

Start = Callable[..., TrainState]

FIT_OPTIONS = ("eval_every", "log_every", "log_tasks", "checkpoint_every", "keep", "config", "changed", "progress")
"""Options of `fit` that are the same for all stages."""


class Stage(NamedTuple):
    """One stage of a training run: a run of `fit` from step 0, starting from the parameters of the stage before.

    Attributes:
        name: name of the stage and of its folder; all stages have different names.
        model: the model to train. Parameters with the same path in the stage before are carried over; other parameters
            are new. So stages may have different heads on the same trunk.
        losses_fn: losses of the model's tasks, as for `make_train_step`.
        method: how tasks are reconciled; its state is always new.
        optimizer: over `Params`.
        batches: `batches(start) -> iterable`, with steps counted from the start of the stage.
        num_steps: number of steps of this stage, at least 1.
        penalty: as for `make_train_step`, besides the model's own penalty.
        evaluate: as for `fit`.
        keep_optimizer: whether the optimizer's state is carried over too, by path (see `mtljax.sharing.carry_over`).
            The optimizer must then have the same form as that of the stage before.
    """

    name: str
    model: Model
    losses_fn: Callable[..., Any]
    method: Method
    optimizer: optax.GradientTransformation
    batches: Callable[[int], Iterable[Any]]
    num_steps: int
    penalty: Callable[[Params], Array] | None = None
    evaluate: Callable[[TrainState], Any] | None = None
    keep_optimizer: bool = False


def stage_functions(stage: Stage, inputs: PyTree, *, banks: Mapping[str, Sequence[str]] = {}) -> tuple[Start, Step]:
    """The two pure functions of a stage, `start` and `step`; both are not jitted.

    Args:
        stage: the stage.
        inputs: for `model.init`, `[B, ...]`.
        banks: `model.banks` of the stage before, where it has any; rows of a bank are carried over by the tasks' names.

    Returns:
        `(start, step)`. `start(key, previous=None) -> TrainState` at step 0. Parameters and the model's state are those
        of the previous state at paths that both have, else those of `model.init`. The optimizer's state is new, or
        carried over with `keep_optimizer`. The method's state, the count of losses that were not finite and the key are
        new. Carried arrays are copies, so a step that donates its state does not consume the previous state.
        `step(state, batch)` is that of `make_train_step`.

    Raises:
        ValueError: (by start) an array of another shape or dtype in the previous state; parameters, or with
            `keep_optimizer` states of the optimizer, without a common path.

    Example:
        >>> import mtljax
        >>> scale = mtljax.sharing.Network(lambda key, x: (jnp.ones(()), ()), lambda w, s, x, **_: (x * w, s))
        >>> def stage(name):
        ...     model = mtljax.sharing.hard(scale, {name: scale})
        ...     losses_fn = mtljax.make_losses_fn(model, {name: mtljax.Task(mtljax.losses.squared_error)})
        ...     return Stage(name, model, losses_fn, mtljax.methods.equal(), optax.sgd(0.1), None, 1)
        >>> (first, _), (second, _) = (stage_functions(stage(name), jnp.ones(1)) for name in ("pretext", "label"))
        >>> state = first(jax.random.key(0))
        >>> state = second(jax.random.key(1), state._replace(params=jax.tree.map(lambda p: p + 1, state.params)))
        >>> float(state.params.shared), float(state.params.tasks["label"])
        (2.0, 1.0)
    """
    init, step = make_train_step(stage.losses_fn, stage.method, stage.optimizer, penalty=stage.penalty)

    def start(key: Key, previous: TrainState | None = None) -> TrainState:
        init_key, run_key = jax.random.split(key)
        params, model_state = stage.model.init(init_key, inputs)
        if previous is None:
            return init(params, model_state, key=run_key)
        pair = stage.model.banks, banks
        params = carry_over(params, previous.params, banks=pair)
        # Unlike parameters, model states may have no common path: if only heads have a state, and all heads are new.
        model_state = matched("stage_functions", model_state, previous.model_state, pair).tree
        state = init(params, model_state, key=run_key)
        if stage.keep_optimizer:
            carried = carry_over(state.opt_state, previous.opt_state, banks=pair)
            # A copy, as init makes of the rest: a step that donates its state does not consume the previous state.
            state = state._replace(opt_state=jax.tree.map(jnp.copy, carried))
        return state

    return start, step


def run_stages(
    stages: Sequence[Stage],
    inputs: PyTree,
    *,
    key: Key,
    directory: str | os.PathLike[str] | None = None,
    wrap: Callable[[Start, Step], tuple[Start, Step]] | None = None,
    **options: Any,
) -> dict[str, FitResult]:
    """Run stages in order; continue at the stage and the step where an earlier process stopped.

    Stage i draws from `fold_in(key, i)`. With a `directory`, it has the folder `<i>_<name>` there, with `checkpoints/`
    and `log.jsonl`. A complete stage is not run again: its last checkpoint is read, and the next stage starts from it.
    A resumed run equals a run without a break to the bit, under the conditions of `fit`.

    Args:
        stages: in order.
        inputs: for `model.init`, `[B, ...]`; shared inputs, even if batches have `TaskInputs`.
        key: typed PRNG key.
        directory: folder for checkpoints and logs; None (default) writes none.
        wrap: `(start, step) -> (start, step)`, which compiles them, or maps both over seeds; by default `training.jit`
            compiles the step.
        **options: for `fit`: `eval_every`, `log_every`, `log_tasks`, `checkpoint_every`, `keep`, `config`, `changed`,
            `progress`.

    Returns:
        `FitResult` by stage, in order. The result of the last stage is that of the run.

    Raises:
        TypeError: other options of `fit`: a log or a folder of checkpoints cannot serve several stages.
        ValueError: no stages; names that are empty, repeated or not valid as folders; numbers of steps that are not
            positive integers; these are raised before the first step. A stage that is not complete although a later one
            has begun, because a folder was removed or `num_steps` was increased; errors of `fit` and `stage_functions`.

    Example:
        >>> import mtljax
        >>> scale = mtljax.sharing.Network(lambda key, x: (jnp.ones(()), ()), lambda w, s, x, **_: (x * w, s))
        >>> def stage(name):
        ...     model = mtljax.sharing.hard(scale, {name: scale})
        ...     tasks = {name: mtljax.Task(mtljax.losses.squared_error)}
        ...     batch = mtljax.Batch(jnp.ones(2), {name: jnp.zeros(2)})
        ...     losses_fn, method = mtljax.make_losses_fn(model, tasks), mtljax.methods.equal()
        ...     return Stage(name, model, losses_fn, method, optax.sgd(0.1), lambda start: iter([batch] * 3), 3)
        >>> results = run_stages([stage("pretext"), stage("label")], jnp.ones(2), key=jax.random.key(0), progress=False)
        >>> [(name, int(result.state.step)) for name, result in results.items()]
        [('pretext', 3), ('label', 3)]
    """
    for stage in stages:
        check_stage("run_stages", "stages", stage)
    names = [stage.name for stage in stages]
    if not names:
        raise ValueError("run_stages: stages must be at least one, found none")
    if len(set(names)) < len(names) or not all(name and Path(name).name == name for name in names):
        raise ValueError(f"run_stages: names must be different names of folders, found {names}")
    check_key("run_stages", "key", key)
    if directory is not None and not isinstance(directory, str | os.PathLike):
        raise TypeError(f"run_stages: directory must be the path of a folder, found {found(directory)}")
    if directory is not None and not os.fspath(directory):
        raise ValueError("run_stages: directory must be the path of a folder, found ''")
    unknown = sorted(set(options) - set(FIT_OPTIONS))
    if unknown:
        raise TypeError(f"run_stages: options for fit are {list(FIT_OPTIONS)}, found '{unknown[0]}'")
    folders = [None if directory is None else Path(directory) / f"{i}_{name}" for i, name in enumerate(names)]
    results: dict[str, FitResult] = {}
    state = None
    for index, (stage, folder) in enumerate(zip(stages, folders, strict=True)):
        start, step = stage_functions(stage, inputs, banks=stages[index - 1].model.banks if index else {})
        start, step = (start, jit(step)) if wrap is None else wrap(start, step)
        own = jax.random.fold_in(key, index)
        state = start(own) if state is None else start(own, state)
        files: dict[str, Any] = {}
        if folder is not None:
            files = {"checkpoint_dir": folder / "checkpoints", "log": folder / "log.jsonl"}
            _check_complete(stage, folder, [each for each in folders[index + 1 :] if each is not None])
        results[stage.name] = fit(
            step, state, stage.batches, num_steps=stage.num_steps, evaluate=stage.evaluate, **files, **options
        )
        state = results[stage.name].state
    return results


def check_stage(where: str, what: str, stage: Any) -> Stage:
    """The stage, after checking its type and its fields."""
    if not isinstance(stage, Stage):
        raise TypeError(f"{where}: {what} must be a mtljax.training.Stage, found {found(stage)}")
    if not isinstance(stage.name, str):
        raise TypeError(f"{where}: names must be different names of folders, found {found(stage.name)}")
    of = f"of stage '{stage.name}'"
    if not isinstance(stage.model, Model):
        raise TypeError(f"{where}: model {of} must be a mtljax.Model, found {found(stage.model)}")
    check_callable(where, f"losses_fn {of}", stage.losses_fn)
    check_method(where, f"method {of}", stage.method)
    check_optimizer(where, f"optimizer {of}", stage.optimizer)
    check_callable(where, f"batches {of}", stage.batches, expected="a function of the step")
    check_count(where, f"num_steps {of}", stage.num_steps)
    for name, function in (("penalty", stage.penalty), ("evaluate", stage.evaluate)):
        if function is not None:
            check_callable(where, f"{name} {of}", function)
    check_flag(where, f"keep_optimizer {of}", stage.keep_optimizer)
    return stage


def _check_complete(stage: Stage, folder: Path, later: Sequence[Path]) -> None:
    """Raise if a later stage has begun although this stage is not complete."""
    begun = [each.name for each in later if each.exists()]
    if not begun:
        return
    reached = max(checkpoints.steps(folder / "checkpoints"), default=None)
    if reached != stage.num_steps:
        raise ValueError(
            f"run_stages: stage '{stage.name}' has {stage.num_steps} steps, and its newest checkpoint in {folder} is "
            f"of step {reached}, but stage {begun[0]} has begun; remove the folder of {begun[0]} to start it again"
        )
