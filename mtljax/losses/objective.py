"""The loss function of a model on its tasks, the first function of a step: judge."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import DictKey

from mtljax.banks import Entries
from mtljax.checks import check_names, check_task, check_weights, expect
from mtljax.losses.judged import Judged, judge
from mtljax.types import Array, Aux, Batch, Key, Model, Params, PyTree, Task

TAKEN = {"loss", "regularization"}

LossesFn = Callable[..., tuple[dict[str, Array], Aux]]


def make_losses_fn(model: Model, tasks: Mapping[str, Task]) -> LossesFn:
    """The loss function of a model on its tasks, for training steps.

    `L_k = sum_e w_ke l_ke / sum_e w_ke` over the elements e that task k's loss returns: examples, pixels, tokens or
    labels of the batch. The weights w are the task's mask times those that the loss returns, if it returns any.

    A `Batch` runs the model once for all tasks. A dict of `Batch` by task name (multi-input) runs each task on its own
    inputs, in sorted order of names, and passes the model's state from one task to the next. A task without labels,
    whose weights sum to 0, does not change the state, so an absent task has no effect on batch statistics.

    With a plain `Batch`, all examples count in the state of the trunk, labelled or not. The state of a task without
    labels, which is the leaves whose path holds the task's name, does not change. If no task has labels, no state
    changes.

    A bank of n tasks (`sharing.Bank`) is one entry of all dicts: its loss function is written for one task and mapped,
    its outputs, targets and masks are `[B, n, ...]` (a mask may be `[B]`, for all of them), its prior a number or
    `[n]`, its loss and its metrics `[n]`. With `Batch.task`, each example is of one task of the bank: outputs, targets
    and mask are `[B, ...]`, and each task's loss is the mean over its own examples.

    Args:
        model: the network.
        tasks: `Task` by name; the names of `params.tasks`.

    Returns:
        `f(params, state, batch, key=None, train=False) -> (losses, mtljax.Aux)`:

        * `losses`: dict of float32 scalars by task; 0 for a task without labels.
        * `aux.state`: the model's new state.
        * `aux.weight_sum`: float32 `[T]`, sums of weights; a task with 0 is inactive.
        * `aux.prior`: float32 `[T]`, each task's `prior`; None if all are 1.
        * `aux.metrics`: dict by task of dicts by metric of scalars, means over their own elements. If the model's
          output is `Regularized`, the entry `"regularization"` is its term, which is part of the loss.
        * `aux.metric_weight_sum`: likewise, the sums of weights of these means.
        * `aux.penalty`: float32 `[]`, the value of `model.penalty`; None if the model has no penalty.

        The losses do not contain the penalty: `training.make_train_step` adds it. `f` has the attributes `model`,
        `tasks` (their names) and `penalty` (`model.penalty`, a function of `Params`, or None). A wrapper of f keeps the
        attributes with `functools.wraps(f)`; `jax.jit`, `jax.checkpoint`, `functools.partial` and
        `data.views.with_views` keep them too.

    Raises:
        ValueError: no tasks, a prior that is not positive, a metric named "loss" or "regularization"; from f, at trace
            time, a batch without a task's target or own batch, a target or mask of an unknown task, a mask of another
            shape than the first axes of the elements, a concrete weight that is negative or not finite, outputs that
            miss a task, a loss that does not return a value for each example.
        TypeError: from f, a mask that is neither bool nor floating, a batch that is not a `Batch`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> model = mtljax.Model(
        ...     init=lambda key, inputs: (mtljax.Params(jnp.ones(1), {"a": ()}), ()),
        ...     apply=lambda params, state, x, *, tasks=None, key=None, train=False: ({"a": x @ params.shared}, state),
        ... )
        >>> f = mtljax.make_losses_fn(model, {"a": mtljax.Task(mtljax.losses.squared_error)})
        >>> params, state = model.init(jax.random.key(0), None)
        >>> batch = mtljax.Batch(jnp.ones((2, 1)), {"a": jnp.array([3.0, 9.0])}, {"a": jnp.array([True, False])})
        >>> losses, aux = f(params, state, batch)
        >>> float(losses["a"]), aux.weight_sum.tolist()
        (4.0, [1.0])
    """
    expect(isinstance(model, Model), "make_losses_fn", "model", "a mtljax.Model", model, TypeError)
    expect(isinstance(tasks, Mapping), "make_losses_fn", "tasks", "a dict of mtljax.Task by name", tasks, TypeError)
    names = check_names("make_losses_fn", "tasks", sorted(tasks, key=str))
    tasks = dict(tasks)
    for name in names:
        check_task("make_losses_fn", name, tasks[name])
        taken = sorted(TAKEN & set(tasks[name].metrics))
        if taken:
            raise ValueError(
                f"make_losses_fn: metrics of task '{name}' must have other names than {sorted(TAKEN)}, which are "
                f"reserved, found '{taken[0]}'"
            )
    banks = {name: tuple(model.banks[name]) for name in names if name in model.banks}
    entries = Entries(tuple(names), tuple(len(banks[name]) if name in banks else None for name in names))
    priors = [_prior_of(name, tasks[name], size) for name, size in zip(entries.names, entries.sizes, strict=True)]
    alike = all(not isinstance(prior, Tracer) and bool(np.all(np.asarray(prior) == 1)) for prior in priors)

    def f(
        params: Params,
        state: PyTree,
        batch: Batch | dict[str, Batch],
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Array], Aux]:
        judged: dict[str, Judged] = {}
        for index, (own, each) in enumerate(_passes(batch, names)):
            if isinstance(batch, Batch):
                outputs, moved = model.apply(params, state, each.inputs, key=key, train=train, **_task_of(each))
            else:
                own_key = None if key is None else jax.random.fold_in(key, index)
                outputs, moved = model.apply(
                    params, state, each.inputs, tasks=tuple(own), key=own_key, train=train, **_task_of(each)
                )
            _check_outputs(outputs, own)
            judged |= {name: judge(name, tasks[name], outputs[name], each, banks.get(name)) for name in own}
            state = _moved_by({name: judged[name] for name in own}, moved, state)
        # From this value a step knows that the model has a penalty, even if a wrapper has lost the attribute.
        penalty = None if model.penalty is None else model.penalty(jax.lax.stop_gradient(params))
        prior = None if alike else entries.joined([jnp.asarray(prior, jnp.float32) for prior in priors])
        return {name: judged[name].loss for name in names}, Aux(
            state,
            entries.joined([judged[name].weight_sum.astype(jnp.float32) for name in names]),
            prior,
            metrics={name: judged[name].metrics for name in names},
            penalty=penalty,
            metric_weight_sum={name: judged[name].metric_weight_sum for name in names},
        )

    f.__dict__.update(model=model, penalty=model.penalty, tasks=tuple(names), banks=banks)
    return f


def attribute(function: Callable[..., Any], name: str) -> Any:
    """An attribute of a function, or of the function that it wraps by `jax.jit`, `functools.wraps` or `partial`.

    Returns:
        The attribute; None if there is none.

    Example:
        >>> def f(x):
        ...     return x
        >>> f.penalty = "a penalty"
        >>> attribute(functools.partial(jax.jit(functools.partial(f))), "penalty")
        'a penalty'
    """
    found: Any = function
    while found is not None and not hasattr(found, name):
        found = found.func if isinstance(found, functools.partial) else getattr(found, "__wrapped__", None)
    return getattr(found, name, None)


def _prior_of(name: str, task: Task, size: int | None) -> Any:
    """A task's prior, or `[n]` of a bank."""
    shape = jnp.shape(task.prior)
    if shape not in {(), (size,)}:
        expected = "a number" if size is None else f"a number or [{size}], one for each task of the bank"
        raise ValueError(f"make_losses_fn: the prior of task '{name}' must be {expected}, found shape {list(shape)}")
    return task.prior if size is None else jnp.broadcast_to(jnp.asarray(task.prior), (size,))


