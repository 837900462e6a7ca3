"""Evaluation of a state on a whole split."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from mtljax.checks import expect
from mtljax.losses.objective import make_losses_fn
from mtljax.types import Batch, Model, Task, TrainState


def make_evaluate(model: Model, tasks: Mapping[str, Task]) -> Callable[[TrainState, Iterable[Any]], dict[str, Any]]:
    """Make a function that evaluates a state on a split.

    Means are over all labelled elements of the split: those of batches are merged by their sums of weights, each metric
    by its own, so what they are does not depend on the batches. `fit` needs
    a function of the state only: `evaluate=lambda state: evaluate(state, evaluation_batches(split, 256))`.

    Args:
        model: the network, run with `train=False` and no key.
        tasks: as for `mtljax.make_losses_fn`.

    Returns:
        `evaluate(state, batches) -> {task: {"loss": float, metric: float, ...}}`; NaN where the sum of weights is 0,
        as for a task without any label.
        `batches` is an iterable of batches of one shape, for example `mtljax.data.evaluation_batches(split, 256)`.

    Raises:
        ValueError, TypeError: as `mtljax.make_losses_fn`; (by evaluate) no batches.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> import mtljax
        >>> model = mtljax.Model(
        ...     init=None, apply=lambda params, state, x, *, tasks=None, key=None, train=False: ({"a": x}, state)
        ... )
        >>> batch = mtljax.Batch(jnp.array([1.0, 3.0]), {"a": jnp.zeros(2)}, {"a": jnp.array([True, True])})
        >>> tasks = {"a": mtljax.Task(mtljax.losses.squared_error)}
        >>> evaluate = mtljax.training.make_evaluate(model, tasks)
        >>> state = mtljax.TrainState(0, mtljax.Params((), {"a": ()}), (), (), (), None)
        >>> evaluate(state, [batch])
        {'a': {'loss': 5.0}}
    """
    objective = make_losses_fn(model, tasks)
    names = sorted(tasks)

    @jax.jit
    def means(params: Any, model_state: Any, batch: Batch | dict[str, Batch]) -> dict[str, Any]:
        losses, aux = objective(params, model_state, batch)
        assert aux.weight_sum is not None
        found = {}
        for k, name in enumerate(names):
            found[name] = {"loss": (losses[name], aux.weight_sum[k])}
            for metric, weight_sum in aux.metric_weight_sum[name].items():
                found[name][metric] = (aux.metrics[name][metric], weight_sum)
        return found

    def evaluate(state: TrainState, batches: Iterable[Any]) -> dict[str, Any]:
        iterable = isinstance(batches, Iterable) and not isinstance(batches, Batch | str)
        expect(iterable, "evaluate", "batches", "an iterable of batches", batches, TypeError)
        # Summed on the host in float64, since float32 cannot count beyond 2^24.
        sums: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in names}
        computing = None
        for batch in itertools.chain(batches, [None]):
            ready, computing = computing, None if batch is None else means(state.params, state.model_state, batch)
            if ready is None:  # one batch behind, so that the device does not wait for the host
                continue
            for name, each in jax.device_get(ready).items():
                for metric, (mean, weight_sum) in each.items():
                    total, weights = sums[name].get(metric, (0.0, 0.0))
                    if weight_sum > 0:
                        total, weights = total + float(weight_sum) * float(mean), weights + float(weight_sum)
                    sums[name][metric] = total, weights
        if not sums[names[0]]:
            raise ValueError("evaluate: batches must give at least one batch, found none")
        return {
            name: {metric: total / weights if weights else float("nan") for metric, (total, weights) in each.items()}
            for name, each in sums.items()
        }

    return evaluate
