"""Recipes for auxiliary tasks, as lists of stages and as masks that depend on the step.

Joint training from the start needs no recipe: give `mtljax.make_losses_fn` all tasks, each with its `Task.prior`, and
wrap it in `mtljax.data.views.with_views`.

`run_stages` runs lists of stages (`pretrain_then_finetune`, `add_task_later`); each stage computes only what it trains.
Masks (`alternate`, `begin_at`, used by `scheduled`) keep one model, one state and one trace: every step computes all
tasks, and the mask makes some of them inactive.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtljax.checks import check_callable, check_count, check_names, found
from mtljax.losses.masked import product
from mtljax.sharing.surgery.freeze import HELD, TRAINED, freeze, part_labels
from mtljax.training.stages import Stage, check_stage
from mtljax.training.step import Step
from mtljax.types import Array, Batch, TrainState

Schedule = Callable[[Array], dict[str, Array]]
"""`schedule(step int32 []) -> bool [] by task`: whether a task is active. Tasks that it leaves out are active."""


def pretrain_then_finetune(pretrain: Stage, finetune: Stage, *, probe_steps: int = 0) -> tuple[Stage, ...]:
    """Pretrain on self-supervised tasks, then fine-tune on the main tasks; optionally train only new heads in between.

    The trunk, and the heads of tasks in both stages, are carried over. Other heads of the first stage are dropped. With
    `probe_steps`, the new heads are first trained on the frozen trunk, so that their random values do not distort it.
    Kumar, Raghunathan, Jones, Ma and Liang, "Fine-tuning can distort pretrained features and underperform
    out-of-distribution", ICLR 2022.

    Args:
        pretrain: stage of the self-supervised tasks.
        finetune: stage of the main tasks, and of self-supervised tasks that continue beside them.
        probe_steps: number of steps with `params.shared` frozen, before the `num_steps` of the fine-tuning. They use
            the same optimizer, whose state and schedule start again after them. Batch statistics of the trunk are not
            parameters, and keep changing.

    Returns:
        Stages for `run_stages`: two, or three with `"probe"` between them.

    Raises:
        TypeError: `probe_steps` that is not an integer.
        ValueError: `probe_steps` is negative, or is given with `finetune.keep_optimizer`.

    Example:
        >>> import mtljax
        >>> rest = (mtljax.Model(None, None), len, mtljax.methods.equal(), optax.sgd(0.1), iter, 100)
        >>> make = lambda name: Stage(name, *rest)
        >>> stages = pretrain_then_finetune(make("pretrain"), make("finetune"), probe_steps=20)
        >>> [(stage.name, stage.num_steps) for stage in stages]
        [('pretrain', 100), ('probe', 20), ('finetune', 100)]
    """
    check_stage("pretrain_then_finetune", "pretrain", pretrain)
    check_stage("pretrain_then_finetune", "finetune", finetune)
    probe = finetune._replace(name="probe", optimizer=freeze(finetune.optimizer, "shared"))
    return _with_middle("pretrain_then_finetune", "probe_steps", pretrain, probe, probe_steps, finetune)


def add_task_later(before: Stage, after: Stage, *, task: str, alone_steps: int = 0) -> tuple[Stage, ...]:
    """Train without a task first, then with it; optionally train only the new task's own parameters in between.

    Everything in the first model is carried over to the bit. During `alone_steps` only `params.tasks[task]` changes,
    and batch statistics, which are not parameters. To make the state of such a model yourself, see
    `mtljax.sharing.add_task`. If the task is in the model from the start, but inactive at first, use `begin_at`.

    Args:
        before: stage without the task.
        after: stage with the task.
        task: name of the task.
        alone_steps: number of steps that train only the new task's parameters, before the `num_steps` of `after`. They
            use the same optimizer, whose state and schedule start again after them.

    Returns:
        Stages for `run_stages`: two, or three with `"alone"` between them.

    Raises:
        TypeError: `alone_steps` that is not an integer.
        ValueError: `alone_steps` is negative, or is given with `after.keep_optimizer`; when the stage runs, a model
            without parameters of the task.

    Example:
        >>> import mtljax
        >>> rest = (mtljax.Model(None, None), len, mtljax.methods.equal(), optax.sgd(0.1), iter, 100)
        >>> make = lambda name: Stage(name, *rest)
        >>> [stage.name for stage in add_task_later(make("before"), make("after"), task="edges", alone_steps=5)]
        ['before', 'alone', 'after']
    """
    check_stage("add_task_later", "before", before)
    check_stage("add_task_later", "after", after)
    check_names("add_task_later", "task", [task])
    labels = part_labels((("tasks", task), TRAINED), default=HELD)
    optimizer = optax.partition({TRAINED: after.optimizer, HELD: optax.set_to_zero()}, labels)
    alone = after._replace(name="alone", optimizer=optimizer)
    return _with_middle("add_task_later", "alone_steps", before, alone, alone_steps, after)


def alternate(*phases: tuple[Sequence[str], int]) -> Schedule:
    """Groups of tasks take turns: each is active for its number of steps, in a cycle.

    With phases of n_1, ..., n_m steps, phase j is on if `n_1 + ... + n_(j-1) <= step mod sum n < n_1 + ... + n_j`. A
    task is active in all phases that name it.

    Args:
        *phases: pairs of task names and a positive number of steps; at least two.

    Returns:
        Schedule, for `scheduled`.

    Raises:
        TypeError: names that are one string, or a number of steps that is not an integer.
        ValueError: fewer than two phases, or a phase without steps or without tasks.

    Example:
        >>> schedule = alternate((("jigsaw", "fill"), 2), (("label",), 1))
        >>> [[bool(schedule(jnp.int32(s))[k]) for s in range(4)] for k in ("fill", "label")]
        [[True, True, False, True], [False, False, True, False]]
    """
    if len(phases) < 2:
        raise ValueError(f"alternate: phases must be two or more pairs (names, steps), found {len(phases)}")
    for phase in phases:
        if not isinstance(phase, list | tuple) or len(phase) != 2:
            raise TypeError(f"alternate: phases must be pairs (names, steps), found {found(phase)}")
    groups = [check_names("alternate", "names of a phase", names) for names, _ in phases]
    lengths = [check_count("alternate", "steps of a phase", steps) for _, steps in phases]
    phase_at = np.repeat(np.arange(len(phases)), lengths)
    tables = {
        name: np.array([name in group for group in groups])[phase_at]
        for name in sorted({name for group in groups for name in group})
    }

    def schedule(step: Array) -> dict[str, Array]:
        return {name: jnp.asarray(table)[step % len(phase_at)] for name, table in tables.items()}

    return schedule


def begin_at(starts: Mapping[str, int]) -> Schedule:
    """Tasks that join later: task k is active where `step >= starts[k]`.

    Args:
        starts: first step by task, from 0.

    Returns:
        Schedule, for `scheduled`.

    Raises:
        ValueError: no tasks, or a negative step.
        TypeError: a step that is not an integer, or `starts` that is not a dict.

    Example:
        >>> [bool(begin_at({"edges": 2})(jnp.int32(s))["edges"]) for s in range(3)]
        [False, False, True]
    """
    if not isinstance(starts, Mapping):
        raise TypeError(f"begin_at: starts must be first steps by task, found {found(starts)}")
    starts = {name: check_count("begin_at", f"the start of {name!r}", step, least=0) for name, step in starts.items()}
    if not starts:
        raise ValueError("begin_at: starts must be of at least one task, found none")
    return lambda step: {name: step >= first for name, first in starts.items()}


def scheduled(step: Step, schedule: Schedule) -> Step:
    """A step in which a schedule makes some tasks inactive: their masks are False, or 0, for every example.

    A task without labels is inactive: it gives no gradient, and the other tasks train as if it were absent. Its own
    parameters do not change (see `make_train_step`). Its losses are still computed. To combine several schedules, wrap
    the step several times.

    Args:
        step: from `make_train_step`, not jitted.
        schedule: from `alternate`, `begin_at`, or any pure function of the step. It may name tasks of views, which are
            not in the batch.

    Returns:
        Step of the same signature, whose schedule reads `state.step`; one trace serves all steps.

    Raises:
        ValueError: (by the step) a task that is not in a multi-input batch, or that is neither in the batch nor a view.

    Example:
        >>> from mtljax.types import MethodState, Params
        >>> seen = scheduled(lambda state, batch: (state, batch.mask["edges"]), begin_at({"edges": 2}))
        >>> state = TrainState(jnp.int32(0), Params((), {}), (), (), MethodState((), ()), None)
        >>> seen(state, Batch(jnp.zeros(2), {"edges": jnp.zeros(2)}))[1].tolist()
        [False, False]
    """
    check_callable("scheduled", "step", step)
    check_callable("scheduled", "schedule", schedule)

    @functools.wraps(step)
    def run(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Any]]:
        active = schedule(state.step)
        if isinstance(batch, Batch):
            return step(state, _masked(batch, active))
        for name in active:
            if name not in batch:
                raise ValueError(f"scheduled: batch must have an entry for task '{name}', found {sorted(batch)}")
        return step(state, {**batch, **{name: _masked(batch[name], {name: on}) for name, on in active.items()}})

    return run


def _masked(batch: Batch, active: dict[str, Array]) -> Batch:
    size = jax.tree.leaves(batch.inputs)[0].shape[0]
    every = jnp.ones(size, bool)
    masks = {name: product(batch.mask.get(name, every), every & on) for name, on in active.items()}
    return batch._replace(mask={**batch.mask, **masks})


def _with_middle(name: str, argument: str, first: Stage, middle: Stage, steps: int, last: Stage) -> tuple[Stage, ...]:
    check_count(name, argument, steps, least=0)
    if steps and last.keep_optimizer:
        raise ValueError(
            f"{name}: keep_optimizer of stage '{last.name}' must be False with {argument}, since the state of the "
            "optimizer has another form in the stage before, found True"
        )
    return (first, middle._replace(num_steps=steps), last) if steps else (first, last)