def _moved_by(judged: dict[str, Judged], moved: PyTree, state: PyTree) -> PyTree:
    """The state after a forward pass for some tasks, without changes by tasks that have no label.

    A leaf whose path holds a task's name belongs to that task; other leaves belong to all tasks of the pass.
    """
    if all(each.all_one for each in judged.values()):
        return moved
    labeled = {name: each.weight_sum > 0 for name, each in judged.items()}
    anyone = functools.reduce(jnp.logical_or, [each.any() for each in labeled.values()])

    def leaf(path: tuple[Any, ...], new: Any, old: Any) -> Any:
        owners = [labeled[key.key] for key in path if isinstance(key, DictKey) and key.key in labeled]
        keep = owners[-1] if owners else anyone
        return jnp.where(keep.reshape(keep.shape + (1,) * (jnp.ndim(new) - keep.ndim)), new, old)

    return jax.tree_util.tree_map_with_path(leaf, moved, state)


def _task_of(batch: Batch) -> dict[str, Any]:
    return {"task": batch.task} if batch.task else {}


def _passes(batch: Batch | dict[str, Batch], names: list[str]) -> list[tuple[list[str], Batch]]:
    """The forward passes of a batch: one for all tasks, or one for each task on its own batch."""
    if isinstance(batch, Batch):
        _check_batch(batch, names, "the batch")
        return [(names, batch)]
    if not isinstance(batch, dict) or not all(isinstance(each, Batch) for each in batch.values()):
        kind = type(batch).__name__
        raise TypeError(f"losses_fn: batch must be a mtljax.Batch, or a dict of Batch by task name, found a {kind}")
    if sorted(batch, key=str) != names:
        raise ValueError(
            f"losses_fn: the multi-input batch must have the tasks {names}, found {list(batch)}; "
            "for an absent task, give a batch of any values with mask False"
        )
    for name in names:
        _check_batch(batch[name], [name], f"the batch of task '{name}'")
    return [([name], batch[name]) for name in names]


def _check_batch(batch: Batch, names: list[str], what: str) -> None:
    kinds = {"targets": batch.targets, "mask": batch.mask, "task": batch.task}
    for kind, entries in kinds.items():
        expect(
            isinstance(entries, Mapping), "losses_fn", f"{kind} of {what}", "a dict by task name", entries, TypeError
        )
    missing = [name for name in names if name not in batch.targets]
    if missing:
        raise ValueError(
            f"losses_fn: {what} must have a target for task '{missing[0]}', found only {list(batch.targets)}; "
            f"for missing labels, give any values and mask['{missing[0]}'] False"
        )
    for kind, entries in kinds.items():
        unknown = [name for name in entries if name not in names]
        if unknown:
            raise ValueError(f"losses_fn: {kind} of {what} must be of tasks {names}, found {unknown[0]!r}")
    size = _length(batch.inputs)
    for name, mask in batch.mask.items():
        check_weights("losses_fn", f"mask['{name}'] of {what}", mask, size)


def _check_outputs(outputs: dict[str, Any], names: list[str]) -> None:
    expect(isinstance(outputs, Mapping), "losses_fn", "what the model returns", "a dict by task", outputs, TypeError)
    missing = [name for name in names if name not in outputs]
    if missing:
        raise ValueError(f"losses_fn: the model must return outputs of task '{missing[0]}', found {list(outputs)}")


def _length(inputs: PyTree) -> int | None:
    leaves = [leaf for leaf in jax.tree.leaves(inputs) if jnp.ndim(leaf)]
    return leaves[0].shape[0] if leaves else None
