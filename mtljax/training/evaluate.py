"""Evaluation of a state on a whole split."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from mtljax.banks import ByTask, Entries
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
    names, banks = sorted(tasks), {name: model.banks[name] for name in tasks if name in model.banks}
    entries = Entries(tuple(names), tuple(len(banks[name]) if name in banks else None for name in names))

    @jax.jit
    def means(params: Any, model_state: Any, batch: Batch | dict[str, Batch]) -> dict[str, Any]:
        losses, aux = objective(params, model_state, batch)
        assert aux.weight_sum is not None
        found = {}
        for name, weight_sum in zip(names, entries.parts(aux.weight_sum), strict=True):
            found[name] = {"loss": (losses[name], weight_sum)}
            for metric, weight_sum in aux.metric_weight_sum[name].items():
                found[name][metric] = (aux.metrics[name][metric], weight_sum)
        return found

    def evaluate(state: TrainState, batches: Iterable[Any]) -> dict[str, Any]:
        iterable = isinstance(batches, Iterable) and not isinstance(batches, Batch | str)
        expect(iterable, "evaluate", "batches", "an iterable of batches", batches, TypeError)
        # Summed on the host in float64, since float32 cannot count beyond 2^24.
        sums: dict[str, dict[str, tuple[Any, Any]]] = {name: {} for name in names}
        computing = None
        for batch in itertools.chain(batches, [None]):
            ready, computing = computing, None if batch is None else means(state.params, state.model_state, batch)
            if ready is None:  # one batch behind, so that the device does not wait for the host
                continue
            for name, each in jax.device_get(ready).items():
                for metric, pair in each.items():
                    mean, weight_sum = (np.asarray(value, np.float64) for value in pair)
                    total, weights = sums[name].get(metric, (0.0, 0.0))
                    present = weight_sum > 0
                    total = total + np.where(present, weight_sum * np.where(present, mean, 0.0), 0.0)
                    sums[name][metric] = total, weights + np.where(present, weight_sum, 0.0)
        if not sums[names[0]]:
            raise ValueError("evaluate: batches must give at least one batch, found none")
        return {
            name: {metric: _mean(pair, name, banks.get(name)) for metric, pair in each.items()}
            for name, each in sums.items()
        }

    return evaluate


def _mean(pair: tuple[Any, Any], name: str, bank: tuple[str, ...] | None) -> Any:
    """A mean over the split: a float, or by task of a bank; NaN without labels."""
    total, weights = pair
    mean = np.divide(total, weights, out=np.full(np.shape(total), np.nan), where=weights > 0)
    return float(mean) if bank is None else ByTask(mean, ((name, bank),))
