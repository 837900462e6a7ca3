"""One entry of the tasks on one batch: its loss, its metrics, and the weights that these are means over."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtljax.losses.masked import elements_of, masked_mean, means_by_task, product
from mtljax.losses.per_example import Loss
from mtljax.types import Array, Batch, Regularized, Task


class Judged(NamedTuple):
    """One entry on one batch.

    Attributes:
        loss: `[]`, or `[n]` of a bank, with the architecture's term.
        weight_sum: likewise.
        metrics: dict of arrays of that shape.
        metric_weight_sum: likewise, without that of the architecture's term.
        all_one: whether the weights are known to be 1, all of them.
    """

    loss: Array
    weight_sum: Array
    metrics: dict[str, Array]
    metric_weight_sum: dict[str, Array]
    all_one: bool


def judge(name: str, task: Task, outputs: Any, batch: Batch, bank: tuple[str, ...] | None) -> Judged:
    """An entry's loss and metrics on a batch.

    Args:
        name: of the entry.
        task: how it is judged.
        outputs: of the model.
        batch: with its targets, and perhaps a mask, and the tasks of examples.
        bank: the names of its tasks; None for a single task.

    Example:
        >>> from mtljax.losses import squared_error
        >>> batch = Batch(jnp.zeros(2), {"a": jnp.zeros((2, 3))})
        >>> judge("a", Task(squared_error), jnp.ones((2, 3)), batch, ("nr_ar", "nr_er", "sr_p53")).loss.tolist()
        [1.0, 1.0, 1.0]
    """
    outputs, term = outputs if isinstance(outputs, Regularized) else (outputs, None)
    given = {"outputs": outputs, "targets": batch.targets[name], "mask": batch.mask.get(name), "term": term}
    if name in batch.task:
        assert bank is not None  # the model has checked it
        index = jnp.asarray(batch.task[name])
        given["mask"] = index >= 0 if given["mask"] is None else product(given["mask"], index >= 0)
        return _judged_alone(name, task, **given, index=index, size=len(bank))
    if bank is None:
        return _judged_alone(name, task, **given)
    axes = {kind: _axes_of_bank(name, kind, tree, len(bank)) for kind, tree in given.items()}
    known: list[bool] = []

    def mapped(given: dict[str, Any]) -> tuple[Any, ...]:
        *found, all_one = _judged_alone(name, task, **given)
        known.append(all_one)
        return tuple(found)

    return Judged(*jax.vmap(mapped, in_axes=(axes,))(given), all_one=known[0])


def _axes_of_bank(name: str, kind: str, tree: Any, size: int) -> int | None:
    """Which axis of what a batch or a model gives is that of the n tasks of a bank."""
    if tree is None or (kind == "mask" and jnp.ndim(tree) == 1):
        return None  # a mask [B] is that of all tasks of the bank
    axis = 0 if kind == "term" else 1
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if jnp.ndim(leaf) <= axis or jnp.shape(leaf)[axis] != size:
            expected = f"[{size}]" if kind == "term" else f"[B, {size}, ...], for the {size} tasks of this bank"
            what = f"{kind}{jax.tree_util.keystr(path)} of {name!r}"
            raise ValueError(f"losses_fn: {what} must be {expected}, found {list(jnp.shape(leaf))}")
    return axis


def _judged_alone(
    name: str,
    task: Task,
    outputs: Any,
    targets: Any,
    mask: Array | None,
    term: Array | None,
    index: Array | None = None,
    size: int = 0,
) -> Judged:
    """One task; or, with the index of each example's task, the `size` tasks of a bank."""

    def mean(elements: Array, weights: Array | None) -> tuple[Array, Array]:
        return masked_mean(elements, weights) if index is None else means_by_task(elements, weights, index, size)

    elements, weights = _named(f"the loss of task '{name}'", task.loss, outputs, targets, mask)
    loss, weight_sum = mean(elements, weights)
    seen = jax.lax.stop_gradient(outputs)
    found = {
        metric: mean(*_named(f"metric '{metric}' of task '{name}'", function, seen, targets, mask))
        for metric, function in task.metrics.items()
    }
    metrics = {metric: mean for metric, (mean, _) in found.items()}
    if term is not None:
        loss = loss + jnp.where(weight_sum > 0, term, 0.0)
        metrics["regularization"] = jax.lax.stop_gradient(term)
    return Judged(
        loss,
        weight_sum,
        metrics,
        {metric: each for metric, (_, each) in found.items()},
        weights is None,
    )


def _named(name: str, loss: Loss, outputs: Any, targets: Any, mask: Array | None) -> tuple[Array, Array | None]:
    """`elements_of`, with the name of the task in front of its TypeErrors and ValueErrors."""
    try:
        return elements_of(loss, outputs, targets, mask, name)
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError) or name in str(error):
            raise
        raise type(error)(f"{name}: {error}") from error
